"""Findings, gates, reports and waivers: what decides whether a stage's result goes further."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pipelines.fingerprint import fingerprint

REPORT_SCHEMA_VERSION = 1


class Verdict(StrEnum):
    """What a gate says."""

    OPEN = "open"
    CLOSED = "closed"
    WAIVED = "waived"
    NOT_APPLICABLE = "not_applicable"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Record):
    """One problem in what a stage looked at."""

    code: str
    """Dotted name, starting with its gate's: `data.duplicates.exact`."""
    severity: Literal["error", "warning", "info"]
    message: str
    """What was found, with the figures, in one sentence."""
    count: int
    """How many rows (or values) it concerns."""
    samples: tuple[dict[str, Any], ...] = ()
    """A few of them, as plain JSON values, personal data masked."""
    remedy: str
    """What to do, in one sentence."""


class Gate(_Record):
    """A rule and what it said this time."""

    gate: str
    verdict: Verdict
    evidence: str
    """The figures against the rule's bound, in one sentence."""


class Waiver(_Record):
    """A person's recorded decision to pass a closed gate; it travels with the model for ever."""

    gate: str
    report: str
    """Key of the report whose gate it passes: other data need another decision."""
    by: str
    because: str
    until: datetime | None = None
    """End of its validity (UTC); None: no end."""
    created_at: datetime

    def holds(self, now: datetime) -> bool:
        """Whether it is in force at `now`."""
        return self.until is None or now <= self.until


class Report(_Record):
    """What a stage leaves: figures, findings, verdict, and the fingerprints of all that it read."""

    schema_version: int = REPORT_SCHEMA_VERSION
    stage: str
    recipe_name: str
    gates: tuple[Gate, ...]
    findings: tuple[Finding, ...] = ()
    figures: dict[str, Any] = {}
    """Plain JSON values; units in the names."""
    fingerprints: dict[str, str]
    """What was read: name -> fingerprint."""
    produced: dict[str, str] = {}
    """What was left: name -> address, version or fingerprint."""
    recipe: dict[str, Any]
    """The whole resolved recipe."""
    seconds: float
    """Wall time of the stage."""
    created_at: datetime
    waivers: tuple[Waiver, ...] = ()
    """Those in force when the report was read."""

    @property
    def key(self) -> str:
        """Fingerprint of the stage and of everything that it read."""
        return report_key(self.stage, self.fingerprints)

    @property
    def verdict(self) -> Verdict:
        """Closed if any gate is; else waived if any is; else open."""
        verdicts = {gate.verdict for gate in self.gates}
        for verdict in (Verdict.CLOSED, Verdict.WAIVED):
            if verdict in verdicts:
                return verdict
        return Verdict.OPEN

    @property
    def closed_gates(self) -> tuple[Gate, ...]:
        """The gates that keep the result from going further."""
        return tuple(gate for gate in self.gates if gate.verdict is Verdict.CLOSED)

    def with_waivers(self, waivers: tuple[Waiver, ...], now: datetime | None = None) -> "Report":
        """The same report, its closed gates waived where a waiver for this very report holds at `now`."""
        now = now or datetime.now(UTC)
        holding = {w.gate: w for w in waivers if w.report == self.key and w.holds(now)}
        gates = tuple(
            gate.model_copy(
                update={
                    "verdict": Verdict.WAIVED,
                    "evidence": f"{gate.evidence} Waived by {w.by}: {w.because}",
                }
            )
            if gate.verdict is Verdict.CLOSED and (w := holding.get(gate.gate))
            else gate
            for gate in self.gates
        )
        return self.model_copy(update={"gates": gates, "waivers": tuple(holding.values())})

    def as_json(self) -> dict[str, Any]:
        """Plain values: the report as `--json` prints it."""
        return {"stage": self.stage, "verdict": str(self.verdict), "key": self.key} | self.model_dump(mode="json")


def report_key(stage: str, fingerprints: dict[str, str]) -> str:
    """Key under which a report on exactly these inputs is stored."""
    return fingerprint(REPORT_SCHEMA_VERSION, stage, fingerprints)


def decide(gate: str, holds: bool, evidence: str) -> Gate:
    """A gate that is open when its rule holds."""
    return Gate(gate=gate, verdict=Verdict.OPEN if holds else Verdict.CLOSED, evidence=evidence)
