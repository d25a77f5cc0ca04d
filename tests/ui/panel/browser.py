"""A real Chromium and a real panel for the browser tests."""

import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from tests.waiting import until
from ui.panel.launch import command, environment

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(address):
    with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(address, timeout=2) as reply:
        return reply.status == 200


@contextlib.contextmanager
def serving(log: Path, **variables):
    """A panel in a process of its own, forked from one that has imported what it needs; yields its address."""
    port = free_port()
    python, _, _, *arguments = command("127.0.0.1", port)
    server = _preloaded(python)
    panel = {"arguments": arguments, "environment": environment() | variables, "log": str(log)}
    server.stdin.write(json.dumps(panel) + "\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    assert answer, f"what panels are forked from has ended with {server.wait()}"
    process = int(answer)
    try:
        yield _answering(port, lambda: psutil.pid_exists(process), log)
    finally:
        # It holds nothing: its farewells to browsers, a second in each of many tests, are not waited for.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(process), "the panel's end")


@contextlib.contextmanager
def serving_as_users_do(log: Path, **variables):
    """A panel that `sluice panel` started; yields its address."""
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ui.cli", "panel", f"--port={port}"],
            env=environment() | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield _answering(port, lambda: process.poll() is None, log)
        finally:
            # As a terminal's Ctrl-C: to the command and to the Streamlit that it started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            process.wait(60)


def _answering(port, lives, log):
    """The address, once a panel answers there."""
    address = f"http://127.0.0.1:{port}"
    until(lambda: not lives() or answers(f"{address}/_stcore/health"), "the panel's health check")
    assert lives(), log.read_text()
    return address


@functools.cache
def _preloaded(python):
    server = subprocess.Popen(
        [python, "-m", "tests.ui.panel.preloaded"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.kill)
    return server


def resize(page, width):
    """Give the page's window that width (pixels)."""
    page.set_viewport_size({"width": width, "height": 900})


POLL_MS = 100
"""Where Playwright is to look in time: it looks when a page is drawn, and one in the background never is."""


def settled(page):
    """Wait until Streamlit has drawn the page and runs no script any more."""
    page.wait_for_selector(".st-key-header")
    page.wait_for_function(
        "() => document.querySelector('.stApp')?.getAttribute('data-test-script-state') === 'notRunning'"
        " && !document.querySelector('[data-stale=true]') && document.querySelector('.stMain')?.innerText.trim()",
        polling=POLL_MS,
    )
