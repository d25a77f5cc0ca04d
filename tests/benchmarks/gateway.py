"""What the gateway adds to an answer: beside a bare FastAPI ingress over the same engine, in one run.

    python -m tests.benchmarks.gateway [--rounds 5] [--seconds 10] [--rate 50] [--requests 16] [--tokens 48]

`bare` is a FastAPI application that reads the same body, asks the same engine deployment and answers
with its text: no arm, no log, no exposure, no figures. First both in this process, without Ray and its network: the
processor's time for a request, log and threads included. Then under Ray Serve an engine that answers at once, asked at
a fixed rate by returning users (an open loop: a late answer delays no later question), a second of the one and a
second of the other: p50 and p99 of each round. Then SmolLM2-135M in the embedded engine, so many requests at once:
tokens per second through the gateway, and straight from the engine's handle. Medians of the rounds, and the ratios.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "token")

PROMPT = "Write one sentence that says what number {} means to a reader of old clocks, and why."
USERS = 500
PORT = 8765
RECIPE = "overhead"


class NoEngine:
    """Answers at once, as `serve.hosting.EngineReplica` would."""

    async def answer(self, arm: str, prompt: Any, options: Any) -> AsyncIterator[Any]:
        """One piece."""
        from serve.hosting import Piece, Started

        yield Started(8)
        yield Piece("It is.", 2, "stop")

    async def health(self) -> dict[str, Any]:
        """Of an engine that has answered."""
        return {"generated_tokens": 1, "running": 0, "waiting": 0}


def bare_app(answer: Callable[..., AsyncIterator[Any]]) -> Any:
    """The least that answers a conversation over HTTP."""
    from fastapi import FastAPI, Request

    from serve.hosting import Options, Piece

    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> dict[str, Any]:
        body = await request.json()
        text = []
        async for event in answer("base", body["messages"], Options(body["max_tokens"])):
            if isinstance(event, Piece):
                text.append(event.text)
        message = {"role": "assistant", "content": "".join(text)}
        return {"id": "1", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}

    return app


class Bare:
    """The same under Ray Serve."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine.options(stream=True)

    def __serve_build_asgi_app__(self) -> Any:
        """Called by Ray Serve on the replica."""
        return bare_app(self._engine.answer.remote)


WIDE = {"max_ongoing_requests": 1000, "ray_actor_options": {"num_cpus": 0}}
"""So that Ray Serve refuses nothing."""


def hosted_arms(arms: dict[str, str]) -> Any:
    """What the gateway is told; `arms` says each one's model."""
    from serve.service import Hosted

    return Hosted(
        recipe_name=RECIPE,
        seed=RECIPE,
        models=arms,
        weights={"base": 0.5, "tuned": 0.5},
        max_new_tokens=256,
        log_prompts=True,
        created=0,
    )


def deploy(name: str, engine: Any, settings: Any) -> Any:
    """A bound engine, and the gateway and the bare ingress over it; the engine's handle."""
    from ray import serve

    from serve.app import Gateway

    handle = serve.run(engine, name=f"{name}-engine", route_prefix=None)
    hosted = hosted_arms({arm: f"{RECIPE}-{arm}" for arm in ("base", "tuned")})
    gateway = serve.deployment(serve.ingress()(Gateway), name="gateway", **WIDE)
    bare = serve.deployment(serve.ingress()(Bare), name="bare", **WIDE)
    for way, ingress in {"gateway": gateway.bind(handle, hosted, settings), "bare": bare.bind(handle)}.items():
        serve.run(ingress, name=f"{name}-{way}", route_prefix=f"/{name}/{way}")
    return handle


def smollm2(base_folder: str, at_once: int) -> Any:
    """SmolLM2 in the embedded engine, bound."""
    from ray import serve

    from pipelines.engines.protocol import EngineOptions
    from pipelines.models.candidate import Candidate
    from serve.hosting import EngineReplica

    arms = {arm: Candidate(arm, base_folder, None, "", f"{RECIPE}-{arm}") for arm in ("base", "tuned")}
    engine = serve.deployment(EngineReplica, name="engine", **WIDE)
    return engine.bind(arms, EngineOptions("transformers", "float32", at_once, 4 * at_once))


def body(number: int, tokens: int) -> dict[str, Any]:
    """One user's question."""
    messages = [{"role": "user", "content": PROMPT.format(number)}]
    return {"messages": messages, "max_tokens": tokens, "user": f"user-{number % USERS}"}


async def at_rate(client: Any, path: str, rate: float, seconds: float, numbers: Any) -> list[float]:
    """Milliseconds of each answer."""

    async def ask(number: int) -> float:
        started = time.perf_counter()
        reply = await client.post(path, json=body(number, 8))
        reply.raise_for_status()
        return 1000 * (time.perf_counter() - started)

    tasks, first = [], time.perf_counter()
    for count in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, first + count / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(next(numbers))))
    return list(await asyncio.gather(*tasks))


