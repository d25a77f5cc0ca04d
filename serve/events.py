"""Business events: committed before the reply, each once, late and in any order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pipelines.workspace import Workspace
from serve.errors import RequestError
from serve.exposures import unit_of
from serve.feedback import FeedbackStore
from serve.schemas import Event

AHEAD = timedelta(minutes=5)
"""How far a sender's clock may be ahead of ours."""


@dataclass(frozen=True)
class Stored:
    """What became of a batch."""

    stored: int
    known: int
    """Events that were there already, just as they are."""


class EventStore:
    """Keeps the events of a recipe; called from threads."""

    def __init__(self, workspace: Workspace, recipe_name: str, requests: FeedbackStore) -> None:
        """`requests` knows which requests there were."""
        self._workspace, self._recipe_name, self._requests = workspace, recipe_name, requests

    def add(self, events: Sequence[Event]) -> Stored:
        """Commit all of them, or none.

        Raises RequestError: 404 a request that there was not, 409 an id that another event has, 422 the future.
        """
        from sqlalchemy.exc import IntegrityError

        wanted = self._columns(events)
        try:
            return self._store(wanted)
        except IntegrityError:
            # Another gateway stored one of them a moment ago: now it is known.
            return self._store(wanted)

    def _columns(self, events: Sequence[Event]) -> dict[str, dict[str, Any]]:
        """Event id -> its columns."""
        from pipelines.records import now

        moment, found = now(), self._requests.units(one.request_id for one in events if one.request_id is not None)
        rows: dict[str, dict[str, Any]] = {}
        for number, event in enumerate(events):
            place = f"events.{number}"
            if event.at is not None and event.at > moment + AHEAD:
                raise RequestError(
                    422, f"{place}.at: {event.at.isoformat()} has not been yet.", code="invalid_value", param=place
                )
            if event.request_id is not None and event.request_id not in found:
                raise RequestError(
                    404, f"{place}: there was no request {event.request_id}.", code="request_not_found", param=place
                )
            unit = found[event.request_id] if event.user is None else unit_of(event.user)  # type: ignore[index]
            if event.request_id is not None and found[event.request_id] != unit:
                message = f"{place}: request {event.request_id} was another user's."
                raise RequestError(422, message, code="invalid_value", param=place)
            row = {
                "recipe_name": self._recipe_name,
                "event_id": event.event_id,
                "unit": unit,
                "request_id": event.request_id,
                "name": event.name,
                "value": event.value,
                "happened_at": moment if event.at is None else event.at,
            }
            if _content(rows.setdefault(event.event_id, row)) != _content(row):
                raise _taken(event.event_id)
        return rows

    def _store(self, wanted: Mapping[str, dict[str, Any]]) -> Stored:
        from sqlalchemy import select

        from pipelines.records import EventRow

        query = select(EventRow).where(EventRow.recipe_name == self._recipe_name, EventRow.event_id.in_(wanted))
        with self._workspace.session() as session:
            known = {row.event_id: row for row in session.scalars(query)}
            for event_id, row in known.items():
                if _content(vars(row)) != _content(wanted[event_id]):
                    raise _taken(event_id)
            new = [EventRow(**columns) for event_id, columns in wanted.items() if event_id not in known]
            session.add_all(new)
        return Stored(len(new), len(known))


def _content(columns: Mapping[str, Any]) -> list[Any]:
    """What makes an event the same as another; its moment may be the one at which it came first."""
    return [columns[name] for name in ("unit", "name", "value", "request_id")]


def _taken(event_id: str) -> RequestError:
    return RequestError(409, f"Event {event_id} is there with other content.", code="event_id_used", param="event_id")
