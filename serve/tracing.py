"""A span of each answer for OpenTelemetry, where its own variables name a collector.

It belongs to the trace that the client began, if it says so by W3C's `traceparent`. No span holds what people or models
write. Ray Serve's own tracing is left off: it records what exceptions say, which may be a row of the database.
"""

import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cluster.errors import UserError

if TYPE_CHECKING:
    from serve.turn import Turn

logger = logging.getLogger("sluice.serve")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Either names a collector that speaks OTLP over HTTP."""
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HEADERS = ("traceparent", "tracestate")
"""Of a request: the trace that it belongs to."""


def is_wanted() -> bool:
    """Whether the environment names a collector. Raises UserError for one that cannot be reached by OTLP over HTTP."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    name = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if off or name is None:
        return False
    endpoint = urlsplit(os.environ[name])
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname:
        raise UserError(f"{name} is no address of a collector.", "Say one such as http://127.0.0.1:4318.")
    protocol = next((name for name in PROTOCOLS if os.environ.get(name)), None)
    if protocol is not None and os.environ[protocol] != "http/protobuf":
        raise UserError(
            f"{protocol}={os.environ[protocol]} is not spoken here.",
            "Say http/protobuf, and the collector's port for it.",
        )
    return True


class Tracing:
    """Sends spans in batches, from a thread of its own; a collector that is away costs the spans alone."""

    def __init__(self, recipe_name: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        ours = {"service.name": "sluice", "sluice.recipe": recipe_name}
        if os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
            del ours["service.name"]
        self._provider = TracerProvider(resource=Resource.create(ours))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("sluice")

    def add(self, turn: "Turn") -> None:
        """The span of an answer that has ended, however it did."""
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        now, here = time.time_ns(), time.monotonic()

        def at(moment: float) -> int:
            return now - int(1e9 * (here - moment))

        try:
            span = self._tracer.start_span(
                f"{_operation(turn)} {turn.model}",
                context=TraceContextTextMapPropagator().extract(turn.trace),
                # Nobody asked for a shadow.
                kind=SpanKind.INTERNAL if turn.shadow_of else SpanKind.SERVER,
                attributes=_attributes(turn),
                start_time=at(turn.started),
            )
            for name, moment in (("taken on", turn.taken_on_at), ("first token", turn.first_token_at)):
                if moment is not None:
                    span.add_event(name, timestamp=at(moment))
            if turn.status >= 500:
                span.set_status(StatusCode.ERROR)
            span.end(now)
        except Exception as error:
            # No answer fails for want of a trace.
            logger.warning("an answer could not be traced: %s", type(error).__name__)

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()


def trace_of(headers: Mapping[str, str]) -> dict[str, str]:
    """What a request's headers say of the trace that it belongs to."""
    return {name: headers[name] for name in HEADERS if name in headers}


def _operation(turn: "Turn") -> str:
    return "text_completion" if isinstance(turn.prompt, str) else "chat"


def _attributes(turn: "Turn") -> dict[str, Any]:
    """By OpenTelemetry's names for generative models, where it has any."""
    options = turn.options
    known = {
        "gen_ai.operation.name": _operation(turn),
        "gen_ai.provider.name": "sluice",
        "gen_ai.request.model": turn.model,
        "gen_ai.request.max_tokens": options.max_new_tokens,
        "gen_ai.request.temperature": options.temperature,
        "gen_ai.request.top_p": options.top_p,
        "gen_ai.request.seed": options.seed,
        "gen_ai.response.id": turn.request_id,
        "gen_ai.response.finish_reasons": [turn.finish_reason] if turn.finish_reason else None,
        "gen_ai.usage.input_tokens": turn.prompt_tokens,
        "gen_ai.usage.output_tokens": turn.completion_tokens,
        "http.response.status_code": turn.status,
        "sluice.arm": turn.arm,
        "sluice.experiment": turn.experiment,
        "sluice.model_version": turn.version,
        "sluice.shadow_of": turn.shadow_of,
    }
    return {name: value for name, value in known.items() if value is not None}
