"""Requests made from the description, fitting and not: none ends in a failure of the server."""

import json
import socket
import subprocess
import sys
import threading
from collections import Counter, defaultdict

import pytest
import uvicorn

from serve.gateway import build_gateway
from tests.waiting import until

EXAMPLES = 25
"""Of each route and kind; what the schemas' own limits lead to comes on top."""


@pytest.fixture
def address(service_of):
    """A gateway over the real engine, at an address of its own."""
    service = service_of(max_new_tokens=8)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(build_gateway(service), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        until(lambda: server.started, "the gateway")
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(60)


@pytest.mark.cluster
def test_no_request_that_the_description_leads_to_ends_in_a_failure(address, tmp_path):
    report = tmp_path / "report.ndjson"
    options = {
        "checks": "not_a_server_error",
        "mode": "all",
        "max-examples": EXAMPLES,
        "seed": 17,
        "request-timeout": 60,
        "generation-database": "none",
        "warnings": "off",
        "report-ndjson-path": report,
    }
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--no-color"]
        + [f"--{name}={value}" for name, value in options.items()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    met = _statuses(report)
    assert len(met) == 7, "a route was left out"
    # Otherwise nothing but the door was tried.
    for route in ("POST /v1/chat/completions", "POST /v1/completions", "POST /v1/events"):
        assert met[route][200] and met[route][422]


def _statuses(report):
    """Route -> status -> replies."""
    met = defaultdict(Counter)
    for line in report.read_text().splitlines():
        if scenario := json.loads(line).get("ScenarioFinished"):
            recorded = scenario["recorder"]
            replies = (one.get("response") for one in recorded.get("interactions", {}).values())
            met[recorded["label"]].update(reply["status_code"] for reply in replies if reply)
    return met
