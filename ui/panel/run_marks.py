"""The steps of a training that are worth a mark on its curves. Pure."""

from typing import Any, NamedTuple

from ui.panel.charts import Points


class Mark(NamedTuple):
    """A step with a word for it."""

    step: int
    word: str


def marks_of(curves: dict[str, Points], figures: dict[str, Any]) -> list[Mark]:
    """Where validation was best, where overfitting set in, and where it ended before its last step, by step.

    `curves`: metric -> points. `figures`: those of the train report; empty while there is none.
    """
    found = []
    best = best_validation(curves)
    if best:
        found.append(Mark(best[0], "kept" if figures.get("kept_step") == best[0] else "best"))
    overfit = curves.get("validation/overfit_since")
    if overfit:
        found.append(Mark(int(overfit[-1][1]), "overfits"))
    steps, planned = figures.get("steps"), figures.get("planned_steps")
    if steps and planned and steps < planned:
        found.append(Mark(steps, "stopped"))
    return sorted(found)


def best_validation(curves: dict[str, Points]) -> tuple[int, float] | None:
    """(step, loss) of the lowest validation, the first of equals; None before there is one."""
    points = curves.get("validation/loss") or []
    step, value, _ = min(points, key=lambda point: point[1], default=(0, None, 0.0))
    return None if value is None else (step, value)
