"""What the gateway lets through, at times that the tests set."""

import asyncio
import logging
import threading
from datetime import UTC, datetime, timedelta

import pytest

from pipelines.records import Table
from serve import key_check, keys
from serve.errors import RequestError
from serve.key_check import GRACE_S, KNOWN_S, YOUNG_S, KeyCheck, read_keys

NOON = datetime(2030, 5, 1, 12, tzinfo=UTC)
HELLO = [{"role": "user", "content": "Hello"}]
CHAT = {"messages": HELLO, "max_tokens": 2, "model": "base"}


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self):
        self.passed = 0.0

    def seconds(self):
        return 1000.0 + self.passed

    def today(self):
        return NOON + timedelta(seconds=self.passed)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def table(workspace):
    """The keys as they are read: how often, and what keeps them from being read."""

    class Table:
        reads, problem = 0, None

        def read(self):
            self.reads += 1
            if self.problem:
                raise self.problem
            return read_keys(workspace, "small")

    return Table()


@pytest.fixture
def ask(table, clock):
    """`ask(key, ..., scope="chat")`: the statuses that a gateway of one process answers, one after another."""
    check = KeyCheck(table.read, clock.seconds, clock.today)

    async def one(key, scope):
        try:
            await check.check(None if key is None else f"Bearer {key}", scope)
        except RequestError as error:
            return error
        return None

    def all_of(*several, scope="chat"):
        async def go():
            return [await one(key, scope) for key in several]

        return [200 if error is None else error.status for error in asyncio.run(go())]

    all_of.check, all_of.one = check, one
    return all_of


@pytest.fixture
def make(workspace, clock):
    def make(name="shop", **fields):
        return keys.add(workspace, "small", name, by="jane", at=clock.today(), **fields).key

    return make


def test_a_key_that_counts_is_let_through_and_others_are_not(ask, make, workspace):
    key = make()
    other = keys.add(workspace, "another-recipe", "shop", by="jane", at=NOON).key
    assert ask(key, other, key[:-1], key + "x", key.upper(), "x", None) == [200, 401, 401, 401, 401, 401, 401]


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic abc", "sluice_abc", "Bearer \ud800", "Bearer \x00", "Bearer ключ"]
)
def test_a_header_without_a_key_that_counts_is_a_401(ask, make, header):
    make()
    with pytest.raises(RequestError) as refused:
        asyncio.run(ask.check.check(header, "chat"))
    assert refused.value.status == 401 and refused.value.headers["WWW-Authenticate"] == "Bearer"


def test_the_scheme_may_be_written_in_any_case(ask, make):
    asyncio.run(ask.check.check(f"bearer  {make()} ", "chat"))


def test_the_scope_decides_and_the_refusal_says_which_is_missing(ask, make):
    key = make(scopes=["feedback"])
    assert ask(key, scope="feedback") == [200] and ask(key, scope="chat") == [403]
    with pytest.raises(RequestError, match="lacks the scope metrics"):
        asyncio.run(ask.check.check(f"Bearer {key}", "metrics"))


def test_keys_are_read_once_and_not_for_each_request(ask, make, table):
    first, second = make("one"), make("two")
    assert ask(*[first, second] * 50) == [200] * 100
    assert table.reads == 1


def test_a_revoked_key_stops_within_the_time_that_is_promised(ask, make, clock, workspace):
    key = make()
    assert ask(key) == [200]
    keys.revoke(workspace, "small", "shop", at=clock.today())
    clock.passed = KNOWN_S - 0.1
    assert ask(key) == [200], "it is not read anew before that"
    clock.passed = KNOWN_S
    assert ask(key) == [401]


def test_a_new_key_works_after_a_second(ask, make, clock, table):
    ask(make("one"))
    key = make("two")
    assert ask(key) == [401]
    clock.passed = YOUNG_S
    assert ask(key) == [200] and table.reads == 2


def test_keys_that_are_tried_out_do_not_reach_the_database(ask, make, table, clock):
    key = make()
    assert ask(key, *(f"sluice_{number}" for number in range(200))) == [200] + [401] * 200
    assert table.reads == 1
    clock.passed = 5 * YOUNG_S
    ask(*(f"sluice_{number}" for number in range(200)))
    assert table.reads == 2 and len(ask.check._keys) == 1, "nothing is remembered of what was tried"


