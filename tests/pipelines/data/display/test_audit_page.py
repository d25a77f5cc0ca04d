import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipelines import audit
from pipelines.data.display.audit_page import audit_page, masked_kinds
from pipelines.data.evidence import Evidence
from pipelines.gates import Finding, Gate, Report, Verdict
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.workspace import Workspace
from tests.pipelines.data import planted


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """(report, evidence) of a real audit of the planted rows."""
    folder = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SLUICE_STORAGE", str(folder / "workspace"))
        workspace = Workspace()
    recipe = Recipe.model_validate(planted.content(planted.write(folder / "planted.jsonl")))
    report = audit.STAGE.perform(recipe, workspace, Progress(quiet=True))
    return report, Evidence(Path(report.produced["evidence"]))


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_says_what_the_report_says(audited):
    report, evidence = audited
    page = audit_page(report, evidence)
    for gate in report.gates:
        assert gate.gate in page
    for finding in report.findings:
        assert finding.code in page
    assert "closed" in page and "data.private" in page
    assert "Where it comes from" in page and "desk notes" in page
    assert "Near-duplicates" in page and '<mark class="less">receipt </mark>' in page
    assert "Thresholds" in page and "signs in a hundred characters" in page
    assert len(page) < 500_000


def test_the_page_refers_to_nothing_outside_and_runs_nothing(audited):
    elements = Elements(audit_page(*audited)).found
    tags = {tag for tag, _ in elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "a"}
    for tag, attributes in elements:
        assert not {"src", "href", "style", "action", "xlink:href"} & set(attributes), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    policy = next(found["content"] for tag, found in elements if found.get("http-equiv"))
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy


def test_the_policy_allows_the_very_style_of_the_page(audited):
    import base64
    import hashlib

    page = audit_page(*audited)
    style = re.search("<style>(.*?)</style>", page, re.S)[1]
    allowed = re.search("'sha256-([^']+)'", page)[1]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() == allowed


def test_personal_data_stay_masked_unless_the_recipe_lets_them_pass(audited):
    report, evidence = audited
    assert planted.MAIL not in audit_page(report, evidence)
    private = {"action": "allow", "kinds": ["email"]}
    assert masked_kinds({"audit": {"private": private}}) == ()
    assert masked_kinds({"audit": {"private": private | {"action": "mask"}}}) == ("email",)
    assert masked_kinds(report.recipe) == ("email", "phone", "card", "iban", "secret")


def test_whatever_stands_in_a_report_is_inert(audited):
    hostile = planted.HOSTILE
    report = Report(
        stage="audit",
        recipe_name=hostile,
        gates=(Gate(gate=hostile, verdict=Verdict.OPEN, evidence=planted.ANSI),),
        findings=(
            Finding(code="x", severity="info", message=hostile, count=1, samples=({hostile: hostile},), remedy=hostile),
        ),
        figures={
            "labels": [{"name": hostile, "rows": 3}],
            "anomalies": {"kinds": {hostile: {"threshold": hostile, "count": 1}}},
            "label_noise": {"share": 0.5, "confusions": [{"given": hostile, "proposed": hostile, "rows": 1}]},
            "origins": [{"source": hostile, "collector": None, "annotator": "x", "rows": 2}],
        },
        fingerprints={hostile: "d" * 64},
        recipe={"name": hostile},
        seconds=1.0,
        created_at=datetime(2024, 5, 1, tzinfo=UTC),
    )
    page = audit_page(report, audited[1])
    assert not {"script", "img"} & {tag for tag, _ in Elements(page).found}
    assert hostile not in page and page.count("&lt;script&gt;") >= 12
    assert "\x1b" not in page and "\u202e" not in page and r"\x1b[31m" in page
