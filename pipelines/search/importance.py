"""How much each key of the space mattered: functional ANOVA over a forest (Hutter et al. 2014, ICML). Pure."""

import math
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.search.comparison import ENOUGH, compared_step, from_the_base, value_of
from pipelines.search.history import Standing, Trial
from pipelines.search.space import domain_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Importance:
    """Shares of the losses' variance that each key explains by itself; they add up to one."""

    shares: dict[str, float] = field(default_factory=dict)
    """Key -> share, the greatest first; empty with `because`."""
    step: int = 0
    """At which the losses were compared."""
    trials: int = 0
    notes: tuple[str, ...] = ()
    """Which trials and keys were left out, or judged on fewer trials."""
    because: str = ""
    """Why there is none."""


def importance(standing: Standing, fewest: int = ENOUGH) -> Importance:
    """Of each key, on the losses at the furthest step that at least `fewest` trials reached; deterministic.

    A key that only some trials have is judged among these, if they are enough.
    """
    space: dict[str, Any] = standing.plan.get("space", {})
    begun = from_the_base(standing)
    # Values of a person's own may lie where nothing else was drawn: the forest knows no such place.
    within = [trial for trial in begun if not any(_outside(standing, trial, key) for key in space)]
    trials = [trial for trial in within if any(_inside(standing, trial, key) for key in space)]
    step = compared_step(standing, trials, fewest)
    if not step:
        told = f"{fewest} trials have to reach the same step first; {_most(trials)} have."
        return Importance(because=told)
    there = [trial for trial in trials if math.isfinite(trial.loss_at(step) or math.nan)]
    notes = [f"{len(begun) - len(within)} left out: values outside the space"] if len(within) < len(begun) else []
    have = {key: [trial for trial in there if _inside(standing, trial, key)] for key in space}
    shares: dict[str, float] = {}
    whole = [key for key in space if len(have[key]) == len(there)]
    if not whole:
        # Those without the commonest key, as the recipe's own trial may be, would leave nothing to compare.
        most = max(len(found) for found in have.values())
        whole = [key for key in space if len(have[key]) == most]
        there = [trial for trial in there if all(trial in have[key] for key in whole)]
    if len(there) < fewest:
        return Importance(step=step, trials=len(there), because=f"Only {len(there)} trials have values in the space.")
    shares = _shares(standing, there, whole, step)
    for key in space:
        if key in whole:
            continue
        among = [trial for trial in have[key] if trial in there]
        if len(among) < fewest:
            notes.append(f"{key} is left out: {len(among)} of {len(there)} trials have it")
            continue
        shares[key] = _shares(standing, among, [*whole, key], step)[key]
        notes.append(f"{key} is judged among the {len(among)} trials that have it")
    total = sum(shares.values())
    if not total:
        return Importance(step=step, trials=len(there), because="All losses are the same.")
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return Importance({key: share / total for key, share in ordered}, step, len(there), tuple(notes))


def _most(trials: list[Trial]) -> int:
    steps = {chunk.step for trial in trials for chunk in trial.chunks}
    return max((sum(trial.loss_at(step) is not None for trial in trials) for step in steps), default=0)


def _inside(standing: Standing, trial: Trial, key: str) -> bool:
    """Whether the trial has a value of the key that the space could have drawn."""
    value = value_of(standing, trial, key)
    kind, bounds = domain_of(standing.plan["space"][key])
    if kind == "choice":
        return value in bounds
    if not isinstance(value, int | float):
        return False
    return bool(bounds[0] <= value < bounds[1] if kind == "randint" else bounds[0] <= value <= bounds[1])


def _outside(standing: Standing, trial: Trial, key: str) -> bool:
    return value_of(standing, trial, key) is not None and not _inside(standing, trial, key)


def _shares(standing: Standing, trials: list[Trial], keys: list[str], step: int) -> dict[str, float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    losses = [float(trial.loss_at(step) or 0.0) for trial in trials]
    space = standing.plan["space"]
    spread = {key: len({str(value_of(standing, trial, key)) for trial in trials}) > 1 for key in keys}
    varied = [key for key in keys if spread[key]]
    if max(losses) == min(losses) or not varied:
        return dict.fromkeys(keys, 0.0)
    distributions = {key: _distribution(space[key]) for key in varied}
    study = optuna.create_study()
    for trial, loss in zip(trials, losses, strict=True):
        params = {key: _coordinate(space[key], value_of(standing, trial, key)) for key in varied}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=loss))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=standing.plan.get("seed", 0))
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied)
    return {key: float(found.get(key, 0.0)) for key in keys}


def _distribution(domain: dict[str, Any]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kind, values = domain_of(domain)
    if kind == "choice":
        return CategoricalDistribution(tuple(range(len(values))))
    if kind == "randint":
        return IntDistribution(values[0], values[1] - 1)
    low, high = (_coordinate(domain, value) for value in values)
    return FloatDistribution(low, high)


def _coordinate(domain: dict[str, Any], value: Any) -> Any:
    kind, values = domain_of(domain)
    if kind == "choice":
        return values.index(value)
    # The forest measures along a straight axis: of a rate, its order of magnitude.
    return math.log10(value) if kind == "loguniform" else value
