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
    from pipelines.records import ApiKeyRow

Scope = Literal["chat", "feedback", "models", "metrics"]
"""`chat`: answers and continued texts; `feedback`; `models`: their names; `metrics`: the figures of /metrics."""
SCOPES: tuple[Scope, ...] = ("chat", "feedback", "models", "metrics")
USUAL_SCOPES: tuple[Scope, ...] = ("chat", "feedback", "models")

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
    if unknown := [scope for scope in scopes if scope not in SCOPES]:
        raise UserError(f"{unknown[0]!r} is no scope{nearest(unknown[0], SCOPES)}", f"Scopes: {', '.join(SCOPES)}.")
    if _counting(workspace, recipe_name, name, at):
        raise UserError(
            f"{recipe_name} has a key {name!r} already.",
            "Choose another name, or replace that key: `sluice keys rotate RECIPE NAME`.",
        )
    # In one order, each once, however they were given.
    granted = [scope for scope in SCOPES if scope in scopes]
    lasts = None if expires_days is None else timedelta(days=expires_days)
    return _make(workspace, recipe_name, name, granted, per_minute, by, at, lasts)


def listed(workspace: Workspace, recipe_name: str) -> "list[ApiKeyRow]":
    """All keys of the recipe that there ever were, the oldest first."""
    from sqlalchemy import select

    from pipelines.records import ApiKeyRow

    with workspace.session() as session:
        return list(
            session.scalars(select(ApiKeyRow).where(ApiKeyRow.recipe_name == recipe_name).order_by(ApiKeyRow.id))
        )


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
    """A new key in place of the one of `name`, which counts for `grace_hours` more.

    It has the old one's scopes and rate, and lasts as long as that was made to last unless `expires_days` says
    otherwise. Raises UserError when no key of that name counts.
    """
    at = at or datetime.now(UTC)
    old = _named(workspace, recipe_name, name, at)
    last = old[-1]
    lasts = last.expires_at - last.created_at if last.expires_at is not None else None
    if expires_days is not None:
        lasts = timedelta(days=expires_days)
    # The new one first: whatever breaks between the two, somebody has a key.
    made = _make(workspace, recipe_name, last.name, last.scopes.split(), last.per_minute, by, at, lasts)
    _end(workspace, old, at + timedelta(hours=grace_hours))
    return made


def revoke(workspace: Workspace, recipe_name: str, name: str, *, at: datetime | None = None) -> "list[ApiKeyRow]":
    """End the keys of `name` now; those that it ended. A key's first characters name that one alone.

    Raises UserError when no key of that name counts.
    """
    at = at or datetime.now(UTC)
    return _end(workspace, _named(workspace, recipe_name, name, at), at)


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


def _make(
    workspace: Workspace,
    recipe_name: str,
    name: str,
    scopes: Sequence[str],
    per_minute: int | None,
    by: str,
    at: datetime,
    lasts: timedelta | None,
) -> MadeKey:
    from pipelines.records import ApiKeyRow

    by = plain("--by", by, LONGEST_NAME, "The list of keys says who made each.")
    key = MARK + secrets.token_urlsafe(32)
    row = ApiKeyRow(
        recipe_name=recipe_name,
        name=name,
        prefix=key[:SHOWN],
        sha256=digest(key),
        scopes=" ".join(scopes),
        per_minute=per_minute,
        by=by,
        created_at=at,
        expires_at=None if lasts is None else at + lasts,
    )
    with workspace.session() as session:
        session.add(row)
    return MadeKey(key, row)


def _end(workspace: Workspace, rows: "list[ApiKeyRow]", at: datetime) -> "list[ApiKeyRow]":
    """Let them count until `at`; what ends sooner still does."""
    with workspace.session() as session:
        for row in rows:
            row.revoked_at = min(row.revoked_at, at) if row.revoked_at else at
            session.merge(row)
    return rows


def _counting(workspace: Workspace, recipe_name: str, name: str, at: datetime) -> "list[ApiKeyRow]":
    rows = listed(workspace, recipe_name)
    return [row for row in rows if name in (row.name, row.prefix) and state(row, at) in ("active", "ending")]


def _named(workspace: Workspace, recipe_name: str, name: str, at: datetime) -> "list[ApiKeyRow]":
    if name.startswith(MARK) and len(name) > SHOWN:
        # It must not come back in a message, which may be logged.
        raise UserError("That is a key, and keys are named by their names.", "`sluice keys list RECIPE` shows them.")
    found = _counting(workspace, recipe_name, name, at)
    if not found:
        known = {row.name for row in listed(workspace, recipe_name) if state(row, at) in ("active", "ending")}
        raise UserError(
            f"{recipe_name} has no key {name!r} that counts{nearest(name, known)}",
            "`sluice keys list RECIPE` shows the keys.",
        )
    return found


def _fit_name(name: str) -> str:
    if name.startswith(MARK):
        raise UserError(f"A key's name cannot begin with {MARK}: so do the keys.", "Name who or what will use it.")
    return plain("NAME", name, LONGEST_NAME, "A name says who or what uses the key.")
