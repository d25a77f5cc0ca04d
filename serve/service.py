"""What the gateway does with a request, whatever carries it: arm, answer, log."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.workspace import Workspace
from serve.engines import version_in_force
from serve.errors import RequestError, overloaded
from serve.events import EventStore, Stored
from serve.exposures import Exposures, Met, unit_of
from serve.feedback import FeedbackStore
from serve.forgetting import Forgetting
from serve.hosting import Generator, Options, Piece, Refused, Started
from serve.in_force import InForce
from serve.interactions import InteractionLog
from serve.key_check import KeyCheck, read_keys
from serve.metrics import Metrics
from serve.schemas import ChatRequest, CompletionRequest, EventsRequest, FeedbackRequest
from serve.shadow import Shadow
from serve.tracing import Tracing, is_wanted
from serve.turn import Turn, milliseconds

logger = logging.getLogger("sluice.serve")

LOOKUP_TIMEOUT_S = 5
"""How long a request waits to learn whether its id was used before."""

WRITTEN_S = 2.0
"""How long a correction waits for the answer that it corrects."""

CLOSING_S = 5
"""How long the end of the service waits for the database to take the last interactions."""

REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")

DRAWN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
"""A random UUID (version 4 of RFC 9562), as Serve's proxy gives to each request that brings no id."""


@dataclass(frozen=True)
class Hosted:
    """What is served, and how; plain values that travel to the replicas."""

    recipe_name: str
    seed: str
    models: Mapping[str, str]
    """Arm -> model id."""
    weights: Mapping[str, float]
    max_new_tokens: int
    log_prompts: bool | Literal["masked"]
    created: int
    """Unix time of the deployment."""
    keys: Literal["off", "required"] = "off"
    model_version: str = ""
    """The registered version that `tuned` is at the start; the engine follows the log from there."""
    holdout: float = 0.0
    shadow: float = 0.0
    keep_texts_days: int | None = None
    sleeps: bool = False
    """Whether there may be no engine while nobody asks."""
    cors_origins: tuple[str, ...] = ()


def new_request_id() -> str:
    """An id for a request; also the completion's id."""
    return str(uuid.uuid4())