def test_a_key_expires_at_its_moment_whatever_was_read(ask, make, clock, table):
    key = make(expires_days=1 / 24 / 3600 * 5)
    assert ask(key) == [200]
    clock.passed = 5
    assert ask(key) == [401] and table.reads == 1


def test_old_and_new_key_both_count_until_the_grace_is_over(ask, make, clock, workspace):
    old = make(per_minute=1000)
    new = keys.rotate(workspace, "small", "shop", by="jane", grace_hours=24, at=clock.today()).key
    assert ask(old, new) == [200, 200]
    clock.passed = 24 * 3600
    assert ask(old, new) == [401, 200]


def test_over_its_rate_a_key_is_told_when_to_come_again(ask, make, clock):
    key, free = make(per_minute=3), make("free")
    assert ask(key, key, key, key, free) == [200, 200, 200, 429, 200]
    with pytest.raises(RequestError) as refused:
        asyncio.run(ask.check.check(f"Bearer {key}", "chat"))
    assert refused.value.headers["Retry-After"] == "20" and refused.value.code == "rate_limit_exceeded"
    clock.passed = 20
    assert ask(key, key) == [200, 429]


def test_a_key_and_the_one_that_replaces_it_share_a_rate(ask, make, clock, workspace):
    old = make(per_minute=2)
    new = keys.rotate(workspace, "small", "shop", by="jane", at=clock.today()).key
    assert ask(old, new, old, new) == [200, 200, 429, 429]


def test_what_is_refused_does_not_count_towards_the_rate(ask, make):
    key = make(per_minute=1, scopes=["chat"])
    assert ask(key, key, scope="metrics") == [403, 403] and ask(key) == [200]


def test_while_the_database_is_away_known_keys_go_on_for_the_grace_and_others_are_503(ask, make, clock, table):
    key = make()
    assert ask(key) == [200]
    table.problem = ConnectionError("postgresql://u:secret@host is away")
    clock.passed = GRACE_S - 1
    assert ask(key, key, "sluice_unknown", None) == [200, 200, 503, 401]
    clock.passed = GRACE_S
    assert ask(key) == [503]
    table.problem = None
    clock.passed += KNOWN_S
    assert ask(key) == [200]


def test_a_database_that_was_never_there_refuses_all_and_is_not_asked_by_each(ask, make, table, clock):
    key = make()
    table.problem = ConnectionError()
    assert ask(*[key] * 50) == [503] * 50
    assert table.reads == 1
    table.problem = None
    clock.passed = YOUNG_S
    assert ask(key) == [200]


def test_an_expired_key_is_refused_while_the_database_is_away_too(ask, make, clock, table):
    key = make(expires_days=1 / 24 / 60)
    assert ask(key) == [200]
    table.problem = ConnectionError()
    clock.passed = 60
    assert ask(key) == [401]


def test_a_database_that_hangs_keeps_one_thread_and_nobody_for_long(workspace, make, clock, monkeypatch):
    key, release, calls = make(), threading.Event(), []

    def read():
        calls.append(1)
        if len(calls) > 1:
            assert release.wait(30)
        return read_keys(workspace, "small")

    check = KeyCheck(read, clock.seconds, clock.today)

    async def go():
        await check.check(f"Bearer {key}", "chat")
        # What hangs is not waited for; what answers has its time, also where much else is at work.
        monkeypatch.setattr(key_check, "READ_TIMEOUT_S", 0.05)
        for _ in range(5):
            clock.passed += KNOWN_S
            await check.check(f"Bearer {key}", "chat")
        hanging = len(calls)
        release.set()
        monkeypatch.setattr(key_check, "READ_TIMEOUT_S", 30)
        await asyncio.wait([check._thread])
        clock.passed += KNOWN_S
        await check.check(f"Bearer {key}", "chat")
        return hanging, len(calls)

    assert asyncio.run(asyncio.wait_for(go(), 30)) == (2, 3)


