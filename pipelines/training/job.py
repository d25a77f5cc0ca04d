"""What a worker is told, and what a checkpoint remembers: plain values, so that both travel."""

from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.training.budget import Kind
from pipelines.training.divergence import Spike
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
    """name, revision, folder, fingerprint, chat_template (its SHA-256)."""
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
    validation_seed: int | None = None
    """Draws those bins, where that is not `seed`: trials under other seeds are measured on the same."""
    device: str = "cpu"
    label: str = ""
    """Stands in every event: the trial's name."""
    values: dict[str, Any] = field(default_factory=dict)
    """What a trial tries; told when it starts."""
    groups: dict[str, str] = field(default_factory=dict)
    """Validation example -> its group, for those that share one."""
    price_per_hour: float | None = None
    """Of a worker."""
    memory_bytes: int | None = None
    """What a worker's passes may take when their size is to be found; None: what is free on its device."""


@dataclass
class State:
    """What a checkpoint carries beside weights and optimiser."""

    step: int = 0
    stopping: Stopping = field(default_factory=lambda: Stopping(1, 0.0))
    baseline_loss: float | None = None
    baseline_figures: dict[str, float] = field(default_factory=dict)
    """What is measured beside the validation loss, before training."""
    history: list[dict[str, Any]] = field(default_factory=list)
    supervised_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0
    since_loss: float = 0.0
    """Summed since the last validation; with `since_weight` it gives the training loss at the next one."""
    since_weight: int = 0
    busy_seconds: float = 0.0
    """Of all workers, for which their devices, fully used, would have been busy in the steps."""
    memory: dict[str, int] = field(default_factory=dict)
    """Peaks in bytes, of the worker that has the highest."""
    spent_seconds: float = 0.0
    """Wall-clock of the loop, over all the times that the run was begun and resumed; each up to its last checkpoint."""
    spent_worker_seconds: float = 0.0
    """The same, summed over the workers: they may be more or fewer after a resume."""
    ended_by: Kind = ""
    """The budget that ended the run."""
    spike: Spike = field(default_factory=lambda: Spike(None, 1))
    losses: dict[str, list[float]] = field(default_factory=dict)
    """Summed loss of each validation example: `base` before training, `best` and `last`."""
    overfit: dict[str, Any] | None = None
    """What the last validation shows of overfitting."""

    def forget_best(self) -> None:
        """The best weights are lost: the next validation decides anew."""
        self.stopping = Stopping(self.stopping.patience, self.stopping.threshold)
        self.losses.pop("best", None)
        self.overfit = None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def of(cls, content: dict[str, Any]) -> "State":
        """The state that `as_json` gave."""
        spike = Spike.of(content["spike"]) if "spike" in content else Spike(None, 1)
        return cls(**(content | {"stopping": Stopping(**content["stopping"]), "spike": spike}))
