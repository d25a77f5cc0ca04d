"""A span of each answer, as a collector has it: in the client's trace, with figures and without texts."""

import asyncio

import pytest

from cluster.errors import UserError
from serve.tracing import ENDPOINTS, PROTOCOLS, is_wanted
from tests.collector import Collector
from tests.serve.dying_engine import DyingEngine

ADDRESS = "http://127.0.0.1:4318"
QUESTION = "Where does the quick brown fox live?"
TRACE, CLIENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    for name in (*ENDPOINTS, *PROTOCOLS, "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_collector_that_is_named_turns_it_on(monkeypatch, name):
    assert not is_wanted()
    monkeypatch.setenv(name, ADDRESS)
    assert is_wanted()


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")])
def test_it_is_off_where_opentelemetry_is(monkeypatch, name, value):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", ADDRESS)
    monkeypatch.setenv(name, value)
    assert not is_wanted()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318", "no address"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "no address"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "not spoken"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "not spoken"),
    ],
)
def test_a_collector_that_no_span_would_reach_is_a_sentence(monkeypatch, name, value, told):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", ADDRESS)
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=told) as refused:
        is_wanted()
    assert name in refused.value.message and refused.value.remedy


@pytest.fixture
def collector(monkeypatch):
    running = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", running.endpoint)
    yield running
    running.close()


@pytest.fixture
def traced(http, collector):
    """`traced(service, (path, body), ...)`: the replies, and of each request (what sent the span, the span)."""

    def ask(service, *requests, flags="01"):
        async def go():
            async with http(service) as client:
                headers = {"traceparent": f"00-{TRACE}-{CLIENT}-{flags}"}
                return [await client.post(f"/v1/{path}", json=body, headers=headers) for path, body in requests]

        replies = asyncio.run(go())
        # Its end sends what waits.
        service.close()
        return replies, collector.spans(TRACE)

    return ask


def chat(**fields):
    return "chat/completions", {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 5} | fields


def values(span):
    kinds = ("string_value", "int_value", "double_value", "bool_value")
    return {
        each.key: next((getattr(each.value, kind) for kind in kinds if each.value.HasField(kind)), None)
        for each in span.attributes
    }


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_a_span_in_the_trace_that_its_client_began(service_of, traced, collector, stream):
    service = service_of(model_version="4")
    (reply,), ((sender, span),) = traced(service, chat(model="tuned", seed=3, stream=stream))
    assert sender["service.name"] == "sluice" and sender["sluice.recipe"] == "small"
    assert (span.name, span.kind, span.parent_span_id.hex()) == ("chat small-tuned", 2, CLIENT)
    said = values(span)
    assert said["gen_ai.response.id"] == reply.headers["x-request-id"]
    assert said["gen_ai.usage.output_tokens"] == said["gen_ai.request.max_tokens"] == 5
    assert said["gen_ai.usage.input_tokens"] > 5 and said["gen_ai.request.seed"] == 3
    assert said["sluice.arm"] == "tuned" and said["http.response.status_code"] == 200
    assert "sluice.experiment" not in said and not span.status.code
    (reason,) = (each for each in span.attributes if each.key == "gen_ai.response.finish_reasons")
    assert [one.string_value for one in reason.value.array_value.values] == ["length"]
    times = [event.time_unix_nano for event in span.events]
    assert [event.name for event in span.events] == ["taken on", "first token"]
    assert span.start_time_unix_nano < times[0] < times[1] < span.end_time_unix_nano
    assert not [body for body in collector.bodies if QUESTION.encode() in body]


@pytest.mark.slow
def test_a_shadow_is_a_span_of_its_own_in_the_same_trace(service_of, http, collector):
    service = service_of(shadow=1.0, weights={"base": 1.0, "tuned": 0.0})

    async def go():
        async with http(service) as client:
            path, body = chat(user="jane")
            headers = {"traceparent": f"00-{TRACE}-{CLIENT}-01"}
            reply = await client.post(f"/v1/{path}", json=body, headers=headers)
            while service._shadow._running:
                await asyncio.wait(service._shadow._running)
            return reply

    reply = asyncio.run(go())
    service.close()
    answer, shadow = (span for _, span in collector.spans(TRACE))
    assert (answer.name, answer.kind) == ("chat small-base", 2) and "sluice.shadow_of" not in values(answer)
    assert (shadow.name, shadow.kind, shadow.parent_span_id.hex()) == ("chat small-tuned", 1, CLIENT)
    assert values(shadow)["sluice.shadow_of"] == reply.headers["x-request-id"]
    assert values(shadow)["sluice.arm"] == "tuned" and values(shadow)["gen_ai.usage.output_tokens"] == 5


@pytest.mark.slow
def test_a_text_that_is_refused_or_fails_has_its_status(service_of, traced):
    service = service_of()
    (_, refused), spans = traced(
        service,
        ("completions", {"prompt": "The file", "max_tokens": 3, "model": "base"}),
        ("completions", {"prompt": "far too long " * 2000, "max_tokens": 3, "model": "base"}),
    )
    assert refused.status_code == 400
    assert [span.name for _, span in spans] == ["text_completion small-base"] * 2
    assert [values(span)["http.response.status_code"] for _, span in spans] == [200, 400]
    assert [event.name for event in spans[1][1].events] == []


@pytest.mark.slow
def test_an_engine_that_dies_is_an_error_without_what_it_said(service_of, engine, traced):
    (reply,), ((_, span),) = traced(service_of(engine=DyingEngine(engine, events=2)), chat(model="base"))
    assert reply.status_code == 500 and span.status.code == 2 and not span.status.message
    assert values(span)["http.response.status_code"] == 500
    assert not [event for event in span.events if event.name == "exception"]


@pytest.mark.slow
def test_what_a_client_does_not_want_traced_is_not(service_of, traced):
    (reply,), spans = traced(service_of(), chat(model="base"), flags="00")
    assert reply.status_code == 200 and spans == []


@pytest.mark.slow
def test_a_collector_that_is_away_costs_no_answer(service_of, traced, collector):
    collector.close()
    (reply,), spans = traced(service_of(), chat(model="base"))
    assert reply.status_code == 200 and spans == []
