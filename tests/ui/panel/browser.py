"""A real Chromium and a real panel for the browser tests."""

import contextlib
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from tests.waiting import until

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
    """A panel in a process of its own, as `sluice panel` starts it; yields its address."""
    from ui.panel.launch import command, environment

    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command("127.0.0.1", port), env=environment() | variables, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            until(
                lambda: process.poll() is not None or answers(f"{address}/_stcore/health"), "the panel's health check"
            )
            assert process.poll() is None, log.read_text()
            yield address
        finally:
            # It holds nothing: its farewells to browsers, a second in each of many tests, are not waited for.
            process.kill()
            process.wait(30)


def resize(page, width):
    """Give the page's window that width (pixels)."""
    page.set_viewport_size({"width": width, "height": 900})


def settled(page):
    """Wait until Streamlit has drawn the page and runs no script any more."""
    page.wait_for_selector(".st-key-header")
    page.wait_for_function(
        "() => document.querySelector('.stApp')?.getAttribute('data-test-script-state') === 'notRunning'"
        " && !document.querySelector('[data-stale=true]')"
    )
