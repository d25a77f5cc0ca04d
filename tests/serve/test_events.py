"""Business events over HTTP: each once, all or none, late and in any order."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from pipelines.records import EventRow
from serve.exposures import unit_of

PATH = "/v1/events"


def event(number=1, **fields):
    return {"event_id": f"e{number}", "name": "resolved", "user": "jane"} | fields


def send(http, service, *bodies):
    async def go():
        async with http(service) as client:
            return [await client.post(PATH, json={"events": body}) for body in bodies]

    return asyncio.run(go())


def test_an_event_is_stored_once_however_often_it_is_sent(http, service_of, rows):
    first, again, more = send(
        http, service_of(), [event()], [event()], [event(), event(2, value=3.5, at="2026-01-02T03:04:05+01:00")]
    )
    assert first.json() == {"stored": 1, "known": 0}
    assert again.json() == {"stored": 0, "known": 1}
    assert more.json() == {"stored": 1, "known": 1}
    one, two = rows(EventRow)
    assert (one.unit, one.name, one.value) == (unit_of("jane"), "resolved", 1.0)
    assert (two.value, two.happened_at) == (3.5, datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC))


def test_an_event_of_a_request_is_its_users(http, service_of, rows):
    async def go():
        async with http(service_of()) as client:
            answer = await client.post(
                "/v1/chat/completions",
                json={"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "user": "jane"},
            )
            request = answer.headers["x-request-id"]
            sent = [
                [event(user=None, request_id=request)],
                [event(2, request_id=request)],
                [event(3, user="john", request_id=request)],
            ]
            return [await client.post(PATH, json={"events": body}) for body in sent]

    alone, both, other = asyncio.run(go())
    assert alone.status_code == both.status_code == 200
    assert other.status_code == 422 and "another user's" in other.json()["error"]["message"]
    assert {row.unit for row in rows(EventRow)} == {unit_of("jane")}


@pytest.mark.parametrize(
    ("bodies", "status", "told"),
    [
        ([event(), event(2, request_id="never")], 404, "events.1: there was no request never"),
        ([event(), event(value=2)], 409, "Event e1 is there with other content"),
        ([event(user=None)], 422, "user or request_id"),
        ([event(at="2026-01-02T03:04:05")], 422, "timezone"),
        ([event(at=(datetime.now(UTC) + timedelta(days=1)).isoformat())], 422, "has not been yet"),
        ([event(name="Resolved!")], 422, "events.0.name"),
        ([event(value="1e999")], 422, "finite"),
        ([event(other=1)], 422, "events.0.other"),
        ([], 422, "at least 1"),
        ([event(number) for number in range(1001)], 422, "at most 1000"),
    ],
)
def test_what_is_no_event_stores_nothing_of_its_batch(http, service_of, rows, bodies, status, told):
    (reply,) = send(http, service_of(), bodies)
    assert reply.status_code == status and told in reply.json()["error"]["message"]
    assert rows(EventRow) == []


def test_an_id_that_another_event_has_is_refused(http, service_of, rows):
    _, other = send(http, service_of(), [event()], [event(value=2.0), event(2)])
    assert other.status_code == 409 and len(rows(EventRow)) == 1


def test_senders_at_once_store_each_event_once(http, service_of, rows):
    async def go():
        async with http(service_of()) as client:
            batch = {"events": [event(number) for number in range(50)]}
            return await asyncio.gather(*(client.post(PATH, json=batch) for _ in range(8)))

    replies = [reply.json() for reply in asyncio.run(go())]
    assert sum(reply["stored"] for reply in replies) == 50 == len(rows(EventRow))
    assert all(reply["stored"] + reply["known"] == 50 for reply in replies)


def test_the_figures_count_what_was_stored(http, service_of):
    async def go():
        async with http(service_of()) as client:
            for body in ([event(), event(2)], [event()]):
                await client.post(PATH, json={"events": body})
            return (await client.get("/metrics")).text

    text = asyncio.run(go())
    assert "sluice_events_stored_total 2.0" in text
    assert 'sluice_requests_total{arm="none",endpoint="events",status="200"} 2.0' in text
