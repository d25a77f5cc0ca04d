"""How a running training and its driver speak: events one way, the wish to stop the other."""

from collections import deque
from typing import Any

CAPACITY = 10_000
"""Events kept while nobody takes them; the oldest go first."""


class Mailbox:
    """Lives in an actor of its own, so that neither side ever waits for the other."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=CAPACITY)
        self._stop = False

    def put(self, event: dict[str, Any]) -> None:
        """Leave an event for the driver."""
        self._events.append(event)

    def take(self) -> list[dict[str, Any]]:
        """The events since the last call, oldest first."""
        events = list(self._events)
        self._events.clear()
        return events

    def ask_stop(self) -> None:
        """Ask training to end after the present step, with a checkpoint."""
        self._stop = True

    def stop_asked(self) -> bool:
        """Whether training was asked to end."""
        return self._stop


def open_mailbox() -> Any:
    """A new mailbox actor; it takes no CPU from training and goes with its driver."""
    import ray

    return ray.remote(num_cpus=0)(Mailbox).remote()
