"""What people ask of a sweep: checked before it is asked, answered by the driver, told in a sentence."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from cluster.errors import UserError
from pipelines.recipe import NOT_SWEPT, Train
from pipelines.recipe_file import parse_yaml
from pipelines.search.history import Action, Event, History
from pipelines.search.reading import told
from pipelines.search.space import with_values
from pipelines.section import nearest
from pipelines.waive import LONGEST_NAME, plain

POLL_S = 0.5


@dataclass(frozen=True)
class Request:
    """Something that a person asked for."""

    event: Event
    answer: str | None
    """None until the driver answers; empty when it was done, else why not."""
    made: str = ""
    """The trial that came of it."""

    @property
    def sentence(self) -> str:
        """What was asked, and what came of it."""
        asked = _asked(self.event)
        if self.answer is None:
            return f"{asked}: waits for the driver."
        if self.answer:
            return f"{asked}: not done. {self.answer}"
        return f"{asked}: done{f', as {self.made}' if self.made else ''}."


def read_values(assignments: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE each, the values as YAML. Raises UserError."""
    values = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise UserError(f"{assignment!r} sets nothing.", "Write KEY=VALUE, as in learning_rate=2e-4.")
        try:
            # As in a recipe one may write the section too.
            values[key.removeprefix("train.")] = parse_yaml(text)
        except yaml.YAMLError:
            raise UserError(f"{assignment!r}: the value is not YAML.", "Quote it, or bracket a list.") from None
    return values


def check_values(train: Train, values: dict[str, Any], parent: dict[str, Any]) -> None:
    """Raise UserError with every reason why no trial may have these values over its parent's and `train`. Pure."""
    problems = []
    for key in values:
        if key not in Train.model_fields:
            problems.append(f"{key} is no key of train{nearest(key, Train.model_fields)}")
        elif key in NOT_SWEPT:
            problems.append(f"{key} cannot differ between trials: {NOT_SWEPT[key]}")
    if not problems:
        try:
            with_values(train, parent | values)
        except ValidationError as error:
            problems = [_problem(item) for item in error.errors()]
    if problems:
        raise UserError("; ".join(problems) + ".", "`sluice schema` lists every key of train and what it may be.")


def ask(
    history: History, action: Action, trial: str = "", *, by: str, train: Train | None = None, **content: Any
) -> int:
    """Ask the driver; the number of the request.

    `train`: the recipe's section, over which the values of a clone or a new trial must be valid. Raises UserError.
    """
    by = plain("--by", by, LONGEST_NAME, "The history keeps who asked.")
    if train is not None and content.get("values"):
        parent = history.standing().of(trial).values if trial else {}
        check_values(train, content["values"], parent)
    return history.ask(action, trial, by, **content)


def requests_of(events: Sequence[Event]) -> list[Request]:
    """What was asked, the newest first, with the answers. `events`: a history, oldest first. Pure."""
    answers = {event.content["request"]: event for event in events if event.kind == "answered"}
    requests = []
    for event in events:
        if event.kind != "asked":
            continue
        answer = answers.get(event.id)
        made = _made(event, answer, events) if answer else ""
        requests.append(Request(event, str(answer.content["problem"]) if answer else None, made))
    return requests[::-1]


def _made(asked: Event, answer: Event, events: Sequence[Event]) -> str:
    """The trial that the driver drew between the question and its answer, with the values that were asked for."""
    if asked.content["action"] not in ("clone", "add"):
        return ""
    wanted = asked.content["values"].items()
    # The driver writes down the trial right before its answer.
    for event in reversed(events):
        if asked.id < event.id < answer.id and event.kind == "proposed" and event.by == asked.by:
            values = event.content["values"]
            if event.content.get("parent", "") == asked.trial and all(values.get(k) == v for k, v in wanted):
                return event.trial
    return ""


def wait_for_answer(history: History, request: int, timeout_s: float) -> Request:
    """The request once the driver has answered, or as it waits when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        events = history.events(after=request - 1)
        found = next(each for each in requests_of(events) if each.event.id == request)
        if found.answer is not None or time.monotonic() >= deadline:
            return found
        time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))


def _asked(event: Event) -> str:
    content = dict(event.content)
    action = content.pop("action")
    if action == "extend":
        units = {"trials": "trials", "hours": "h", "cost": "of cost"}
        shown = ", ".join(f"{content[name]:g} {unit} more" for name, unit in units.items() if content.get(name))
    else:
        shown = told(content["values"]) if content.get("values") else ""
    about = " ".join(filter(None, (action, event.trial)))
    return f"{about}{f' with {shown}' if shown and action != 'extend' else f' by {shown}' if shown else ''}"


def _problem(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    shown = f" (got {item['input']!r})" if isinstance(item.get("input"), str | int | float | bool) else ""
    return f"{place}: {message[0].lower()}{message[1:]}{shown}" if place else message
