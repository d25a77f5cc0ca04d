"""Business events from a file, for systems that cannot send them one by one: JSON Lines or CSV."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.errors import UserError
from pipelines.workspace import Workspace
from serve.errors import RequestError
from serve.events import EventStore, Stored
from serve.feedback import FeedbackStore
from serve.schemas import MAX_EVENTS, Event

SHOWN = 10
"""Problems of a file that are told one by one."""


def import_events(workspace: Workspace, recipe_name: str, path: Path) -> Stored:
    """Store the events of a file; run again, it stores what is missing.

    Columns (keys) are those of /v1/events. Raises UserError with every line that cannot be read; nothing is stored
    then.
    """
    events = read_events(path)
    store = EventStore(workspace, recipe_name, FeedbackStore(workspace, recipe_name))
    stored = known = 0
    for start in range(0, len(events), MAX_EVENTS):
        try:
            done = store.add(events[start : start + MAX_EVENTS])
        except RequestError as error:
            raise UserError(
                f"{path}: {error.message} (events are counted from event {start + 1}.)",
                f"{stored} events before it are stored; correct the file and import it again.",
            ) from None
        stored, known = stored + done.stored, known + done.known
    return Stored(stored, known)


def read_events(path: Path) -> list[Event]:
    """The events of a file. Raises UserError with all its problems."""
    try:
        rows = list(_rows(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Give a file of JSON Lines or CSV in UTF-8.") from None
    events, problems = [], []
    for number, row in rows:
        try:
            if isinstance(row, ValueError):
                raise row
            events.append(Event.model_validate(row))
        except ValidationError as error:
            told = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'row'}: {str(one['msg']).removeprefix('Value error, ')}"
                for one in error.errors()
            )
            problems.append(f"line {number}: {told}")
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        more = f" and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
        raise UserError(
            f"{path}: {len(problems):,} of {len(rows):,} rows are no events. {'. '.join(problems[:SHOWN])}{more}.",
            "Each needs event_id, name, and user or request_id; value and at (with a time zone) may be left out.",
        )
    if not events:
        raise UserError(f"{path} holds no events.", "Give a file of JSON Lines or CSV with a header.")
    return events


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Line number and what stands there; a ValueError where that is no row."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() == ".csv":
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                # An empty cell is a value that is not there; cells beyond the header have no name.
                named = {
                    key or "a cell beyond the header": value for key, value in row.items() if value not in ("", None)
                }
                yield reader.line_num, named
            return
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except ValueError as error:
                yield number, ValueError(f"no JSON: {error}")
