"""Clients that stream from a service while something befalls it."""

import json
import threading
from contextlib import suppress

import httpx
import psutil

from tests.waiting import PATIENCE_S

HELLO = [{"role": "user", "content": "Hello"}]


def kill(title):
    """End our processes of that title as the kernel does when memory is short; how many there were."""
    count = 0
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if title in " ".join(one.cmdline()):
                one.kill()
                count += 1
    return count


class Load:
    """Two clients of the tuned arm who stream one answer after the other; what came of each is remembered."""

    def __init__(self, server, tokens):
        self._url, self._tokens, self._over = f"{server.url}/v1/chat/completions", tokens, threading.Event()
        self.whole, self.broken = {}, []
        """Request -> text of answers that came to their end, and what befell the others."""

    def __enter__(self):
        self._threads = [threading.Thread(target=self._work) for _ in range(2)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a client waits for an answer that never ends"

    def _work(self):
        body = {"messages": HELLO, "model": "tuned", "max_tokens": self._tokens, "stream": True}
        while not self._over.is_set():
            try:
                with httpx.stream("POST", self._url, json=body, timeout=PATIENCE_S) as reply:
                    lines = [line for line in reply.iter_lines() if line]
            except httpx.HTTPError as error:
                self.broken.append(repr(error))
                continue
            if reply.status_code != 200 or lines[-1:] != ["data: [DONE]"]:
                self.broken.append(lines[-1:])
                continue
            choices = [choice for line in lines[:-1] for choice in json.loads(line[6:])["choices"]]
            text = "".join(choice["delta"].get("content") or "" for choice in choices)
            self.whole[reply.headers["x-request-id"]] = text
