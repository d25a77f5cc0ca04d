"""The figures of a gateway in Prometheus' text format.

Each gateway's process counts its own, from its start: with several, sum over them. `running` and `waiting` are the
engine's and the same whoever is asked. No label holds what a client says: endpoints, arms and statuses are few.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

ENDPOINTS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/feedback": "feedback",
    "/v1/events": "events",
    "/v1/models": "models",
    "/healthz": "health",
    "/metrics": "metrics",
}
FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
PER_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Counters and histograms in a registry of their own."""

    def __init__(self, lost: Callable[[], int]) -> None:
        """`lost` tells how many interactions could not be written so far."""
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "sluice_requests", "Requests by how they ended.", ["endpoint", "arm", "status"], registry=registry
        )
        self._first_token = Histogram(
            "sluice_time_to_first_token_seconds",
            "From the request, its arm assigned, to its first token.",
            ["arm"],
            buckets=FIRST_TOKEN_S,
            registry=registry,
        )
        self._per_token = Histogram(
            "sluice_time_per_output_token_seconds",
            "Mean time of an answer's tokens after its first.",
            ["arm"],
            buckets=PER_TOKEN_S,
            registry=registry,
        )
        self._tokens_in = Counter("sluice_prompt_tokens", "Tokens of prompts taken on.", ["arm"], registry=registry)
        self._tokens_out = Counter("sluice_completion_tokens", "Tokens generated.", ["arm"], registry=registry)
        self._feedback = Counter("sluice_feedback_stored", "Feedback committed.", ["kind"], registry=registry)
        self._events = Counter("sluice_events_stored", "Business events committed.", registry=registry)
        self._forgotten = Counter(
            "sluice_texts_forgotten", "Texts taken out of the database, old enough.", registry=registry
        )
        self._shadows = Counter(
            "sluice_shadow_answers",
            "Answers that nobody saw, by how they ended.",
            ["arm", "outcome"],
            registry=registry,
        )
        self._up = Gauge("sluice_engine_up", "1 when the engine said how much it does.", registry=registry)
        self._replicas = Gauge("sluice_engine_replicas", "Engines that are there.", registry=registry)
        self._running = Gauge("sluice_requests_running", "Requests that the engine generates for.", registry=registry)
        self._waiting = Gauge("sluice_requests_waiting", "Requests that wait for a place.", registry=registry)
        self._of_arms = {
            name: Gauge(f"sluice_arm_{figure}", f"Of an arm's own engines: {what}.", ["arm"], registry=registry)
            for name, figure, what in (
                ("replicas", "engine_replicas", "those that are there"),
                ("running", "requests_running", "requests that they generate for"),
                ("waiting", "requests_waiting", "requests that wait for a place"),
            )
        }
        registry.register(_Lost(lost))

    def answered(self, path: str, arm: str | None, status: int) -> None:
        """Count a request."""
        self._requests.labels(ENDPOINTS.get(path, "other"), arm or "none", str(status)).inc()

    def generated(self, arm: str, tokens_in: int, tokens_out: int) -> None:
        """Count what was generated for a request, to its end or not."""
        self._tokens_in.labels(arm).inc(tokens_in)
        self._tokens_out.labels(arm).inc(tokens_out)

    def took(self, arm: str, first_s: float, further_s: float, further: int) -> None:
        """Seconds from a request, its arm assigned, to its first piece of text, and for the `further` tokens after."""
        self._first_token.labels(arm).observe(first_s)
        if further > 0:
            self._per_token.labels(arm).observe(further_s / further)

    def stored(self, kind: str) -> None:
        """Count feedback."""
        self._feedback.labels(kind).inc()

    def stored_events(self, count: int) -> None:
        """Count business events."""
        self._events.inc(count)

    def forgotten(self, count: int) -> None:
        """Count texts that were kept long enough."""
        self._forgotten.inc(count)

    def shadowed(self, arm: str, outcome: str) -> None:
        """Count an answer that nobody saw: answered, refused or failed."""
        self._shadows.labels(arm, outcome).inc()

    def text(self, load: Mapping[str, Any] | None) -> bytes:
        """All of it; `load` is what the engine says of itself, None when it does not answer."""
        replicas = load.get("replicas", 1) if load else 0
        self._up.set(replicas > 0)
        self._replicas.set(replicas)
        self._running.set(load["running"] if load else float("nan"))
        self._waiting.set(load["waiting"] if load else float("nan"))
        for name, gauge in self._of_arms.items():
            # What is not known has no sample.
            gauge.clear()
            for arm, own in (load or {}).get("engines", {}).items():
                gauge.labels(arm).set(own[name])
        return generate_latest(self._registry)


class _Lost(Collector):
    """A count that the log of interactions keeps."""

    def __init__(self, lost: Callable[[], int]) -> None:
        self._lost = lost

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily("sluice_interactions_lost", "Interactions not written down.", self._lost())
