"""Five times what a service can answer, for a while: all refusals say when to come back, and nothing piles up."""

import asyncio
import os
import time
from collections import Counter

import httpx
import psutil
import pytest
import yaml

from pipelines.recipe_file import load_recipe
from tests.serve.conftest import tiny_adapter  # noqa: F401
from tests.serve.load import HELLO

pytestmark = [pytest.mark.drill, pytest.mark.cluster]

BATCH, WAITING = 4, 8
SECONDS = int(os.environ.get("SLUICE_TESTS_OVERLOAD_S", "20"))
"""How long it lasts."""
TIMES = 5
LET_GO_BYTES = 64 * 2**20
"""What a replica may take more in the second half: allocators give nothing back at once."""


@pytest.fixture(scope="module")
def server(ray_cluster, tmp_path_factory, tiny_model, tiny_adapter):  # noqa: F811
    from serve.app import start
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
    handle = start(recipe, ray_cluster, port=free_port())
    yield handle
    handle.stop()


def replicas():
    """Title -> memory (bytes) of the service's processes."""
    titles = {process: " ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)}
    return {title: process.memory_info().rss for process, title in titles.items() if "ServeReplica:overrun" in title}


class Clients:
    """What each request came to: (when it was sent, seconds, status, Retry-After)."""

    def __init__(self, url):
        self._url, self.came = f"{url}/v1/chat/completions", []

    async def ask(self, http):
        body = {"messages": HELLO, "model": "tuned", "max_tokens": 60}
        began = time.monotonic()
        reply = await http.post(self._url, json=body)
        self.came.append((began, time.monotonic() - began, reply.status_code, reply.headers.get("retry-after")))

    async def one_after_the_other(self, http, seconds):
        """As many clients as the engine answers at once; answers per second."""
        until, before = time.monotonic() + seconds, len(self.came)

        async def work():
            while time.monotonic() < until:
                await self.ask(http)

        await asyncio.gather(*(work() for _ in range(BATCH)))
        return (len(self.came) - before) / seconds

    async def at_a_rate(self, http, per_second, seconds):
        """Requests at that rate, whatever becomes of those before."""
        began, asked = time.monotonic(), []
        for number in range(int(per_second * seconds)):
            await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
            asked.append(asyncio.create_task(self.ask(http)))
        await asyncio.gather(*asked)


def test_refusals_say_when_to_come_back_nothing_piles_up_and_the_next_answer_comes_at_once(server):
    async def overrun():
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        async with httpx.AsyncClient(timeout=120, limits=limits) as http:
            clients = Clients(server.url)
            await clients.one_after_the_other(http, 2)
            capacity = await clients.one_after_the_other(http, 5)
            assert {status for _, _, status, _ in clients.came} == {200}

            clients.came.clear()
            await clients.at_a_rate(http, TIMES * capacity, SECONDS / 2)
            halfway = replicas()
            await clients.at_a_rate(http, TIMES * capacity, SECONDS / 2)
            after, under_load = replicas(), list(clients.came)

            clients.came.clear()
            await clients.ask(http)
            return capacity, under_load, clients.came, halfway, after

    capacity, under_load, (last,), halfway, after = asyncio.run(overrun())
    counted = Counter(status for _, _, status, _ in under_load)
    print(f"{capacity:.1f} answers/s at most; of {len(under_load)} requests: {dict(counted)}")
    assert set(counted) == {200, 429}
    assert all(int(again) >= 1 for _, _, status, again in under_load if status == 429)
    # What could be answered was: refusals cost the others little.
    assert counted[200] >= 0.5 * capacity * SECONDS
    assert counted[429] >= 0.5 * len(under_load)
    assert len(halfway) == 2 and halfway.keys() == after.keys(), "a replica died"
    assert all(after[title] - halfway[title] < LET_GO_BYTES for title in after), (halfway, after)
    answered = sorted(seconds for _, seconds, status, _ in under_load if status == 200)
    assert last[2] == 200 and last[1] <= answered[len(answered) // 2], "the queue was not empty after the load"
