"""The keys of a service: made, listed, replaced and revoked; what is kept of a key does not give it back."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from cluster.errors import UserError
from pipelines.section import nearest
from pipelines.waive import LONGEST_NAME, plain
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.orm import Session

    from pipelines.records import ApiKeyRow

Scope = Literal["chat", "feedback", "events", "models", "metrics"]
"""`chat`: answers and continued texts; `feedback`; `events`: business events; `models`: their names; `metrics`: the
figures of /metrics."""
SCOPES: tuple[Scope, ...] = ("chat", "feedback", "events", "models", "metrics")
USUAL_SCOPES: tuple[Scope, ...] = ("chat", "feedback", "events", "models")

MARK = "sluice_"
"""How every key begins: scanners for leaked secrets know it by that."""
SHOWN = len(MARK) + 4
"""Characters of a key that are kept to recognise it: 24 of its 256 random bits."""


@dataclass(frozen=True)
class MadeKey:
    """A new key; nothing else ever holds it."""

    key: str = field(repr=False)
    row: "ApiKeyRow"


def digest(key: str) -> str:
    """What is kept of a key, and what it is found by."""
    # A fast hash is right here: a slow one protects what people choose, and nobody guesses 256 random bits.
    return hashlib.sha256(key.encode("utf-8", errors="surrogatepass")).hexdigest()


def add(
    workspace: Workspace,
    recipe_name: str,
    name: str,
    *,
    by: str,
    scopes: Sequence[str] = USUAL_SCOPES,
    per_minute: int | None = None,
    expires_days: float | None = None,
    at: datetime | None = None,
) -> MadeKey:
    """A new key for `name`. Raises UserError for an unknown scope, an unfit name, or one whose key still counts."""
    at, name = at or datetime.now(UTC), _fit_name(name)
    by = _fit_maker(by)
    if unknown := [scope for scope in scopes if scope not in SCOPES]:
        raise UserError(f"{unknown[0]!r} is no scope{nearest(unknown[0], SCOPES)}", f"Scopes: {', '.join(SCOPES)}.")
    # In one order, each once, however they were given.
    granted = " ".join(scope for scope in SCOPES if scope in scopes)
    made = _make(recipe_name, name, granted, per_minute, by, at)
    made.row.expires_at = None if expires_days is None else at + timedelta(days=expires_days)
    with workspace.session() as session:
        if _counting(session, recipe_name, name, at):
            raise UserError(
                f"{recipe_name} has a key {name!r} already.",
                "Choose another name, or replace that key: `sluice keys rotate RECIPE NAME`.",
            )
        session.add(made.row)
    return made


def listed(workspace: Workspace, recipe_name: str) -> "list[ApiKeyRow]":
    """All keys of the recipe that there ever were, the oldest first."""
    with workspace.session() as session:
        return list(session.scalars(_all(recipe_name)))


def rotate(
    workspace: Workspace,
    recipe_name: str,
    name: str,
    *,
    by: str,
    grace_hours: float = 24,
    expires_days: float | None = None,
    at: datetime | None = None,
) -> MadeKey:
    """A new key in place of those of `name`, which count for `grace_hours` more, or until they end anyway.

    It has the newest one's scopes and rate, and lasts as long as that was made to last unless `expires_days` says
    otherwise. Raises UserError when no key of that name counts.
    """
    at, by = at or datetime.now(UTC), _fit_maker(by)
    with workspace.session() as session:
        # First characters may name one that is ending: whatever counts under its name is replaced.
        named = _named(session, recipe_name, name, at)[-1].name
        old = _counting(session, recipe_name, named, at)
        last = old[-1]
        # First of all, as it takes the writer's lock: what is revoked meanwhile must not count again.
        if not _end(session, old, at + timedelta(hours=grace_hours)):
            raise UserError(f"The key of {named} was revoked a moment ago.", "Make another with `sluice keys add`.")
        made = _make(recipe_name, named, last.scopes, last.per_minute, by, at)
        if expires_days is not None:
            made.row.expires_at = at + timedelta(days=expires_days)
        elif last.expires_at is not None:
            made.row.expires_at = at + (last.expires_at - last.created_at)
        session.add(made.row)
    return made


def revoke(workspace: Workspace, recipe_name: str, name: str, *, at: datetime | None = None) -> "list[ApiKeyRow]":
    """End the keys of `name` now; those that it ended. A key's first characters name that one alone.

    Raises UserError when no key of that name counts.
    """
    at = at or datetime.now(UTC)
    with workspace.session() as session:
        rows = _named(session, recipe_name, name, at)
        _end(session, rows, at)
        return rows


def anyone_has_one(workspace: Workspace, recipe_name: str, *, at: datetime | None = None) -> bool:
    """Whether a key of the recipe counts."""
    at = at or datetime.now(UTC)
    return any(state(row, at) in ("active", "ending") for row in listed(workspace, recipe_name))


def state(row: "ApiKeyRow", at: datetime) -> Literal["active", "ending", "expired", "revoked"]:
    """Whether a key counts; `ending`: it was replaced and counts until `revoked_at`."""
    if row.revoked_at is not None and row.revoked_at <= at:
        return "revoked"
    if row.expires_at is not None and row.expires_at <= at:
        return "expired"
    return "active" if row.revoked_at is None else "ending"


def _make(recipe_name: str, name: str, scopes: str, per_minute: int | None, by: str, at: datetime) -> MadeKey:
    """A key that is yet to be stored."""
    from pipelines.records import ApiKeyRow

    key = MARK + secrets.token_urlsafe(32)
    row = ApiKeyRow(
        recipe_name=recipe_name,
        name=name,
        prefix=key[:SHOWN],
        sha256=digest(key),
        scopes=scopes,
        per_minute=per_minute,
        by=by,
        created_at=at,
    )
    return MadeKey(key, row)


def _all(recipe_name: str) -> "Select[ApiKeyRow]":
    from sqlalchemy import select

    from pipelines.records import ApiKeyRow

    return select(ApiKeyRow).where(ApiKeyRow.recipe_name == recipe_name).order_by(ApiKeyRow.id)


def _end(session: "Session", rows: "list[ApiKeyRow]", at: datetime) -> bool:
    """Let them count until `at`; what ends sooner still does. False: somebody has ended one since it was read."""
    from sqlalchemy import or_, update

    from pipelines.records import ApiKeyRow

    as_read = True
    for row in rows:
        ends = at if row.revoked_at is None else min(row.revoked_at, at)
        later = or_(ApiKeyRow.revoked_at.is_(None), ApiKeyRow.revoked_at > at)
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id == row.id, later).values(revoked_at=at))
        session.refresh(row)
        as_read = as_read and row.revoked_at == ends
    return as_read


def _counting(session: "Session", recipe_name: str, name: str, at: datetime) -> "list[ApiKeyRow]":
    rows = session.scalars(_all(recipe_name))
    return [row for row in rows if name in (row.name, row.prefix) and state(row, at) in ("active", "ending")]


def _named(session: "Session", recipe_name: str, name: str, at: datetime) -> "list[ApiKeyRow]":
    if name.startswith(MARK) and len(name) > SHOWN:
        # It must not come back in a message, which may be logged.
        raise UserError("That is a key, and keys are named by their names.", "`sluice keys list RECIPE` shows them.")
    found = _counting(session, recipe_name, name, at)
    if not found:
        known = {row.name for row in session.scalars(_all(recipe_name)) if state(row, at) in ("active", "ending")}
        raise UserError(
            f"{recipe_name} has no key {name!r} that counts{nearest(name, known)}",
            "`sluice keys list RECIPE` shows the keys.",
        )
    return found


def _fit_name(name: str) -> str:
    if name.startswith(MARK):
        raise UserError(f"A key's name cannot begin with {MARK}: so do the keys.", "Name who or what will use it.")
    return plain("NAME", name, LONGEST_NAME, "A name says who or what uses the key.")


def _fit_maker(by: str) -> str:
    return plain("--by", by, LONGEST_NAME, "The list of keys says who made each.")
