"""What the statistics of experiments do when nothing differs, and when something does: seeded simulations.

`python -m tests.benchmarks.experiment_statistics [--runs 2000]` prints a table for the README: each row a simulation,
what it measured, what was accepted. It ends with 1 if a row was not. One core, minutes; what is measured does not
depend on the machine.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, chi2_contingency, chisquare, norm

from serve.assignment import arm_ranges, choose_arm, choose_covered_arm, place
from serve.experimentation.adjustment import Paired, adjust
from serve.experimentation.arms import MIN_UNITS, Arm, Kind, difference, is_enough, standard_error, units, z_score
from serve.experimentation.power import Effect, fixed_units, of_means, of_proportions, sequential_units
from serve.experimentation.safe_test import Blocks, log_e_values
from serve.experimentation.sample_ratio import check_sample_ratio
from serve.experimentation.sequential import Plan, critical_z

ALPHA = 0.05
RATES = (0.01, 0.05, 0.5, 0.95)
SHARES = (0.5, 0.1, 0.05)
"""Of the units, in the treated arm."""
EFFECTS = ((0.01, 0.03), (0.05, 0.10), (0.5, 0.6), (0.3, 0.1))
CORRELATIONS = (0.0, 0.6, 0.9)
"""Between a unit's figures before the start and since."""
PLANNED = 20_000
EPS = 1e-12
CELLS = 400_000
"""Units times runs that are simulated at once: what fits a processor's cache."""

Draw = Callable[[np.random.Generator, np.ndarray], np.ndarray]
"""Whether each unit is in the treated arm (units, runs) -> its figure."""
Habit = Callable[[np.random.Generator, tuple[int, ...]], tuple[np.ndarray, np.ndarray]]
"""Shape (units, runs) -> each unit's figure before the start, and since."""
Rule = Callable[[Arm, Arm, Kind], np.ndarray]
"""Whether enough is in for a verdict, at each look."""


def binary(control: float, treated: float) -> Draw:
    """Successes with a rate for each arm."""
    return lambda generator, arm: generator.random(arm.shape) < np.where(arm, treated, control)


def normal(shift: float = 0.0) -> Draw:
    """Figures with standard deviation 1, the treated arm's higher by `shift`."""
    return lambda generator, arm: generator.standard_normal(arm.shape) + shift * arm


def lognormal(generator: np.random.Generator, arm: np.ndarray) -> np.ndarray:
    """Skewed figures, as times to an answer are: the same in both arms."""
    return np.exp(generator.standard_normal(arm.shape))


