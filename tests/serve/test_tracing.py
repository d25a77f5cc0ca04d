"""Whether, where to and what a service traces; the spans of one that runs are looked at in test_app.py."""

import pytest

from cluster.errors import UserError
from serve import tracing

COLLECTOR = "http://127.0.0.1:4318"


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    for name in (*tracing.COLLECTOR, "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER_ARG"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", tracing.COLLECTOR)
def test_a_collector_that_is_named_turns_it_on(monkeypatch, name):
    assert tracing.configuration() is None
    monkeypatch.setenv(name, COLLECTOR)
    assert tracing.configuration() == {
        "enabled": True,
        "exporter_import_path": "serve.tracing:span_processors",
        "sampling_ratio": 1.0,
    }


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")])
def test_it_is_off_where_opentelemetry_is(monkeypatch, name, value):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", COLLECTOR)
    monkeypatch.setenv(name, value)
    assert tracing.configuration() is None


def test_a_share_of_the_requests(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", COLLECTOR)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.05")
    assert tracing.configuration()["sampling_ratio"] == 0.05


@pytest.mark.parametrize("share", ["half", "1.5", "-1", "nan", ""])
def test_what_is_no_share_is_said_before_anything_starts(monkeypatch, share):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", COLLECTOR)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", share)
    with pytest.raises(UserError, match="no share"):
        tracing.configuration()