def test_a_reading_that_came_late_still_counts(workspace, make, clock, monkeypatch):
    monkeypatch.setattr(key_check, "READ_TIMEOUT_S", 0.05)
    key, releases, calls = make(), [threading.Event(), threading.Event()], []

    def read():
        calls.append(1)
        assert releases[len(calls) - 1].wait(30)
        return read_keys(workspace, "small")

    check = KeyCheck(read, clock.seconds, clock.today)

    async def go():
        with pytest.raises(RequestError) as away:
            await check.check(f"Bearer {key}", "chat")
        releases[0].set()
        await asyncio.wait([check._thread])
        clock.passed = YOUNG_S
        # The next reading hangs as well; what the first one brought is there.
        await check.check(f"Bearer {key}", "chat")
        releases[1].set()
        return away.value.status

    assert asyncio.run(asyncio.wait_for(go(), 30)) == 503 and len(calls) == 2


def test_after_a_failure_known_keys_do_not_wait_for_what_strangers_begin(workspace, make, clock):
    key, release, calls = make(), threading.Event(), []

    def read():
        calls.append(1)
        if len(calls) == 2:
            raise ConnectionError
        if len(calls) == 3:
            assert release.wait(30)
        return read_keys(workspace, "small")

    check = KeyCheck(read, clock.seconds, clock.today)

    async def go():
        await check.check(f"Bearer {key}", "chat")
        clock.passed = KNOWN_S
        await check.check(f"Bearer {key}", "chat")
        clock.passed += YOUNG_S
        stranger = asyncio.create_task(check.check("Bearer sluice_unknown", "chat"))
        while len(calls) < 3:
            await asyncio.sleep(0)
        await check.check(f"Bearer {key}", "chat")
        waited = stranger.done()
        release.set()
        (refused,) = await asyncio.gather(stranger, return_exceptions=True)
        return waited, refused.status

    assert asyncio.run(asyncio.wait_for(go(), 30)) == (False, 401)