def seldom(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Counts of what one unit in fifty does, and those who do it do it again: most have nothing, before and since."""
    own = generator.gamma(0.1, 0.2, shape)
    return generator.poisson(5 * own).astype(float), generator.poisson(own).astype(float)


def seldom_sums(generator: np.random.Generator, arm: np.ndarray) -> np.ndarray:
    """Counts of what one unit in fifty does, and those who do it do it again: the same in both arms."""
    return seldom(generator, arm.shape)[1]


MEANS: dict[str, Draw] = {"normal": normal(), "lognormal": lognormal, "counts of what is seldom": seldom_sums}


def hundred_together(control: Arm, treated: Arm, kind: Kind) -> np.ndarray:
    """The rule that is not enough for means and unpooled proportions: units alone, whichever arm has them."""
    return units(control, treated) >= MIN_UNITS


def welch(control: Arm, treated: Arm) -> np.ndarray:
    """The standard error that is not enough for means of unequal arms: each arm's own."""
    return np.sqrt(control.variance / np.maximum(control.n, 1) + treated.variance / np.maximum(treated.n, 1))


def looks(values: np.ndarray, treated: np.ndarray) -> tuple[Arm, Arm]:
    """Both arms' sums after each unit (units, runs)."""
    count = np.arange(1, len(values) + 1.0)[:, None]
    n = np.cumsum(treated, axis=0, dtype=float)
    within = np.where(treated, values, 0)
    total, of_treated = np.cumsum(values, axis=0, dtype=float), np.cumsum(within, axis=0, dtype=float)
    if values.dtype == bool:
        return Arm(count - n, total - of_treated, total - of_treated), Arm(n, of_treated, of_treated)
    squares, own = np.cumsum(values**2, axis=0), np.cumsum(within**2, axis=0)
    return Arm(count - n, total - of_treated, squares - own), Arm(n, of_treated, own)


def experiments(draw: Draw, share: float, runs: int, planned: int, seed: int) -> Iterator[tuple[Arm, Arm]]:
    """Experiments of `planned` units that come one by one, each to an arm by chance; some runs at a time."""
    generator = np.random.default_rng(seed)
    block = max(1, CELLS // planned)
    for start in range(0, runs, block):
        treated = generator.random((planned, min(block, runs - start))) < share
        yield looks(draw(generator, treated), treated)


def at(arm: Arm, where: np.ndarray) -> Arm:
    """The sums of each run at a look of its own."""
    runs = np.arange(len(where))
    n, total, squares = (np.broadcast_to(of, (len(of), len(where)))[where, runs] for of in vars(arm).values())
    return Arm(n, total, squares)


@dataclass(frozen=True)
class Stopped:
    """What happened to the runs of a cell."""

    shown: float
    """Share in which a difference was shown at some look."""
    missed: float
    """Share of them whose interval, when they stopped, did not hold the true difference."""
    ever_missed: float
    """Share of all runs in which the interval left the true difference at some look."""
    ever_missed_pooled: float
    """The same if the pooled standard error, which is that of no difference, is taken for every difference."""


def watched(
    draw: Draw,
    share: float,
    runs: int,
    *,
    kind: Kind = "binary",
    truth: float = 0.0,
    planned: int = PLANNED,
    rule: Rule = is_enough,
    error: Callable[[Arm, Arm], np.ndarray] | None = None,
    seed: int = 1,
) -> Stopped:
    """Experiments watched at every unit up to N*, and stopped when a difference is shown.

    `error`: another standard error than the verdict's.
    """
    critical = critical_z(Plan(planned, ALPHA), np.arange(1, planned + 1.0))[:, None]
    counts = np.zeros(4)
    for control, treated in experiments(draw, share, runs, planned, seed):
        enough = rule(control, treated, kind)
        away = np.abs(difference(control, treated))
        z = (
            np.abs(z_score(control, treated, kind))
            if error is None
            else away / np.maximum(error(control, treated), EPS)
        )
        beyond = (z >= critical) & enough
        shown, first = beyond.any(axis=0), beyond.argmax(axis=0)
        if truth == 0:
            counts += shown.sum()
            continue
        out = np.abs(z_score(control, treated, kind, truth)) >= critical
        away = np.abs(difference(control, treated) - truth)
        pooled = away >= critical * standard_error(control, treated, kind)
        missed = out[first, np.arange(len(first))] & shown
        counts += shown.sum(), missed.sum(), (out & enough).any(axis=0).sum(), (pooled & enough).any(axis=0).sum()
    return Stopped(counts[0] / runs, counts[1] / max(counts[0], 1), counts[2] / runs, counts[3] / runs)


def false_harm(rate: float, margin: float, share: float, runs: int, *, planned: int = PLANNED, seed: int = 2) -> float:
    """Share of runs that call a guardrail harmed though the treated arm is worse by the margin and no more."""
    critical = critical_z(Plan(planned, ALPHA), np.arange(1, planned + 1.0), one_sided=True)[:, None]
    harmed = 0
    for control, treated in experiments(binary(rate, rate - margin), share, runs, planned, seed):
        beyond = z_score(control, treated, "binary", -margin) <= -critical
        harmed += int((beyond & is_enough(control, treated, "binary")).any(axis=0).sum())
    return harmed / runs


def correlated(correlation: float) -> Habit:
    """Normal figures with a standard deviation of 1, as many before the start as since, that correlate so."""

    def draw(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        before, noise = generator.standard_normal((2, *shape))
        return before, correlation * before + np.sqrt(1 - correlation**2) * noise

    return draw


HABITS: dict[str, Habit] = {
    **{f"{correlation**2:.0%} of the variance explained": correlated(correlation) for correlation in CORRELATIONS},
    "counts of what is seldom": seldom,
}


def adjusted_shows(habit: Habit, share: float, runs: int, *, planned: int, shift: float = 0.0, seed: int = 9) -> float:
    """Share of experiments watched at every unit in which a difference is shown after CUPED, as a look does it."""
    generator, shown = np.random.default_rng(seed), 0
    critical = critical_z(Plan(planned, ALPHA), np.arange(1, planned + 1.0))[:, None]
    block = max(1, CELLS // planned)
    for start in range(0, runs, block):
        treated = generator.random((planned, min(block, runs - start))) < share
        before, values = habit(generator, treated.shape)
        values = values + shift * treated
        raw = looks(values, treated)
        sums = zip(raw, looks(before, treated), looks(values * before, treated), strict=True)
        found = adjust(*(Paired(metric, covariate, products.total) for metric, covariate, products in sums))
        arms = found.control, found.treated
        enough = is_enough(*raw, "mean") & is_enough(*arms, "mean")
        shown += int(((np.abs(z_score(*arms, "mean")) >= critical) & enough).any(axis=0).sum())
    return shown / runs


def fixed_power_of(draw: Draw, effect: Effect, share: float, runs: int, kind: Kind, seed: int = 3) -> float:
    """Share of runs in which one test at the end, after the formula's units, shows the difference."""
    found = 0
    for control, treated in experiments(draw, share, runs, fixed_units(effect), seed):
        z = z_score(*(at(arm, np.full(np.shape(treated.n)[1], -1)) for arm in (control, treated)), kind)
        found += int((np.abs(z) >= norm.ppf(1 - ALPHA / 2)).sum())
    return found / runs


def turns_as_units(runs: int, *, users: int = 1000, turns: int = 5, seed: int = 4) -> dict[str, float]:
    """False positives if the turns of a user count as units, and if the user does.

    A user's own rate has a beta distribution: turns of one user correlate by .36.
    """
    generator = np.random.default_rng(seed)
    counts = dict.fromkeys(("turns, one test", "turns, every unit", "users, one test", "users, every unit"), 0)
    block = max(1, CELLS // (users * turns))
    for start in range(0, runs, block):
        treated = generator.random((users, min(block, runs - start))) < 0.5
        own = generator.beta(0.3 * 16 / 9, 0.7 * 16 / 9, treated.shape)
        answers = generator.random((users, turns, treated.shape[1])) < own[:, None, :]
        by_turn = looks(answers.reshape(users * turns, -1), np.repeat(treated, turns, axis=0)), "binary"
        by_user = looks(answers.mean(axis=1), treated), "mean"
        for name, (arms, kind) in (("turns", by_turn), ("users", by_user)):
            z, n = np.abs(z_score(*arms, kind)), units(*arms)
            beyond = (z >= critical_z(Plan(len(z), ALPHA), n)) & is_enough(*arms, kind)
            counts[f"{name}, one test"] += int((z[-1] >= norm.ppf(1 - ALPHA / 2)).sum())
            counts[f"{name}, every unit"] += int(beyond.any(axis=0).sum())
    return {name: count / runs for name, count in counts.items()}


def ratio_alarms(weights: dict[str, float], total: int, runs: int, *, times: int = 1, seed: int = 5) -> float:
    """Share of experiments with the right ratio that are called a mismatch, at one of so many looks."""
    shares = np.array([weights[arm] for arm in sorted(weights)]) / sum(weights.values())
    parts = np.random.default_rng(seed).multinomial(total // times, shares, size=(runs, times)).cumsum(axis=1)
    seen = [[dict(zip(sorted(weights), look, strict=True)) for look in run] for run in parts.tolist()]
    return sum(any(check_sample_ratio(look, weights).mismatch for look in run) for run in seen) / runs


def safe_test_shows(
    control: float, treated: float, runs: int, *, sizes: tuple[int, int] = (1, 1), blocks: int = 1000, seed: int = 6
) -> float:
    """Share of streams of blocks in which the safe test shows a difference at some block."""
    generator, shown = np.random.default_rng(seed), 0
    part = max(1, CELLS // blocks)
    for start in range(0, runs, part):
        shape = (blocks, min(part, runs - start))
        n, m = (np.full(shape, size) for size in sizes)
        stream = Blocks(n, generator.binomial(n, control), m, generator.binomial(m, treated))
        # At one block at least: whoever looks at every one of them stops there.
        shown += int((log_e_values(stream).max(axis=0) >= -np.log(ALPHA)).sum())
    return shown / runs


def assignment_p_values(count: int) -> dict[str, float]:
    """p of the chi-squared tests that places are uniform, that seeds are independent, and of a covered split."""
    names = [f"user-{number}" for number in range(count)]
    places = np.array([place("demo:1", name) for name in names])
    weights, coverage = {"base": 0.9, "tuned": 0.1}, 0.4
    table = np.zeros((2, 2))
    for name in names:
        one, other = (choose_arm(seed, name, {"base": 1, "tuned": 1}) for seed in ("demo:1", "demo:2"))
        table[int(one == "tuned"), int(other == "tuned")] += 1
    arms = [choose_covered_arm("demo:3", name, weights, coverage) for name in names]
    widths = [end - start for start, end in arm_ranges(weights, coverage).values()]
    found = [arms.count("base"), arms.count("tuned"), arms.count(None)]
    return {
        "uniform": chisquare(np.histogram(places, 20, (0, 1))[0]).pvalue,
        "independent": chi2_contingency(table, correction=False).pvalue,
        "covered": chisquare(found, [count * width for width in (*widths, 1 - sum(widths))]).pvalue,
    }


def accepted(rate: float, runs: int) -> float:
    """The greatest share of `runs` that a true `rate` exceeds by chance once in a thousand times."""
    return float(binom.ppf(0.999, runs, rate)) / runs


def rows(runs: int) -> Iterator[tuple[str, str, float, float, float]]:
    """What, cell, measured, and what is accepted: from and to."""
    for share in SHARES:
        for rate in RATES:
            shown = watched(binary(rate, rate), share, runs).shown
            yield "false positives, every unit", f"{rate:.0%}, {split(share)}", shown, 0, 0.06
    for name, draw in MEANS.items():
        for share in SHARES:
            # A thousand units in the smaller arm.
            planned = round(1000 / share)
            cell = f"{name}, {split(share)}, {planned} units"
            shown = watched(draw, share, runs, kind="mean", planned=planned).shown
            yield "false positives, every unit", cell, shown, 0, 0.06
            shown = watched(draw, share, runs, kind="mean", planned=planned, error=welch).shown
            yield "the same with each arm's own error", cell, shown, 0, 1
            shown = watched(draw, share, runs, kind="mean", planned=planned, error=welch, rule=hundred_together).shown
            yield "and from 100 units together", cell, shown, 0, 1
    for share in SHARES:
        for control, treated in EFFECTS:
            found = watched(binary(control, treated), share, runs, truth=treated - control, planned=5000)
            cell = f"{control:.0%} to {treated:.0%}, {split(share)}, 5000 units"
            yield "interval without the truth when stopped", cell, found.missed, 0, 0.05
            yield "interval without the truth at some look", cell, found.ever_missed, 0, 0.06
            yield "the same with the pooled error for all", cell, found.ever_missed_pooled, 0, 1
    for share in SHARES:
        harmed = false_harm(0.1, 0.02, share, runs, planned=5000)
        yield "false harm, every unit", f"10% to 8%, margin 2%, {split(share)}, 5000 units", harmed, 0, 0.06
    for share in SHARES:
        for cell, habit in HABITS.items():
            # A thousand units in the smaller arm, which has to have a hundred before anything is shown.
            planned = round(1000 / share)
            shown = adjusted_shows(habit, share, runs, planned=planned)
            yield "false positives after the adjustment", f"{cell}, {split(share)}, {planned} units", shown, 0, 0.06
    yield from power_rows(runs)
    for name, figure in turns_as_units(runs).items():
        yield "false positives, 5 turns per user", name, figure, 0, 1 if name.startswith("turns") else 0.06
    unpooled = watched(binary(0.01, 0.01), 0.1, runs, kind="mean", rule=hundred_together, error=welch).shown
    yield "false positives, unpooled variance", "1%, 90/10, from 100 units together", unpooled, 0, 1
    for share in SHARES:
        weights = {"base": 1 - share, "tuned": share}
        yield "sample ratio alarms, one look", split(share), ratio_alarms(weights, 10_000, 10 * runs), 0, 0.002
        yield "sample ratio alarms, 14 looks", split(share), ratio_alarms(weights, 10_000, runs, times=14), 0, 1
    for sizes in ((1, 1), (9, 1)):
        for rate in RATES:
            cell = f"{rate:.0%}, blocks of {sizes[0]} and {sizes[1]}"
            yield "safe test, false positives", cell, safe_test_shows(rate, rate, runs, sizes=sizes), 0, 0.05
    for name, p in assignment_p_values(50_000).items():
        yield "assignment, p of chi-squared", name, p, 0.001, 1


def power_rows(runs: int) -> Iterator[tuple[str, str, float, float, float]]:
    """Power beside the formula's 80 %; four times the runs, as two points are accepted."""
    for share in SHARES:
        for control, treated in ((0.1, 0.13), (0.5, 0.55)):
            effect, draw = of_proportions(control, treated, share), binary(control, treated)
            cell = f"{control:.0%} to {treated:.0%}, {split(share)}"
            found = watched(draw, share, 4 * runs, planned=sequential_units(effect), seed=7).shown
            yield "power, every unit", f"{cell}, {sequential_units(effect)} units", found, 0.78, 0.82
            found = fixed_power_of(draw, effect, share, 4 * runs, "binary")
            yield "power, one test", f"{cell}, {fixed_units(effect)} units", found, 0.78, 0.82
    for correlation in CORRELATIONS[1:]:
        planned = sequential_units(of_means(0.1, float(np.sqrt(1 - correlation**2))))
        found = adjusted_shows(correlated(correlation), 0.5, 4 * runs, planned=planned, shift=0.1)
        cell = f"{correlation**2:.0%} of the variance explained, {planned} units"
        yield "power after the adjustment", cell, found, 0.78, 0.82
    effect = of_means(0.1, 1.0)
    found = watched(normal(0.1), 0.5, 4 * runs, kind="mean", planned=sequential_units(effect), seed=8).shown
    yield "power, every unit", f"0.1 standard deviations, 50/50, {sequential_units(effect)} units", found, 0.78, 0.82
    found = fixed_power_of(normal(0.1), effect, 0.5, 4 * runs, "mean")
    yield "power, one test", f"0.1 standard deviations, 50/50, {fixed_units(effect)} units", found, 0.78, 0.82


def split(share: float) -> str:
    """`90/10`."""
    return f"{100 * (1 - share):.0f}/{100 * share:.0f}"


def main() -> None:
    """Simulate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    options = parser.parse_args()
    started, failed = time.perf_counter(), 0
    print("| simulation | cell | measured | accepted |\n|---|---|---|---|")
    for what, cell, measured, least, most in rows(options.runs):
        limits = "" if (least, most) == (0, 1) else f"<= {most:g}" if least == 0 else f"{least:g} to {most:g}"
        wrong = not least <= measured <= most
        failed += wrong
        print(f"| {what} | {cell} | {measured:.4f}{' (!)' if wrong else ''} | {limits} |", flush=True)
    print(f"\n{options.runs} runs a cell, N* = {PLANNED}, {time.perf_counter() - started:.0f} s")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
