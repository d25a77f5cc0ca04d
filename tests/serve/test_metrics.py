"""What /metrics says."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.metrics import ENDPOINTS, Metrics
from tests.serve.dying_engine import DyingEngine

pytestmark = pytest.mark.slow

HELLO = [{"role": "user", "content": "Hello"}]


def chat(**fields):
    return {"messages": HELLO, "max_tokens": 5, "model": "base"} | fields


def scraped(text):
    """Samples as {name{label=value,...}: value}, read by Prometheus' own parser."""
    return {
        f"{sample.name}{dict(sorted(sample.labels.items()))}" if sample.labels else sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


def figures(http, service, *requests, headers=None):
    """The samples after these requests: (method, path, body)."""

    async def go():
        async with http(service) as client:
            replies = [await client.request(method, path, json=body) for method, path, body in requests]
            scrape = await client.get("/metrics", headers=headers)
            return replies, scrape

    replies, scrape = asyncio.run(go())
    assert scrape.status_code == 200 and scrape.headers["content-type"].startswith("text/plain; version=0.0.4")
    return replies, scraped(scrape.text)


def requests_of(samples, endpoint, arm, status):
    labels = {"arm": arm, "endpoint": endpoint, "status": str(status)}
    return samples.get(f"sluice_requests_total{labels}", 0)


def test_requests_are_counted_by_endpoint_arm_and_how_they_ended(http, service_of):
    post = "POST"
    _, samples = figures(
        http,
        service_of(),
        (post, "/v1/chat/completions", chat()),
        (post, "/v1/chat/completions", chat(model="tuned", stream=True)),
        (post, "/v1/chat/completions", chat(model="gpt-9")),
        (post, "/v1/chat/completions", chat(n=2)),
        (post, "/v1/completions", {"prompt": "x", "model": "base", "max_tokens": 1}),
        ("GET", "/v1/models", None),
        ("GET", "/v1/some/thing?else=1", None),
        ("GET", "/healthz", None),
    )
    assert requests_of(samples, "chat", "base", 200) == 1
    assert requests_of(samples, "chat", "tuned", 200) == 1
    assert requests_of(samples, "chat", "none", 404) == 1
    assert requests_of(samples, "chat", "none", 422) == 1
    assert requests_of(samples, "completions", "base", 200) == 1
    assert requests_of(samples, "models", "none", 200) == 1
    assert requests_of(samples, "other", "none", 404) == 1
    assert requests_of(samples, "health", "none", 200) == 1


def test_tokens_and_times_are_counted_by_arm(http, service_of):
    (reply, _), samples = figures(
        http,
        service_of(),
        ("POST", "/v1/chat/completions", chat()),
        ("POST", "/v1/chat/completions", chat(max_tokens=1)),
    )
    base = "{'arm': 'base'}"
    assert samples[f"sluice_prompt_tokens_total{base}"] == 2 * reply.json()["usage"]["prompt_tokens"]
    assert samples[f"sluice_completion_tokens_total{base}"] == 6
    assert samples[f"sluice_time_to_first_token_seconds_count{base}"] == 2
    assert 0 < samples[f"sluice_time_to_first_token_seconds_sum{base}"] < 60
    # One token has no time between tokens.
    assert samples[f"sluice_time_per_output_token_seconds_count{base}"] == 1
    assert "sluice_prompt_tokens_total{'arm': 'tuned'}" not in samples


def test_the_time_per_token_leaves_out_the_first():
    metrics = Metrics(lambda: 0)
    metrics.took("base", 2.0, 1.0, 4)
    samples = scraped(metrics.text(None).decode())
    assert samples["sluice_time_per_output_token_seconds_sum{'arm': 'base'}"] == pytest.approx(0.25)
    assert samples["sluice_time_to_first_token_seconds_sum{'arm': 'base'}"] == 2.0


def test_overload_is_counted_with_its_arm_and_generates_nothing(http, service_of):
    service = service_of()

    async def go():
        async with http(service) as client:
            posts = [client.post("/v1/chat/completions", json=chat(max_tokens=80)) for _ in range(12)]
            await asyncio.gather(*posts)
            return (await client.get("/metrics")).text

    samples = scraped(asyncio.run(go()))
    assert requests_of(samples, "chat", "base", 200) == 4 and requests_of(samples, "chat", "base", 429) == 8
    assert samples["sluice_time_to_first_token_seconds_count{'arm': 'base'}"] == 4


def test_a_stream_that_breaks_off_counts_as_failed_though_its_status_went_out(http, service_of, engine):
    service = service_of(engine=DyingEngine(engine, 4))
    (reply,), samples = figures(http, service, ("POST", "/v1/chat/completions", chat(max_tokens=50, stream=True)))
    assert reply.status_code == 200
    assert requests_of(samples, "chat", "base", 500) == 1 and requests_of(samples, "chat", "base", 200) == 0


def test_an_engine_that_is_away_leaves_the_other_figures(http, service_of, engine):
    import math

    _, samples = figures(http, service_of(engine=DyingEngine(engine, 0)), ("GET", "/v1/models", None))
    assert samples["sluice_engine_up"] == 0 and math.isnan(samples["sluice_requests_running"])
    assert requests_of(samples, "models", "none", 200) == 1


def test_engines_of_an_arms_own_are_told_by_arm_until_they_are_not_known():
    from serve.metrics import Metrics

    metrics = Metrics(lambda: 0)
    own = {"base": {"replicas": 0, "running": 0, "waiting": 2}, "tuned": {"replicas": 3, "running": 5, "waiting": 1}}
    both = {"replicas": 3, "running": 5, "waiting": 3}
    samples = scraped(metrics.text(both | {"engines": own}).decode())
    assert samples["sluice_engine_replicas"] == 3 and samples["sluice_requests_waiting"] == 3
    for arm, one in own.items():
        assert samples[f"sluice_arm_engine_replicas{{'arm': '{arm}'}}"] == one["replicas"]
        assert samples[f"sluice_arm_requests_running{{'arm': '{arm}'}}"] == one["running"]
        assert samples[f"sluice_arm_requests_waiting{{'arm': '{arm}'}}"] == one["waiting"]
    for load in (both, None):
        assert not [name for name in scraped(metrics.text(load).decode()) if name.startswith("sluice_arm_")]


def test_a_client_that_leaves_is_counted_as_that(service_of):
    from serve.gateway import build_gateway

    service = service_of()
    app = build_gateway(service)

    async def go():
        import json

        body, sent, begun = json.dumps(chat(max_tokens=900, stream=True)).encode(), [], asyncio.Event()
        left = asyncio.Event()

        async def receive():
            if not sent:
                sent.append(1)
                return {"type": "http.request", "body": body}
            await begun.wait()
            left.set()
            return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.body":
                begun.set()

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": [],
            "query_string": b"",
            "asgi": {"spec_version": "2.3"},
        }
        await app(scope, receive, send)
        return await service.figures()

    samples = scraped(asyncio.run(asyncio.wait_for(go(), 60)).decode())
    assert requests_of(samples, "chat", "base", 499) == 1


