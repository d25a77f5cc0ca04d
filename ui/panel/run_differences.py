"""What sets runs apart: the settings that differ, and how each came out. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.tracking.runs import RunSummary
from ui.panel.charts import Points
from ui.panel.run_marks import best_validation


@dataclass(frozen=True)
class Final:
    """How a run came out, or stands; None where it has no such figure."""

    best_validation_loss: float | None
    """Nats per token."""
    best_step: int | None
    validation_loss: float | None
    train_loss: float | None
    steps: int | None
    tokens_per_second: float | None
    """The median over its steps: the first ones warm up, and a machine has other work at times."""
    memory_bytes: float | None
    seconds: float | None
    """From its start to its end; None while it runs."""


def differing(runs: Sequence[RunSummary]) -> dict[str, list[str | None]]:
    """Setting -> its value in each run (None: not set there), of those that are not the same in all, by name."""
    names = sorted({name for run in runs for name in run.params})
    values = {name: [run.params.get(name) for run in runs] for name in names}
    return {name: found for name, found in values.items() if len(set(found)) > 1}


def final(run: RunSummary, curves: dict[str, Points]) -> Final:
    """The last and best figures of a run."""

    def last(metric: str) -> float | None:
        points = curves.get(metric)
        return points[-1][1] if points else None

    best = best_validation(curves)
    speeds = sorted(value for _, value, _ in curves.get("train/tokens_per_second", ()))
    memory = [value for _, value, _ in curves.get("train/memory_bytes", ())]
    return Final(
        best_validation_loss=best[1] if best else None,
        best_step=best[0] if best else None,
        validation_loss=last("validation/loss"),
        train_loss=last("train/loss"),
        steps=max((points[-1][0] for points in curves.values() if points), default=None),
        tokens_per_second=speeds[len(speeds) // 2] if speeds else None,
        memory_bytes=max(memory, default=None),
        seconds=(run.ended_at - run.started_at).total_seconds() if run.ended_at else None,
    )


def same_examples(runs: Sequence[RunSummary]) -> bool:
    """Whether they were validated on the same examples, as far as is on record: of one split, and of one fold."""
    return len({(run.params.get("split"), run.params.get("fold", "None")) for run in runs}) == 1


def lowest(values: Sequence[float | None]) -> set[int]:
    """The places of the lowest value, all of them when several are equal; none where nothing is known."""
    known = [value for value in values if value is not None]
    return {place for place, value in enumerate(values) if known and value == min(known)}
