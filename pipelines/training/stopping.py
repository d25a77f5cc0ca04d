"""Early stopping on the validation loss. Pure."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Stopping:
    """What is known after some validations."""

    patience: int
    threshold: float
    best_loss: float = math.inf
    best_step: int = 0
    """Step of the lowest loss; 0 before any validation."""
    reference: float = math.inf
    """Loss against which the next improvement is measured."""
    waited: int = 0
    """Validations since the last improvement."""

    def after(self, step: int, loss: float) -> "Stopping":
        """The state after a validation at `step`.

        The lowest loss is kept however small its lead; only a lead above the threshold resets the patience.
        """
        better = loss < self.best_loss
        improved = loss < self.reference - self.threshold
        return Stopping(
            patience=self.patience,
            threshold=self.threshold,
            best_loss=loss if better else self.best_loss,
            best_step=step if better else self.best_step,
            reference=loss if improved else self.reference,
            waited=0 if improved else self.waited + 1,
        )

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        return self.waited >= self.patience
