"""Traces of requests for OpenTelemetry, where its own variables name a collector.

Ray Serve makes the spans of the proxy, the router and the replicas, in the trace that the client began; here is where
they go, and the span of the answer itself. No span holds what people or models write.
"""

import os
import time
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from serve.service import Turn

COLLECTOR = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Either is the address of a collector that speaks OTLP over HTTP; replicas read it in their own environment."""


def configuration() -> dict[str, Any] | None:
    """What Ray Serve is started with; None: nothing is traced. Raises UserError for a share that is none."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    if off or not any(os.environ.get(name) for name in COLLECTOR):
        return None
    said = os.environ.get("OTEL_TRACES_SAMPLER_ARG", "1")
    try:
        share = float(said)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise UserError(
            f"OTEL_TRACES_SAMPLER_ARG={said!r} is no share of the requests.",
            "Say a number from 0 to 1, or leave it out.",
        )
    return {"enabled": True, "exporter_import_path": f"{__name__}:span_processors", "sampling_ratio": share}


def span_processors() -> list[Any]:
    """Where Serve's processes send spans: in batches, from a thread of their own. Called by Ray Serve in each."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # Serve makes its provider after this, without a name for the service.
    os.environ.setdefault("OTEL_SERVICE_NAME", "sluice")
    return [BatchSpanProcessor(OTLPSpanExporter())]


def begin(turn: "Turn") -> "Span":
    """The span of an answer, within what is traced already; it costs nothing where nothing is."""
    from opentelemetry import trace

    return trace.get_tracer("sluice").start_span(f"{_operation(turn)} {turn.model}")


def end(span: "Span", turn: "Turn") -> None:
    """End it with what is known of the answer now."""
    if span.is_recording():
        span.set_attributes(_attributes(turn))
        now, here = time.time_ns(), time.monotonic()
        for name, moment in (("taken on", turn.taken_on), ("first token", turn.first_token)):
            if moment is not None:
                span.add_event(name, timestamp=now - int(1e9 * (here - moment)))
        if turn.status >= 500:
            from opentelemetry.trace import StatusCode

            span.set_status(StatusCode.ERROR)
    span.end()


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
        "gen_ai.response.finish_reasons": turn.finish_reason and [turn.finish_reason],
        "gen_ai.usage.input_tokens": turn.prompt_tokens,
        "gen_ai.usage.output_tokens": turn.completion_tokens,
        "http.response.status_code": turn.status,
        "sluice.arm": turn.arm,
        "sluice.experiment": turn.experiment,
        "sluice.model_version": turn.version,
    }
    return {name: value for name, value in known.items() if value is not None}
