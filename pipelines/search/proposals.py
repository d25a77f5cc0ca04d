"""Which configurations are tried: the recipe's own, earlier winners, a grid's points, and what Optuna draws.

What was proposed and how it ended is replayed from the history in the order in which it happened: the sampler is then
where it was, and a sweep that goes on draws what it would have drawn.
"""

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from pipelines.recipe import SearchSpace, Sweep, Train
from pipelines.search.history import ENDED, Event, Origin
from pipelines.search.space import applies, domain_of, draw_values, grid, space_of

if TYPE_CHECKING:
    import optuna

ROUNDS = 4
"""In which `tpe` draws its trials: each learns from the ones before."""
SMALLEST_ROUND = 4


@dataclass(frozen=True)
class Proposal:
    """A configuration to try."""

    values: dict[str, Any]
    origin: Origin


class Proposals:
    """The configurations of one sweep, in the order in which they are to be tried."""

    def __init__(self, sweep: Sweep, train: Train, seed: int, prior: list[dict[str, Any]]) -> None:
        """`prior`: values of earlier winners, the best first."""
        self._sweep, self._train = sweep, train
        self._space = space_of(sweep, train)
        self._points = grid(self._space, train) if sweep.search == "grid" else []
        first = [Proposal({}, "default")] if sweep.default_trial else []
        known = (within(self._space, train, values) for values in prior)
        first += [Proposal(values, "prior") for values in known if values]
        room = sweep.num_samples - (0 if self._points else 1)
        self._first = first[: max(1, room)] if not self._points else first
        self._study = make_study(sweep, seed)
        self._trials: dict[str, optuna.Trial] = {}
        self._proposed = 0

    @property
    def total(self) -> int:
        """Trials of the search, before anybody extends it."""
        return len(self._first) + len(self._points) if self._points else self._sweep.num_samples

    def round_size(self, left: int) -> int:
        """How many to propose at once, of so many that are left."""
        if self._sweep.search != "tpe":
            return left
        return min(left, max(SMALLEST_ROUND, math.ceil(self._sweep.num_samples / ROUNDS)))

    def propose(self, trial: str) -> Proposal | None:
        """The next configuration, for the trial of that name; None when a grid has no more."""
        number = self._proposed
        self._proposed += 1
        if number < len(self._first):
            return self._first[number]
        if self._points:
            at = number - len(self._first)
            return Proposal(self._points[at], "search") if at < len(self._points) else None
        asked = self._study.ask()
        self._trials[trial] = asked
        return Proposal(draw_values(self._space, self._train, _Suggest(asked)), "search")

    def learn(self, trial: str, curve: list[tuple[int, float]], how: str, seconds: float) -> None:
        """Take in how a trial ended; `curve` is its (step, validation loss), `seconds` what a step took."""
        import optuna

        asked = self._trials.pop(trial, None)
        if asked is None:
            return
        if not curve or how == "failed":
            self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
            return
        _, loss = curve[-1]
        if len(self._sweep.objectives) == 2:
            # Several objectives know no pruned trials: what a stopped one came to is what it is judged by.
            self._study.tell(asked, [loss, seconds])
            return
        for at, value in curve:
            asked.report(value, at)
        # Optuna ranks a trial that was stopped by how far it came, then by its loss there.
        state = optuna.trial.TrialState.COMPLETE if how == "finished" else optuna.trial.TrialState.PRUNED
        self._study.tell(asked, loss if how == "finished" else None, state=state)

    def replay(self, events: list[Event]) -> None:
        """Propose and learn what the events, oldest first, say."""
        curves: dict[str, list[tuple[int, float]]] = {}
        seconds: dict[str, float] = {}
        for event in events:
            content = event.content
            if event.kind == "proposed" and content["origin"] in ("default", "prior", "search"):
                again = self.propose(event.trial)
                if again is None or again.values != content["values"]:
                    raise UserError(
                        f"{event.trial} of the sweep that was begun is not what would be drawn now.",
                        "Another version began it: start over with --fresh.",
                    )
            elif event.kind == "rung":
                curves.setdefault(event.trial, []).append((content["step"], content["loss"]))
                seconds[event.trial] = content.get("step_seconds", 0.0)
            elif event.kind == "ended" and content["how"] in ENDED:
                trial = event.trial
                self.learn(trial, curves.get(trial, []), content["how"], seconds.get(trial, 0.0))


class _Suggest:
    """Draws with Optuna."""

    def __init__(self, trial: "optuna.Trial") -> None:
        self._trial = trial

    def __call__(self, key: str, kind: str, values: list[Any]) -> Any:
        if kind == "choice":
            # Optuna keeps plain values only; a list of target modules is chosen by its place.
            place = self._trial.suggest_categorical(key, list(range(len(values))))
            return values[place]
        if kind == "randint":
            return self._trial.suggest_int(key, values[0], values[1] - 1)
        return self._trial.suggest_float(key, *map(float, values), log=kind == "loguniform")


def make_study(sweep: Sweep, seed: int) -> "optuna.Study":
    """Optuna's study in memory, with the recipe's sampler."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
    if sweep.search == "tpe":
        startup = max(SMALLEST_ROUND, math.ceil(sweep.num_samples / ROUNDS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # `group`: keys under different conditions are modelled apart.
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=True)
    return optuna.create_study(sampler=sampler, directions=["minimize"] * len(sweep.objectives))


def within(space: SearchSpace, train: Train, values: dict[str, Any]) -> dict[str, Any]:
    """Those of the values that the space could have drawn itself."""
    kept = {}
    for key, domain in space.items():
        if key not in values or not applies(key, domain, values, train):
            continue
        kind, bounds = domain_of(domain)
        value = values[key]
        number = isinstance(value, int | float)
        if value in bounds if kind == "choice" else number and bounds[0] <= value < bounds[1]:
            kept[key] = value
    return kept
