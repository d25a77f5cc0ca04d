"""What a worker is told, and what a checkpoint remembers: plain values, so that both travel."""

from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.training.schedule import Plan
from pipelines.training.stopping import Stopping

PREFERENCE_FIGURES = ("reward_margin", "reward_accuracy")
"""What is measured beside a loss over preference pairs: how much more the chosen answer is rewarded than the rejected
one, and the share of pairs where it is (TRL's rewards/margins and rewards/accuracies)."""


@dataclass(frozen=True)
class Job:
    """What a worker is told; plain values, so that it travels."""

    train: dict[str, Any]
    """The recipe's train section."""
    seed: int
    plan: Plan
    base: dict[str, Any]
    """name, revision, folder, fingerprint."""
    bins: str
    """Address of the stored bins."""
    checkpoints: str = ""
    """Address of the run's checkpoints; empty: none are kept and nothing is exported (a trial)."""
    model: tuple[str, ...] = ()
    """Where in storage the trained weights go."""
    rungs: tuple[int, ...] = ()
    """Steps at which a trial is validated, instead of the plan's."""
    validation_bins: int | None = None
    """Validate on so many bins only (a trial)."""
    device: str = "cpu"
    label: str = ""
    """Stands in every event: the trial's name."""
    values: dict[str, Any] = field(default_factory=dict)
    """What a trial tries; told when it starts."""


@dataclass
class State:
    """What a checkpoint carries beside weights and optimiser."""

    step: int = 0
    stopping: Stopping = field(default_factory=lambda: Stopping(1, 0.0))
    baseline_loss: float | None = None
    baseline_figures: dict[str, float] = field(default_factory=dict)
    """The objective's figures before training."""
    history: list[dict[str, float]] = field(default_factory=list)
    supervised_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0
    since_loss: float = 0.0
    """Summed since the last validation; with `since_tokens` it gives the training loss at the next one."""
    since_tokens: int = 0
    """Supervised tokens, or preference pairs."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def of(cls, content: dict[str, Any]) -> "State":
        """The state that `as_json` gave."""
        return cls(**(content | {"stopping": Stopping(**content["stopping"])}))
