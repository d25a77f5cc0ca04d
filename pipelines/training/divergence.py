"""Divergence: a loss that is no number, or that stays far above where it was. The rule is pure."""

from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from cluster.errors import StageFailed

WINDOW = 64
"""Steps of the running median."""
FEWEST = 8
"""Losses before there is a median worth the name."""
REMEDY = "Look at these examples, lower train.learning_rate, or lengthen train.warmup_steps."


class Diverged(StageFailed):
    """The loss or a gradient is no longer a number, or the loss has left the range that it had."""


@dataclass(frozen=True)
class Spike:
    """What is known of the training loss after some steps."""

    factor: float | None
    """Times the running median; None: never a spike."""
    patience: int
    """Steps above it that are a divergence."""
    first: float | None = None
    """Loss of the first step: what the untrained model has."""
    recent: tuple[float, ...] = ()
    """Of the last steps that were no spike."""
    since: int = 0
    """Step at which the present spike began; 0: there is none."""
    steps: int = 0
    """Steps of the present spike."""

    @property
    def median(self) -> float:
        """Of the recent losses; infinite while there are too few."""
        return median(self.recent) if len(self.recent) >= FEWEST else float("inf")

    @property
    def exhausted(self) -> bool:
        """Whether the spike has lasted: training has diverged."""
        return self.steps >= self.patience

    def after(self, step: int, loss: float) -> "Spike":
        """The state after a step.

        A loss that is still below the untrained model's is no spike, however low the median: what was learnt by heart
        has losses near zero, and many times nothing is little. A spike does not raise the median that it is held to.
        """
        first = loss if self.first is None else self.first
        if self.factor is not None and loss > max(first, self.factor * self.median):
            return replace(self, first=first, since=self.since or step, steps=self.steps + 1)
        return replace(self, first=first, recent=(*self.recent, loss)[-WINDOW:], since=0, steps=0)

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Spike":
        """The state of plain values, as a checkpoint holds them."""
        return cls(**(content | {"recent": tuple(content["recent"])}))


def named(ids: list[str]) -> str:
    """Examples for a sentence: the first few by their ids."""
    return ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")


def no_loss(step: int, place: str, ids: list[str]) -> Diverged:
    """The loss of one forward pass is no number; `place` names the pass."""
    return Diverged(
        f"Training diverged at step {step}: the loss of {place} (examples {named(ids)}) is no number.", REMEDY
    )


def no_gradient(step: int, norm: float, ids: list[str]) -> Diverged:
    """The losses of a step are numbers, and its gradient is none."""
    return Diverged(
        f"Training diverged at step {step}: the gradient (norm {norm:g}) is no number. The step learnt from examples "
        f"{named(ids)}.",
        REMEDY,
    )


def lasting_spike(spike: Spike, step: int, loss: float, ids: list[str]) -> Diverged:
    """The loss has stayed far above its running median; `ids` are of the step at which that began."""
    return Diverged(
        f"Training diverged at step {step}: its loss ({loss:.3f}) has been above {spike.factor:g} times its running "
        f"median ({spike.median:.3f}) for {spike.steps} steps. That began at step {spike.since}, which learnt from "
        f"examples {named(ids)}.",
        REMEDY,
    )
