"""Five times what a service can answer, for a while: all refusals say when to come back, and nothing piles up."""

import asyncio
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import httpx
import psutil
import pytest
import yaml

from pipelines.recipe_file import load_recipe
from tests.serve.conftest import tiny_adapter  # noqa: F401
from tests.serve.load import HELLO

pytestmark = [pytest.mark.drill, pytest.mark.cluster]

BATCH, WAITING = 4, 8
TIMES = 5
SECONDS = int(os.environ.get("SLUICE_TESTS_OVERLOAD_S", "20"))
"""How long it lasts; in full, 60."""
TOKENS = 300
"""Of an answer: so many that few requests are many for the engine and nothing for the gateway."""
ALLOCATED_BYTES = 16 * 2**20
"""What a process may hold more in the second half than in the first: allocators give nothing back at once."""


@pytest.fixture(scope="module")
def server(ray_cluster, tmp_path_factory, tiny_model, tiny_adapter):  # noqa: F811
    from serve.app import start
    from serve.listening import Address
    from tests.serve.test_app import free_port, promote

    path = tmp_path_factory.mktemp("recipes") / "recipe.yaml"
    content = {
        "name": "overrun",
        "dataset": {"source": "none.jsonl"},
        "models": [{"base": str(tiny_model)}],
        "train": {"dtype": "float32"},
        "serve": {"max_batch_size": BATCH, "max_queued_requests": WAITING},
    }
    path.write_text(yaml.safe_dump(content))
    recipe = load_recipe(path)
    promote(ray_cluster, recipe, tiny_model, tiny_adapter)
    handle = start(recipe, ray_cluster, Address(port=free_port()))
    yield handle
    handle.stop()


def processes():
    """Title -> memory (bytes) of the service's replicas and of the proxy before them."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            title = " ".join(process.cmdline())
            if "ServeReplica:overrun" in title or "ProxyActor" in title:
                # A process that names itself leaves spaces behind the name.
                found[f"{title.split()[0]} {process.pid}"] = process.memory_info().rss
    return found


@dataclass
class Reply:
    status: int
    seconds: float
    again: str | None
    """Its Retry-After."""
    whole: bool
    """An answer that says why it ended, or a refusal with its reason."""


class Clients:
    """Those who ask, and the replies that they had."""

    def __init__(self, http, url):
        self.http, self.url, self.replies = http, f"{url}/v1/chat/completions", []

    async def ask(self):
        body = {"messages": HELLO, "model": "tuned", "max_tokens": TOKENS}
        began = time.monotonic()
        reply = await self.http.post(self.url, json=body)
        content = reply.json()
        whole = content["choices"][0]["finish_reason"] if reply.status_code == 200 else content["error"]["message"]
        self.replies.append(
            Reply(reply.status_code, time.monotonic() - began, reply.headers.get("retry-after"), bool(whole))
        )

    async def in_turn(self, seconds):
        """As many clients as the engine answers at once, each asking when it was answered; answers per second."""
        began, before = time.monotonic(), len(self.replies)

        async def work():
            while time.monotonic() < began + seconds:
                await self.ask()

        await asyncio.gather(*(work() for _ in range(BATCH)))
        return (len(self.replies) - before) / (time.monotonic() - began)

    async def at_a_rate(self, per_second, seconds):
        """Requests at that rate, whatever becomes of those before; the rate that was kept."""
        began, asked = time.monotonic(), []
        for number in range(int(per_second * seconds)):
            await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
            asked.append(asyncio.create_task(self.ask()))
        rate = len(asked) / (time.monotonic() - began)
        await asyncio.gather(*asked)
        return rate


def test_refusals_say_when_to_come_back_nothing_piles_up_and_the_next_answer_comes_at_once(server):
    async def overrun():
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        async with httpx.AsyncClient(timeout=120, limits=limits) as http:
            clients = Clients(http, server.url)
            # The first answers are slow ones; of the others the best round is what can be done.
            await clients.in_turn(8)
            capacity = max([await clients.in_turn(5) for _ in range(3)])
            before = list(clients.replies)

            clients.replies.clear()
            rates = [await clients.at_a_rate(TIMES * capacity, SECONDS / 2)]
            halfway = processes()
            rates.append(await clients.at_a_rate(TIMES * capacity, SECONDS / 2))
            assert min(rates) >= 0.9 * TIMES * capacity, "the clients were too slow"
            at_the_end, under_load = processes(), list(clients.replies)

            clients.replies.clear()
            await clients.ask()
            return capacity, before, under_load, clients.replies, halfway, at_the_end

    capacity, before, under_load, (last,), halfway, at_the_end = asyncio.run(overrun())
    counted = Counter(reply.status for reply in under_load)
    grown = {title: round((size - halfway.get(title, 0)) / 2**20, 1) for title, size in at_the_end.items()}
    print(f"{capacity:.1f} answers/s at most; of {len(under_load)} requests: {dict(counted)}; MiB more: {grown}")
    assert {reply.status for reply in before} == {200}
    assert set(counted) == {200, 429}
    assert all(reply.whole for reply in under_load)
    assert all(int(reply.again) >= 1 for reply in under_load if reply.status == 429)
    # Refusing takes little from those who are answered.
    assert counted[200] >= 0.5 * capacity * SECONDS
    assert counted[429] >= 0.5 * len(under_load)
    assert len(halfway) == 3 and halfway.keys() == at_the_end.keys(), "a process died"
    assert all(at_the_end[title] - halfway[title] < ALLOCATED_BYTES for title in halfway), grown
    answered = sorted(reply.seconds for reply in under_load if reply.status == 200)
    assert last.status == 200 and last.seconds <= answered[len(answered) // 2], "the queue was not empty after the load"