class ChatService:
    """Assigns arms, passes answers on, keeps interactions, exposures and feedback."""

    def __init__(self, hosted: Hosted, engine: Generator, workspace: Workspace) -> None:
        self.hosted, self._engine = hosted, engine
        self._exposures = Exposures(workspace, hosted.recipe_name, hosted.seed, hosted.weights, hosted.holdout)
        self.in_force = InForce(workspace, hosted.recipe_name, hosted.model_version, engine.health)
        self.log = InteractionLog(workspace)
        self._feedback = FeedbackStore(workspace, hosted.recipe_name, masked=hosted.log_prompts is not True)
        self._events = EventStore(workspace, hosted.recipe_name, self._feedback)
        self.metrics = Metrics(lambda: self.log.lost)
        self._forgetting: Forgetting | None = None
        if hosted.keep_texts_days is not None:
            self._forgetting = Forgetting(workspace, hosted.recipe_name, hosted.keep_texts_days, self.metrics.forgotten)
        self._tracing = Tracing(hosted.recipe_name) if is_wanted() else None
        self._shadow = Shadow(engine, self.log, self.metrics, hosted, self._tracing)
        self.keys: KeyCheck | None = None
        """Where every request brings a key."""
        if hosted.keys == "required":
            self.keys = KeyCheck(lambda: read_keys(workspace, hosted.recipe_name))

    async def begin(
        self,
        request: ChatRequest | CompletionRequest,
        user: str | None,
        request_id: str,
        trace: Mapping[str, str] | None = None,
    ) -> Turn:
        """The request with its arm. Raises RequestError for a model, a length or an id that is not served.

        `trace`: its headers that say which trace it belongs to.
        """
        if not REQUEST_ID.fullmatch(request_id):
            raise RequestError(400, "x-request-id is not plain text of at most 100 characters.", code="invalid_id")
        limit = request.limit(self.hosted.max_new_tokens)
        if limit > self.hosted.max_new_tokens:
            raise RequestError(
                422,
                f"max_tokens: {limit} is more than the {self.hosted.max_new_tokens} that one answer may have.",
                code="invalid_value",
                param="max_tokens",
            )
        user = request.user or user
        # Nobody will come back under a request's own id: such a unit has no exposure to keep.
        unit = unit_of(user if user is not None else request_id)
        named = self._named(request.model)
        met, chosen_for = (Met(named), None) if named else await self._met(unit, known=user is not None)
        # Last: whoever was refused may come again under the same id.
        if await self._taken(request_id) or not self._feedback.answering(request_id, unit):
            raise RequestError(409, f"There was a request {request_id} already.", code="request_id_used")
        options = Options(
            limit,
            temperature=request.temperature,
            top_p=request.top_p,
            stop=request.stops,
            seed=request.seed,
            json_schema=request.json_schema,
            logprobs=request.alternatives,
            tools=request.tools_told,
            read_along=request.stream,
        )
        return Turn(
            request_id,
            unit,
            met.arm,
            self.hosted.models[met.arm],
            request.asked,
            request.place,
            options,
            experiment=met.experiment,
            named=bool(named),
            chosen_for=chosen_for,
            trace=trace or {},
        )

    async def pieces(self, turn: Turn) -> AsyncIterator[Piece]:
        """The answer as it is generated. Raises RequestError when it cannot be, before the first piece or later.

        However it ends (done, failed, the client gone), the interaction is kept.
        """
        refused = False
        try:
            async with aclosing(self._engine.answer(turn.arm, turn.prompt, turn.options)) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Refused):
                        refused, refusal = True, _refusal(event, turn)
                        turn.status = refusal.status
                        raise refusal
                    if isinstance(event, Started):
                        self._began(turn, event)
                        continue
                    turn.note(event)
                    if event.error:
                        turn.status = 500
                        raise _failure()
                    yield event
        except RequestError:
            raise
        except Exception as error:
            # An engine that died. A client that left is no Exception: it cancels, or closes this generator.
            logger.exception("the engine failed on request %s", turn.request_id)
            turn.status, turn.finish_reason = 500, "error"
            raise _failure() from error
        finally:
            if refused:
                self._feedback.refused(turn.request_id)
            else:
                self._keep(turn)
            if self._tracing is not None:
                self._tracing.add(turn)

    async def feedback(self, request: FeedbackRequest) -> int:
        """The number under which feedback was committed. Raises RequestError for an unknown request."""
        if request.correction is not None and self.hosted.log_prompts:
            await self._written(request.request_id)
        number = await asyncio.to_thread(self._feedback.add, request)
        if number is None:
            raise RequestError(
                404, f"There was no request {request.request_id}.", code="request_not_found", param="request_id"
            )
        self.metrics.stored(request.kind)
        return number

    async def events(self, request: EventsRequest) -> Stored:
        """How many events were committed, and how many were there. Raises RequestError as `EventStore.add`."""
        stored = await asyncio.to_thread(self._events.add, request.events)
        self.metrics.stored_events(stored.stored)
        return stored

    async def figures(self) -> bytes:
        """What /metrics says."""
        try:
            load = await asyncio.wait_for(self._engine.health(), timeout=5)
        except Exception:
            # Everything else is still worth reading; `sluice_engine_up` tells.
            load = None
        return self.metrics.text(load)

    async def health(self) -> dict[str, Any]:
        """Figures of the engine, which may sleep or wake. Raises RequestError 503 while it has generated no token."""
        try:
            found = await asyncio.wait_for(self._engine.health(), timeout=5)
        except Exception as error:
            raise RequestError(503, f"The engine does not answer: {type(error).__name__}.", code="not_ready") from None
        no_engine = self.hosted.sleeps and not found["replicas"]
        if not no_engine and not found["generated_tokens"]:
            raise RequestError(503, "The engine has not generated a token yet.", code="not_ready")
        latest = self.in_force.watch.latest
        newest = latest.newest if latest is not None else None
        version = version_in_force(found, newest) or self.hosted.model_version
        stale = {"in_production": newest} if version and newest not in (None, version) and not no_engine else {}
        if no_engine:
            status = "waking" if found["waiting"] else "asleep"
        else:
            # The other arm's users are answered.
            status = "degraded" if any(one.get("away") for one in found.get("engines", {}).values()) else "ok"
        return {
            "status": status,
            "recipe": self.hosted.recipe_name,
            **found,
            "interactions_lost": self.log.lost,
            # Another version was promoted since: the engine loads it, or says what the trouble is.
            **stale,
        }

    def close(self) -> None:
        """Write the interactions that wait; no request comes after."""
        self.in_force.watch.close()
        if self._forgetting is not None:
            self._forgetting.close()
        self.log.close(CLOSING_S)
        if self._tracing is not None:
            self._tracing.close()

    def models(self) -> list[dict[str, Any]]:
        """What `model` may say."""
        names = [self.hosted.recipe_name, *self.hosted.models]
        return [
            {"id": name, "object": "model", "created": self.hosted.created, "owned_by": self.hosted.recipe_name}
            for name in names
        ]

    async def _written(self, request_id: str) -> None:
        """Wait until the answer can be compared with: it is written down moments after it was given."""
        deadline = time.monotonic() + WRITTEN_S
        while self._feedback.remembers(request_id) and time.monotonic() < deadline:
            if await asyncio.to_thread(self._feedback.answer, request_id) is not None:
                return
            await asyncio.sleep(0.1)

    async def _taken(self, request_id: str) -> bool:
        if DRAWN_ID.fullmatch(request_id):
            # Only who repeats one has it again, and the log counts that row as lost. To look each of them up made every
            # answer a fifth slower.
            return False
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                return await asyncio.to_thread(self._feedback.taken, request_id)
        except Exception as error:
            # Answering goes on without the database; should the id be used, the log counts its row as lost.
            logger.warning("the id of a request could not be looked up: %s", type(error).__name__)
            return False

    def _named(self, model: str) -> str | None:
        """The arm that a client names; None: it leaves that to us. Raises RequestError for a model that is not."""
        by_name = {name: arm for arm, identity in self.hosted.models.items() for name in (arm, identity)}
        if model in by_name or model in ("auto", self.hosted.recipe_name):
            return by_name.get(model)
        known = ", ".join(["auto", self.hosted.recipe_name, *self.hosted.models])
        raise RequestError(
            404, f"There is no model {model!r}; there are {known}.", code="model_not_found", param="model"
        )

    async def _met(self, unit: str, *, known: bool) -> tuple[Met, str | None]:
        """What a unit meets, and the version that this was chosen for; `known`: it will come again."""
        traffic = await self.in_force.traffic()
        if not known:
            return Met(self._exposures.assigned(unit, traffic)), traffic.model_version
        met = self._exposures.remembered(unit, traffic)
        if met is None:
            met = await asyncio.to_thread(self._exposures.arm_of, unit, traffic)
        return met, traffic.model_version

    def _began(self, turn: Turn, event: Started) -> None:
        turn.begin(event)
        if event.version:
            self.in_force.answered(event.version)
            if event.version != turn.chosen_for:
                # Switched on the way: no experiment may take this answer for the other's.
                turn.experiment = None

    def _keep(self, turn: Turn) -> None:
        total_ms = milliseconds(turn.started, time.monotonic())
        self.metrics.generated(turn.arm, turn.prompt_tokens, turn.completion_tokens)
        if turn.first_token_ms is not None:
            further = turn.completion_tokens - turn.first_tokens
            self.metrics.took(turn.arm, turn.first_token_ms / 1000, (total_ms - turn.first_token_ms) / 1000, further)
        self.log.add(keep_text=self.hosted.log_prompts, recipe_name=self.hosted.recipe_name, **turn.row(total_ms))
        if turn.status == 200 and not turn.named:
            self._shadow.follow(turn)


def _failure() -> RequestError:
    return RequestError(500, "The answer could not be generated.", code="generation_failed")


def _refusal(event: Refused, turn: Turn) -> RequestError:
    if event.reason == "overloaded":
        return overloaded()
    if event.reason == "schema":
        param = "tools" if turn.options.tools else "response_format"
        return RequestError(400, event.message, code="invalid_json_schema", param=param)
    code = "context_length_exceeded" if event.reason == "too_long" else "invalid_conversation"
    return RequestError(400, event.message, code=code, param=turn.place)