async def work(options: argparse.Namespace) -> None:
    """Print the processor's time that a request costs this process, through each."""
    from httpx import ASGITransport, AsyncClient

    from pipelines.workspace import Workspace
    from serve.gateway import build_gateway
    from serve.service import ChatService

    engine, numbers = NoEngine(), itertools.count()

    async def one_round(app: Any) -> None:
        # No faster than the latency is measured at: what goes to the log together depends on it.
        async with AsyncClient(transport=ASGITransport(app), base_url="http://gateway") as client:
            await at_rate(client, "/v1/chat/completions", options.rate, USERS / options.rate, numbers)

    found: dict[str, list[float]] = {"bare": [], "gateway": []}
    for _ in range(options.rounds):
        for name, each in found.items():
            # Of its own, and closed before the clock stops: its threads work in no other's round.
            service = name == "gateway" and ChatService(hosted_arms({"base": "a", "tuned": "b"}), engine, Workspace())
            app = build_gateway(service) if service else bare_app(engine.answer)
            # The first round warms up: the users are known.
            await one_round(app)
            before = time.process_time()
            await one_round(app)
            if service:
                service.close()
            each.append(1000 * (time.process_time() - before) / USERS)
    report("processor's milliseconds for a request", found, lambda each: each)


async def latency(options: argparse.Namespace) -> None:
    """Print p50 and p99 of gateway and bare ingress over the engine that answers at once."""
    import httpx

    numbers, found = itertools.count(), {"bare": [], "gateway": []}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=60) as client:
        # So long that every user has come once: those who are measured return.
        for name in found:
            await at_rate(client, f"/no-op/{name}/v1/chat/completions", options.rate, USERS / options.rate, numbers)
        for _ in range(options.rounds):
            times: dict[str, list[float]] = {name: [] for name in found}
            # Second by second: a shared machine's slow moments meet both.
            for second in range(options.seconds):
                for name in sorted(found, reverse=bool(second % 2)):
                    times[name] += await at_rate(client, f"/no-op/{name}/v1/chat/completions", options.rate, 1, numbers)
            for name, each in times.items():
                found[name].append(each)
    report("milliseconds at p50", found, lambda times: statistics.quantiles(times, n=100)[49])
    report("milliseconds at p99", found, lambda times: statistics.quantiles(times, n=100)[98])


async def throughput(handle: Any, options: argparse.Namespace) -> None:
    """Print tokens per second through the gateway and straight from the engine."""
    import httpx

    from serve.hosting import Options, Piece

    streaming, numbers = handle.options(stream=True), itertools.count()

    async def by_handle(number: int) -> int:
        asked = body(number, options.tokens)
        wanted = Options(options.tokens, read_along=False)
        events = streaming.answer.remote(("base", "tuned")[number % 2], asked["messages"], wanted)
        return sum([event.tokens async for event in events if isinstance(event, Piece)])

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=600) as client:

        async def by_gateway(number: int) -> int:
            asked = body(number, options.tokens) | {"model": ("base", "tuned")[number % 2]}
            reply = await client.post("/smollm2/gateway/v1/chat/completions", json=asked)
            return reply.raise_for_status().json()["usage"]["completion_tokens"]

        ways, found = {"engine": by_handle, "gateway": by_gateway}, {"engine": [], "gateway": []}
        for round_number in range(options.rounds + 1):
            for name in sorted(ways, reverse=bool(round_number % 2)):
                ask = ways[name]
                chosen, started = [next(numbers) for _ in range(options.requests)], time.perf_counter()
                tokens = sum(await asyncio.gather(*map(ask, chosen)))
                # The first round warms up.
                if round_number:
                    found[name].append(tokens / (time.perf_counter() - started))
    report("tokens per second", found, lambda rate: rate)


def report(what: str, found: dict[str, list[Any]], of: Callable[[Any], float]) -> None:
    """Print the median round of each, and the second's ratio to the first, round by round."""
    values = {name: [of(one) for one in rounds] for name, rounds in found.items()}
    first, second = values
    ratios = [later / earlier for earlier, later in zip(values[first], values[second], strict=True)]
    figures = {name: round(statistics.median(each), 2) for name, each in values.items()}
    ratio = {"ratio": round(statistics.median(ratios), 3), "of_rounds": [round(each, 3) for each in ratios]}
    print(json.dumps({"measured": what} | figures | ratio))


def main() -> None:
    """Measure in a Ray and a workspace of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    from cluster.connect import connect
    from cluster.settings import Settings
    from pipelines.models.load import find_base
    from pipelines.recipe import BaseModelChoice
    from pipelines.workspace import Workspace

    base = find_base(BaseModelChoice(base="HuggingFaceTB/SmolLM2-135M-Instruct"), Settings.from_environment())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SLUICE_STORAGE"] = folder
        settings = Workspace().settings
        asyncio.run(work(options))
        connect(settings)
        import ray
        from ray import serve

        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": PORT})
        deploy("no-op", serve.deployment(NoEngine, name="engine", **WIDE).bind(), settings)
        asyncio.run(latency(options))
        handle = deploy("smollm2", smollm2(str(base.folder), options.requests), settings)
        asyncio.run(throughput(handle, options))
        ray.shutdown()


if __name__ == "__main__":
    main()
