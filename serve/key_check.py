"""Whether a request's key may do what it asks for, without asking the database each time.

The gateway's process holds the digests of all keys of its recipe and finds one by its own, whatever was sent. They
are read anew when somebody asks and they are older than KNOWN_S; for a key that is not among them, YOUNG_S. A
database that is away lets the keys that are known go on for GRACE_S; others are refused with 503.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pipelines.workspace import Workspace
from serve.errors import RequestError
from serve.keys import Scope, digest, listed
from serve.rates import TokenBucket

logger = logging.getLogger("sluice.serve")

KNOWN_S = 10.0
"""Seconds for which what was read counts: a key that is revoked stops within them."""
YOUNG_S = 1.0
"""Seconds after which a key that is not among those that were read has them read again: a new one works by then."""
GRACE_S = 900.0
"""Seconds after the last successful reading for which known keys go on while the database is away."""
READ_TIMEOUT_S = 2.0
"""Seconds that requests wait for a reading."""


@dataclass(frozen=True)
class KnownKey:
    """What the gateway holds of a key."""

    name: str
    scopes: frozenset[str]
    per_minute: int | None
    expires_at: datetime | None
    revoked_at: datetime | None


def read_keys(workspace: Workspace, recipe_name: str) -> dict[str, KnownKey]:
    """All keys of a recipe by their digests."""
    return {
        row.sha256: KnownKey(row.name, frozenset(row.scopes.split()), row.per_minute, row.expires_at, row.revoked_at)
        for row in listed(workspace, recipe_name)
    }


def _today() -> datetime:
    return datetime.now(UTC)


class KeyCheck:
    """The check of one gateway's process; its rates are this process's own."""

    def __init__(
        self,
        read: Callable[[], Mapping[str, KnownKey]],
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], datetime] = _today,
    ) -> None:
        """`read` gives all keys, and may take its time; `clock` counts seconds, `today` gives the time in UTC."""
        self._read, self._clock, self._today = read, clock, today
        self._keys: Mapping[str, KnownKey] = {}
        self._buckets: dict[str, TokenBucket] = {}
        self._read_at = self._tried_at = -math.inf
        self._reading: asyncio.Task[bool] | None = None
        self._thread: asyncio.Future[Mapping[str, KnownKey]] | None = None
        """A reading that may have outlived the patience of its task; no second one is started beside it."""
        self._began = -math.inf
        self._failed = False
        """Whether the last reading brought nothing in time."""

    async def check(self, authorization: str | None, scope: Scope) -> None:
        """Return when the header's key may do this now.

        Raises RequestError: 401 no key, or none that counts; 403 without the scope; 429 over its rate; 503 when the
        keys cannot be read.
        """
        found = await self._find(digest(_bearer(authorization)))
        if found is None:
            raise _unauthorised("There is no such key.")
        for ends, what in ((found.revoked_at, "was revoked"), (found.expires_at, "expired")):
            if ends is not None and ends <= self._today():
                raise _unauthorised(f"This key {what} on {ends:%Y-%m-%d %H:%M} UTC.")
        if scope not in found.scopes:
            granted = ", ".join(sorted(found.scopes))
            message = f"This key may not do that: it lacks the scope {scope} (it has {granted})."
            raise RequestError(403, message, code="missing_scope")
        if found.per_minute is not None and (wait := self._bucket(found.name, found.per_minute).take(self._clock())):
            raise RequestError(
                429,
                f"This key may make {found.per_minute} requests a minute; the next one in {math.ceil(wait)} s.",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(math.ceil(wait))},
            )

    def _bucket(self, name: str, per_minute: int) -> TokenBucket:
        # By name: a key and the one that replaces it share a rate.
        bucket = self._buckets.get(name)
        if bucket is None or bucket.per_minute != per_minute:
            bucket = self._buckets[name] = TokenBucket(per_minute, self._clock())
        return bucket

    async def _find(self, sha256: str) -> KnownKey | None:
        """The key of this digest as it stands; None: there is none. Raises RequestError 503 when nobody can tell."""
        patience = KNOWN_S if sha256 in self._keys else YOUNG_S
        now = self._clock()
        current = now - self._read_at < patience
        under_way = self._reading is not None and not self._reading.done()
        # After a reading that failed the known keys do not wait for those that strangers' keys begin.
        waits = under_way and not (self._failed and sha256 in self._keys)
        if not current and (waits or (not under_way and now - self._tried_at >= patience)):
            current = await self._renewed()
        found = self._keys.get(sha256)
        if not current and (found is None or self._clock() - self._read_at >= GRACE_S):
            raise RequestError(
                503,
                "The keys cannot be read at present; try again in a moment.",
                code="keys_unavailable",
                headers={"Retry-After": str(math.ceil(READ_TIMEOUT_S))},
            )
        return found

    async def _renewed(self) -> bool:
        """Whether the keys were read anew; whoever asks meanwhile waits for the same reading."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._renew())
        # Whoever leaves must not take it from the others.
        return await asyncio.shield(self._reading)

    async def _renew(self) -> bool:
        self._tried_at = self._clock()
        if self._thread is not None and self._thread.done():
            # One that outlived its patience: late, and better than none.
            self._take(self._thread)
        if self._thread is None:
            # What was revoked after the reading began may be missing in it: it counts from then on.
            self._began = self._tried_at
            self._thread = asyncio.ensure_future(asyncio.to_thread(self._read))
            self._thread.add_done_callback(_heard)
        reading = self._thread
        try:
            await asyncio.wait_for(asyncio.shield(reading), READ_TIMEOUT_S)
        except Exception as error:
            logger.warning("the keys could not be read: %s", type(error).__name__)
        self._failed = not (reading.done() and self._take(reading))
        return not self._failed

    def _take(self, reading: "asyncio.Future[Mapping[str, KnownKey]]") -> bool:
        """Take in what a reading that has ended brought; False when it failed."""
        self._thread = None
        if reading.cancelled() or reading.exception():
            return False
        self._keys, self._read_at = reading.result(), self._began
        names = {key.name for key in self._keys.values()}
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if name in names}
        return True


def _bearer(authorization: str | None) -> str:
    scheme, _, key = (authorization or "").strip().partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise _unauthorised("This service asks for a key: send the header Authorization: Bearer KEY.")
    return key.strip()


def _unauthorised(message: str) -> RequestError:
    # What was sent is in no message: it may be a key with one letter too many.
    return RequestError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _heard(reading: "asyncio.Future[Mapping[str, KnownKey]]") -> None:
    """Look at how a reading that nobody waits for any more ended: asyncio would log it, database address and all."""
    if not reading.cancelled():
        reading.exception()