def test_requests_at_once_wait_for_one_reading_and_one_that_leaves_does_not_end_it(make, workspace, clock):
    key, release, calls = make(), threading.Event(), []

    def read():
        calls.append(1)
        assert release.wait(30)
        return read_keys(workspace, "small")

    check = KeyCheck(read, clock.seconds, clock.today)

    async def go():
        waiting = [asyncio.create_task(check.check(f"Bearer {key}", "chat")) for _ in range(20)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        release.set()
        return await asyncio.gather(*waiting, return_exceptions=True)

    first, *others = asyncio.run(asyncio.wait_for(go(), 30))
    assert isinstance(first, asyncio.CancelledError) and others == [None] * 19 and len(calls) == 1


def gateway(http, service_of, clock, workspace, *requests, **changes):
    """The replies of a gateway that asks for keys; `requests` are (method, path, key, body)."""
    service = service_of(keys="required", **changes)
    service.keys = KeyCheck(lambda: read_keys(workspace, "small"), clock.seconds, clock.today)

    async def go():
        async with http(service) as client:
            return [
                await client.request(
                    method, path, json=body, headers={} if key is None else {"Authorization": f"Bearer {key}"}
                )
                for method, path, key, body in requests
            ]

    replies = asyncio.run(go())
    service.log.close()
    return replies


ROUTES = [
    ("POST", "/v1/chat/completions", "chat", CHAT),
    ("POST", "/v1/completions", "chat", {"prompt": "Hello", "model": "base", "max_tokens": 2}),
    ("POST", "/v1/feedback", "feedback", {"request_id": "none", "kind": "thumb_up"}),
    ("POST", "/v1/events", "events", {"events": [{"event_id": "a", "name": "resolved", "user": "jane"}]}),
    ("GET", "/v1/models", "models", None),
    ("GET", "/metrics", "metrics", None),
]


@pytest.mark.parametrize(("method", "path", "scope", "body"), ROUTES)
def test_every_route_asks_for_its_scope(http, service_of, clock, workspace, make, method, path, scope, body):
    fitting = make("fitting", scopes=[scope])
    others = make("others", scopes=[other for other in keys.SCOPES if other != scope])
    replies = gateway(
        http, service_of, clock, workspace, *((method, path, key, body) for key in (None, others, fitting))
    )
    assert [reply.status_code for reply in replies[:2]] == [401, 403]
    # Feedback on nothing is a 404: it was let through.
    assert replies[2].status_code == (404 if scope == "feedback" else 200)
    missing, lacking = (reply.json()["error"] for reply in replies[:2])
    assert (missing["type"], missing["code"]) == ("authentication_error", "invalid_api_key")
    assert (lacking["type"], lacking["code"]) == ("permission_error", "missing_scope")
    assert replies[0].headers["www-authenticate"] == "Bearer" and replies[0].headers["x-request-id"]


def test_health_stays_open_and_no_route_was_forgotten(http, service_of, clock, workspace, make):
    from serve.gateway import build_gateway

    keys = None, "sluice_x", make("chats", scopes=["chat"]), make("watches", scopes=["metrics"])
    *least, whole = gateway(http, service_of, clock, workspace, *(("GET", "/healthz", key, None) for key in keys))
    assert all(each.status_code == 200 and each.json() == {"status": "ok", "recipe": "small"} for each in least)
    assert {"status", "recipe", "running", "waiting", "interactions_lost"} <= set(whole.json())
    paths = {route.path for route in build_gateway(service_of()).routes}
    assert paths - {path for _, path, _, _ in ROUTES} == {"/healthz", "/openapi.json"}


def test_a_refused_request_is_not_read_and_leaves_nothing_behind(http, service_of, clock, workspace, rows):
    from pipelines.records import ExposureRow, InteractionRow

    huge = {"messages": [{"role": "user", "content": "x" * 2**21}]}
    replies = gateway(
        http,
        service_of,
        clock,
        workspace,
        ("POST", "/v1/chat/completions", None, huge),
        ("POST", "/v1/chat/completions", "sluice_x", CHAT | {"user": "jane", "model": "auto"}),
    )
    assert [reply.status_code for reply in replies] == [401, 401]
    assert rows(InteractionRow) == [] and rows(ExposureRow) == []


def test_a_key_is_in_no_log_no_reply_and_no_table(http, service_of, clock, workspace, make, caplog):
    caplog.set_level(logging.DEBUG)
    key, limited = make(), make("limited", per_minute=1)
    wrong = "sluice_" + "w" * 43
    sent = [("POST", "/v1/chat/completions", each, CHAT) for each in (key, limited, limited, wrong, wrong + "\x7f")]
    sent += [("GET", "/metrics", key, None), ("POST", "/v1/chat/completions", key, {"messages": 7})]
    replies = gateway(http, service_of, clock, workspace, *sent)
    assert [reply.status_code for reply in replies] == [200, 200, 429, 401, 401, 403, 422]
    with workspace.session() as session:
        stored = str([session.execute(table.select()).all() for table in Table.metadata.tables.values()])
    assert "small-base" in stored
    told = caplog.text + stored + "".join(reply.text + str(reply.headers) for reply in replies)
    for secret in (key, limited, wrong):
        assert secret[11:] not in told


def test_the_openai_client_sends_a_key_and_knows_the_refusals(service_of, clock, workspace, make):
    import httpx
    import openai

    from serve.gateway import build_gateway

    service = service_of(keys="required")
    service.keys = KeyCheck(lambda: read_keys(workspace, "small"), clock.seconds, clock.today)
    key, reader = make(per_minute=2), make("reader", scopes=["models"])

    async def go():
        transport = httpx.ASGITransport(build_gateway(service))

        def client(api_key):
            http_client = httpx.AsyncClient(transport=transport)
            return openai.AsyncOpenAI(
                base_url="http://sluice/v1", api_key=api_key, max_retries=0, http_client=http_client
            )

        chat = {"model": "base", "messages": HELLO, "max_tokens": 2}
        assert (await client(key).chat.completions.create(**chat)).usage.completion_tokens == 2
        text = {"model": "base", "prompt": "Hello", "max_tokens": 2}
        assert (await client(key).completions.create(**text)).usage.completion_tokens == 2
        with pytest.raises(openai.AuthenticationError, match="no such key"):
            await client("sluice_wrong").completions.create(**text)
        assert [model.id async for model in client(reader).models.list()] == ["small", "base", "tuned"]
        with pytest.raises(openai.AuthenticationError, match="no such key"):
            await client("sluice_wrong").chat.completions.create(**chat)
        with pytest.raises(openai.PermissionDeniedError, match="lacks the scope chat"):
            await client(reader).chat.completions.create(**chat)
        with pytest.raises(openai.RateLimitError, match="2 requests a minute"):
            await client(key).chat.completions.create(**chat)

    asyncio.run(go())
