"""What comes of a person's request, as the events that the driver writes. Pure."""

from typing import Any

from cluster.errors import UserError
from pipelines.search.history import Entry, Event, Origin, Standing, check_request
from pipelines.search.trials import Trials, trial_train


def consequences(standing: Standing, shared: Trials, request: Event) -> list[Entry]:
    """The events that do what was asked; none for `stop`, whose end the driver writes with what it learns from it.

    Raises UserError, with the remedy, for what the sweep as it stands cannot do.
    """
    content, trial, by = dict(request.content), request.trial, request.by
    action = content.pop("action")
    check_request(standing, action, trial, content)
    if action == "clone":
        parent = standing.trials[trial]
        values = parent.values | content["values"]
        return [new_trial(standing, shared, values, "clone", by=by, parent=trial, begins=parent.step)]
    if action == "add":
        return [new_trial(standing, shared, content["values"], "added", by=by)]
    if action == "extend":
        return [Entry("extended", "", by, _extended(standing, content))]
    return [Entry("paused" if action == "pause" else "resumed", trial, by, {})] if action != "stop" else []


def new_trial(
    standing: Standing,
    shared: Trials,
    values: dict[str, Any],
    origin: Origin,
    after: int = 0,
    *,
    by: str = "",
    **more: Any,
) -> Entry:
    """The event that proposes a trial, so many `after` the next number.

    Raises UserError where its values contradict each other: later it would be a failed trial.
    """
    trial_train(shared, values)
    number = len(standing.trials) + 1 + after
    return Entry("proposed", f"trial-{number}", by, {"values": values, "origin": origin, **more})


def _extended(standing: Standing, content: dict[str, Any]) -> dict[str, Any]:
    plan, changed = standing.plan, {}
    for asked, key in (("trials", "num_samples"), ("hours", "max_hours"), ("cost", "max_cost")):
        if not content.get(asked):
            continue
        if plan.get(key) is None:
            raise UserError(f"The sweep has no {key} to extend.", "It is not bound by it.")
        if asked == "trials" and plan["search"] == "grid":
            raise UserError("A grid has no further points.", "Add configurations by hand.")
        changed[key] = plan[key] + content[asked]
    return changed
