"""The engine deployments, as the gateway sees them."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from serve.hosting import Event, Options, Prompt, Refused

WAKING_S = 900
"""Seconds that an engine may take to wake before the service is called broken: large models load for minutes."""


class ServeEngine:
    """One engine deployment, whichever of its replicas answers."""

    def __init__(self, handle: Any, sleeps: bool = False) -> None:
        """`sleeps`: whether no replica at all is as it should be while nobody asks."""
        self._stream, self._call, self._sleeps = handle.options(stream=True), handle, sleeps
        self._unheard: dict[object, float] = {}
        """Requests of which no replica has said anything yet -> since when."""

    async def answer(self, arm: str, prompt: Prompt, options: Options) -> AsyncIterator[Event]:
        """Started and then pieces, or Refused; closing it cancels the request on the replica."""
        from ray.exceptions import TaskCancelledError
        from ray.serve.exceptions import BackPressureError

        events = self._stream.answer.remote(arm, prompt, options)
        this = object()
        self._unheard[this] = time.monotonic()
        try:
            async for event in events:
                self._unheard.pop(this, None)
                yield event
        except BackPressureError as error:
            yield Refused("overloaded", str(error))
        except TaskCancelledError:
            # Serve's name for a client that left while the request was on its way to the replica.
            raise asyncio.CancelledError from None
        finally:
            self._unheard.pop(this, None)
            events.cancel()

    async def health(self) -> dict[str, Any]:
        """What all replicas say; asking wakes none.

        Raises what the last one raised when none answers, DeploymentUnavailableError when there is none and should be:
        also when one that is to wake has not for WAKING_S.
        """
        from ray.serve.exceptions import DeploymentUnavailableError

        try:
            said = await self._call.broadcast("health").results_async(return_exceptions=True)
        except DeploymentUnavailableError:
            if not self._sleeps or time.monotonic() - min(self._unheard.values(), default=math.inf) > WAKING_S:
                raise
            return together([]) | {"waiting": len(self._unheard)}
        found = [one for one in said if isinstance(one, dict)]
        if not found:
            raise said[-1]
        return together(found)


class EnginePerArm:
    """An engine deployment for each arm, seen as one."""

    def __init__(self, engines: Mapping[str, ServeEngine]) -> None:
        self._engines = engines

    def answer(self, arm: str, prompt: Prompt, options: Options) -> AsyncIterator[Event]:
        """As the arm's engine answers."""
        return self._engines[arm].answer(arm, prompt, options)

    async def health(self) -> dict[str, Any]:
        """What the engines say as one, and what each says. Raises what the first one raised when none answers."""
        said = await asyncio.gather(*(engine.health() for engine in self._engines.values()), return_exceptions=True)
        errors = [one for one in said if isinstance(one, BaseException)]
        if len(errors) == len(said):
            raise errors[0]

        def told(one: dict[str, Any] | BaseException) -> dict[str, Any]:
            if isinstance(one, BaseException):
                return together([]) | {"trouble": f"it does not answer: {type(one).__name__}", "away": True}
            return one

        return as_one({arm: told(one) for arm, one in zip(self._engines, said, strict=True)})


def together(replicas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What replicas say of themselves as one: sums, and of several versions the one that most have. Pure."""
    found: dict[str, Any] = {"replicas": len(replicas)}
    for name in ("generated_tokens", "running", "waiting"):
        found[name] = sum(one[name] for one in replicas)
    versions = sorted(one["version"] for one in replicas if "version" in one)
    if versions:
        found["version"] = max(versions, key=versions.count)
        for name in ("loading", "trouble"):
            found[name] = next((one[name] for one in replicas if one[name]), "")
    return found


def as_one(engines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the arms' engines say as one: sums, the first thing that one of them tells, and `engines` with each. Pure.

    `version` is one that they have; engines of different versions are told apart by `version_in_force`.
    """
    found: dict[str, Any] = {
        name: sum(one[name] for one in engines.values())
        for name in ("replicas", "generated_tokens", "running", "waiting")
    }
    for name in ("version", "loading", "trouble"):
        said = [one[name] for one in engines.values() if name in one]
        if said:
            found[name] = next(filter(None, said), "")
    return found | {"engines": {arm: dict(one) for arm, one in engines.items()}}


def version_in_force(health: Mapping[str, Any], newest: str | None) -> str:
    """The version that the engines have, empty where none says; `newest` is the one in production. Pure.

    While an arm's engine has another than the newest it is that one: an experiment must not count what one arm alone
    answers.
    """
    engines = health.get("engines", {"": health}).values()
    versions = sorted({one["version"] for one in engines if one.get("version")}, key=lambda one: one == newest)
    return versions[0] if versions else ""