def test_a_client_that_leaves_while_it_sends_its_body_is_no_failure_of_ours(service_of):
    from serve.gateway import build_gateway

    service, sent = service_of(), []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], "query_string": b""}
    scope["asgi"] = {"spec_version": "2.3"}

    async def go():
        await build_gateway(service)(scope, receive, send)
        return await service.figures()

    samples = scraped(asyncio.run(asyncio.wait_for(go(), 60)).decode())
    assert requests_of(samples, "completions", "none", 499) == 1


def test_what_breaks_before_its_first_token_has_no_time_to_it(http, service_of, engine):
    service = service_of(engine=DyingEngine(engine, 1))
    _, samples = figures(http, service, ("POST", "/v1/chat/completions", chat()))
    assert requests_of(samples, "chat", "base", 500) == 1
    assert not any(name.startswith("sluice_time_to_first_token") for name in samples)


def test_running_and_waiting_are_the_engines(http, service_of):
    async def go():
        async with http(service_of()) as client:
            posts = [
                asyncio.create_task(client.post("/v1/chat/completions", json=chat(max_tokens=200))) for _ in range(3)
            ]
            seen = None
            # They come in one after the other: at first fewer run than may.
            while seen != (2, 1, 1):
                await asyncio.sleep(0.01)
                assert not all(post.done() for post in posts), f"{seen} running, waiting, up"
                samples = scraped((await client.get("/metrics")).text)
                seen = tuple(
                    samples[f"sluice_{name}"] for name in ("requests_running", "requests_waiting", "engine_up")
                )
            await asyncio.gather(*posts)

    asyncio.run(go())


def test_feedback_and_lost_interactions_are_counted(http, service_of):
    service = service_of()
    (answer,), _ = figures(http, service, ("POST", "/v1/chat/completions", chat()))
    given = {"request_id": answer.json()["id"], "kind": "thumb_down"}
    unknown = {"request_id": "none", "kind": "thumb_down"}
    service.log.close()
    _, samples = figures(
        http,
        service,
        ("POST", "/v1/feedback", given),
        ("POST", "/v1/feedback", unknown),
        ("POST", "/v1/chat/completions", chat()),
    )
    assert samples["sluice_feedback_stored_total{'kind': 'thumb_down'}"] == 1
    assert samples["sluice_interactions_lost_total"] == 1, "its row came after the log was closed"


def test_no_label_holds_what_a_client_said(http, service_of):
    hostile = 'x"}\n# evil'
    service = service_of()

    async def go():
        async with http(service) as client:
            for number in range(20):
                await client.post("/v1/chat/completions", json=chat(model=f"{hostile}{number}", user=hostile))
                await client.get(f"/v1/{number}")
                await client.request("PURGE", "/v1/models")
                await client.post("/v1/feedback", json={"request_id": hostile, "kind": hostile})
            return (await client.get("/metrics")).text

    text = asyncio.run(go())
    assert "evil" not in text
    endpoints = {
        sample.labels["endpoint"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "endpoint" in sample.labels
    }
    assert endpoints <= {*ENDPOINTS.values(), "other"}
    assert len(scraped(text)) < 20


def test_each_service_counts_its_own(http, service_of):
    first, second = service_of(), service_of()
    figures(http, first, ("GET", "/v1/models", None))
    _, samples = figures(http, second)
    assert requests_of(samples, "models", "none", 200) == 0


def test_nothing_is_added_to_the_registry_that_other_libraries_share(service_of):
    from prometheus_client import REGISTRY

    service_of()
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("sluice")]
