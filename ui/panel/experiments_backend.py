"""What the panel reads of experiments, and what people ask of them."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from cluster.errors import GateClosed, UserError
from ui.panel import backend
from ui.panel.last_known import Known, Problem, problem_of

if TYPE_CHECKING:
    from pipelines.recipe_experiment import Experiment

Action = Literal["pause", "resume", "cover", "promote", "stop"]
NAME_REMEDY = "The history keeps who decided: write your name above the buttons."
REASON_REMEDY = "The history keeps why: write the reason beside your name."
CLOSED_REMEDY = (
    "Go on until it is better. Or write the reason beside your name and promote all the same: it is kept for ever."
)


@dataclass(frozen=True)
class Told:
    """Something that happened in an experiment."""

    at: datetime
    action: str
    by: str
    sentence: str


@dataclass(frozen=True)
class ExperimentView:
    """An experiment as the page shows it."""

    about: dict[str, Any]
    """As `reading.summary` has it."""
    look: dict[str, Any]
    """What there is to see now, as `look.evidence_of` has it."""
    looks: list[dict[str, Any]]
    """Those that were kept, oldest first, with their `units`."""
    events: list[Told]
    """The newest first."""
    section: "Experiment"
    newest: bool
    """Whether it is the newest of its recipe: only that one can be changed."""
    in_production: str | None
    """The version in production now."""
    traffic: dict[str, float] | None
    """Arm -> weight where an experiment has decided."""

    @property
    def number(self) -> int:
        """Its number."""
        return int(self.about["experiment"])

    @property
    def recipe_name(self) -> str:
        """The recipe that it is of."""
        return str(self.about["recipe"])

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return bool(self.about["state"] != "ended")

    @property
    def possible(self) -> tuple[Action, ...]:
        """What may be asked of it now."""
        if not self.newest:
            return ()
        served = [arm for arm, weight in (self.traffic or {}).items() if weight]
        treated_serves = not self.live and served == [self.about["treated"]]
        asked: dict[Action, bool] = {
            "pause": self.about["state"] == "running",
            "resume": self.about["state"] == "paused",
            "cover": self.live and self.about["coverage"] < 1,
            "promote": self.in_production == self.about["version"] and not treated_serves,
            "stop": self.live,
        }
        return tuple(action for action, may in asked.items() if may)


def experiments(recipe_name: str | None) -> Known[list[dict[str, Any]]]:
    """The summaries of this recipe's experiments, or of all, newest first."""

    def read() -> list[dict[str, Any]]:
        from serve.experimentation import lifecycle
        from serve.experimentation.reading import summary

        return [summary(row) for row in lifecycle.listed(backend.workspace(), recipe_name)]

    return backend.from_database(("experiments", recipe_name), read)


def experiment(number: int) -> Known[ExperimentView | None]:
    """One experiment; the value is None when there is none of that number."""
    return backend.from_database(("experiment", number), lambda: _experiment(number))


def _experiment(number: int) -> ExperimentView | None:
    from pipelines.tracking import deployments
    from serve.experimentation import lifecycle, reading

    workspace = backend.workspace()
    row = next((row for row in lifecycle.listed(workspace) if row.id == number), None)
    if row is None:
        return None
    found = reading.standing(workspace, row.recipe_name, number)
    deployment = deployments.current(workspace, row.recipe_name)
    return ExperimentView(
        about=found["experiment"],
        look=found["look"],
        looks=reading.looks(workspace, number),
        events=[
            Told(event.created_at, event.action, event.by, reading.sentence_of(event))
            for event in reversed(lifecycle.events_of(workspace, number))
        ],
        section=lifecycle.section_of(row),
        newest=lifecycle.latest(workspace, row.recipe_name).id == number,
        in_production=deployment.model_version if deployment else None,
        traffic=deployments.traffic_of(deployment) if deployment else None,
    )


def ask(view: ExperimentView, action: Action, by: str, because: str, coverage: float = 1.0) -> Known[str]:
    """Do it; the value says what was done, the problem why nothing was (or what is left to be done)."""
    if not by.strip():
        return refused("Nothing was changed: it needs a name.", NAME_REMEDY)
    if not because.strip() and action not in ("promote", "cover"):
        return refused("Nothing was changed: it needs the reason.", REASON_REMEDY)
    try:
        told = _do(view, action, by, because, coverage)
    except GateClosed as error:
        return refused(f"The gate is closed. {error.message}", CLOSED_REMEDY)
    except Exception as error:
        # Whatever went wrong is a sentence on the page.
        return Known(None, None, problem_of(error, "The database", backend.DATABASE_REMEDY))
    if action not in ("promote", "stop"):
        return Known(told, None)
    return Known(told, None, _follow_alias(view.recipe_name))


def refused(message: str, remedy: str) -> Known[Any]:
    """Why nothing was done, and what to do."""
    return Known(None, None, Problem(message, remedy))


def _do(view: ExperimentView, action: Action, by: str, because: str, coverage: float) -> str:
    from serve.experimentation import lifecycle

    workspace, recipe_name = backend.workspace(), view.recipe_name
    row = lifecycle.latest(workspace, recipe_name)
    if row.id != view.number:
        # What is asked goes to the newest one, which is not what the person has before them.
        raise UserError(f"Experiment {view.number} was followed by experiment {row.id}.", "Change that one.")
    if action == "cover":
        if not lifecycle.cover(workspace, row, coverage, by, because):
            raise UserError(f"Experiment {row.id} covers {row.coverage:.0%} and is {row.state}.", "It can only grow.")
        return f"It covers {coverage:.0%} of all users."
    if action == "promote":
        deployment = lifecycle.promote(workspace, recipe_name, by, because)
        return f"{view.about['treated']} answers everyone from now on (deployment {deployment.id})."
    if action == "stop":
        if lifecycle.stop(workspace, recipe_name, by, because) is None:
            return "It is stopped: the newer deployment stays in production."
        return f"It is stopped: {view.about['control']} answers everyone from now on."
    if action == "pause":
        lifecycle.pause(workspace, recipe_name, by, because)
        return "It is paused: nobody new comes in."
    lifecycle.resume(workspace, recipe_name, by, because)
    return "It runs again."


def _follow_alias(recipe_name: str) -> Problem | None:
    """Let the registry's alias follow the log; what keeps it from that undoes nothing."""
    from pipelines.tracking.deployments import follow_alias

    try:
        follow_alias(backend.workspace(), recipe_name)
    except Exception as error:
        found = problem_of(error, "The model registry", "")
        return Problem(f"The alias `champion` has not followed yet: {found.message}", "The watcher tries it again.")
    return None
