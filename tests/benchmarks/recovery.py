"""How long a service is away whose engine is killed (kill -9) while answers stream.

    python -m tests.benchmarks.recovery [--engine transformers] [--rounds 5] [--tokens 48]

Base and an adapter of SmolLM2-135M under Ray Serve, as `sluice serve` hosts them, one replica, and four clients who
stream one answer after the other. A round: once all four are answered, the replica's process is killed; its time is
from there to the end of the first whole answer that was asked for afterwards. Printed: the seconds of each round, how
many answers failed, in flight or asked for meanwhile, and how many streams looked complete with tokens missing.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

import httpx

from tests.benchmarks.engine import ADAPTERS, base_folder, make_adapters
from tests.serve.load import kill
from tests.waiting import PATIENCE_S, until

os.environ.setdefault("RAY_AUTH_MODE", "token")

CLIENTS = 4
RECIPE = "recovery"
ASKED = [{"role": "user", "content": "Say what a reader of old clocks should know, in a few sentences."}]


class Clients:
    """Who streams answers; when each was asked for and ended, with its tokens, or None for one that failed."""

    def __init__(self, url: str, tokens: int) -> None:
        self.ended: list[tuple[float, float, int | None]] = []
        """(asked at, ended at, completion tokens) on one clock in seconds."""
        self.cut_off: list[int | None] = []
        """Tokens of those that came to an end without a reason for it."""
        self.answering = set[int]()
        """Clients who have had a piece of their present answer."""
        self._url, self._tokens, self._over = f"{url}/v1/chat/completions", tokens, threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        while not self._over.is_set():
            asked = time.monotonic()
            tokens = None
            try:
                tokens = self._one(number)
            except (httpx.HTTPError, ValueError):
                # Refused, or broken off, in the middle of a line too: what it is to be counted as.
                time.sleep(0.05)
            self.answering.discard(number)
            self.ended.append((asked, time.monotonic(), tokens))

    def _one(self, number: int) -> int | None:
        """Tokens of an answer that came to its end; None of another."""
        body = {"model": ("base", "tuned")[number % 2], "messages": ASKED, "max_tokens": self._tokens}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        done, tokens, reason = False, None, None
        with httpx.stream("POST", self._url, json=body, timeout=PATIENCE_S) as reply:
            reply.raise_for_status()
            for line in reply.iter_lines():
                if line == "data: [DONE]":
                    done = True
                elif line:
                    self.answering.add(number)
                    event = json.loads(line.removeprefix("data: "))
                    if event.get("usage"):
                        tokens = event["usage"]["completion_tokens"]
                    for choice in event.get("choices", []):
                        reason = choice["finish_reason"] or reason
        if done and reason != "stop" and tokens != self._tokens:
            self.cut_off.append(tokens)
        return tokens if done else None


def one_round(url: str, tokens: int) -> tuple[float, int, int]:
    """Seconds away, answers that failed, and streams that look complete and are not."""
    with Clients(url, tokens) as clients:
        until(lambda: len(clients.answering) == CLIENTS, "an answer for each client")
        if kill(f"ray::ServeReplica:{RECIPE}:engine") != 1:
            raise RuntimeError("there is not one replica")
        killed = time.monotonic()
        back = until(lambda: [end for asked, end, whole in clients.ended if asked > killed and whole], "an answer")
    failed = sum(whole is None for _, _, whole in clients.ended)
    return min(back) - killed, failed, len(clients.cut_off)


def main() -> None:
    """Measure in a Ray and a workspace of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["transformers", "vllm"], default="transformers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    from cluster.connect import connect
    from pipelines.fingerprint import folder_fingerprint
    from pipelines.models.files import RECORD
    from pipelines.recipe import Recipe
    from pipelines.workspace import Workspace
    from serve.app import start
    from serve.listening import Address
    from tests.serve.test_app import free_port, promote

    with tempfile.TemporaryDirectory() as folder:
        os.environ["SLUICE_STORAGE"] = folder
        workspace, base = Workspace(), base_folder()
        make_adapters(Path(folder))
        adapter = Path(folder) / ADAPTERS[0]
        (adapter / RECORD).write_text(json.dumps({"base_fingerprint": folder_fingerprint(base)}))
        recipe = Recipe.model_validate(
            {
                "name": RECIPE,
                "dataset": {"source": "none.jsonl"},
                "models": [{"base": str(base)}],
                "train": {"dtype": "float32"},
                "cluster": {"engine": options.engine},
            }
        )
        promote(workspace, recipe, base, adapter)
        connect(workspace.settings)
        handle = start(recipe, workspace, Address(port=free_port()))
        rounds = [one_round(handle.url, options.tokens) for _ in range(options.rounds)]
        handle.stop()
    seconds, failed, cut = zip(*rounds, strict=True)
    print(
        json.dumps(
            {
                "measured": f"seconds until {options.engine} answers again",
                "median": round(statistics.median(seconds), 1),
                "of_rounds": [round(each, 1) for each in seconds],
                "failed": failed,
                "in_flight": CLIENTS,
                "cut_off": sum(cut),
            }
        )
    )


if __name__ == "__main__":
    main()
