"""The budget of a run: what it may cost in time or money. Pure."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["", "max_hours", "max_cost"]
KINDS: tuple[Kind, ...] = ("", "max_hours", "max_cost")


@dataclass(frozen=True)
class Budget:
    """What a run may spend, over all the times that it was begun and resumed."""

    max_hours: float | None = None
    """Wall-clock hours of the workers, from the loop's start: steps, validations and checkpoints alike."""
    max_cost: float | None = None
    price_per_hour: float | None = None
    """Of one worker."""

    def cost(self, worker_seconds: float) -> float | None:
        """What so many seconds of workers cost, those of all of them summed; None without a price."""
        return None if self.price_per_hour is None else worker_seconds / 3600 * self.price_per_hour

    def ended(self, seconds: float, worker_seconds: float) -> Kind:
        """Which budget so many seconds use up."""
        if self.max_hours is not None and seconds >= self.max_hours * 3600:
            return "max_hours"
        cost = self.cost(worker_seconds)
        return "max_cost" if self.max_cost is not None and cost is not None and cost >= self.max_cost else ""

    def described(self, kind: Kind) -> str:
        """The budget for people."""
        if kind == "max_hours":
            return f"the budget of {self.max_hours:g} hours (train.max_hours)"
        return f"the budget of {self.max_cost:g} (train.max_cost) at {self.price_per_hour:g} per worker-hour"
