"""Personal data from the file to the table: the gate, the recipe's decision, and nothing shown whole on the way."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
from sqlalchemy import select

from cluster.errors import GateClosed, UserError
from pipelines import audit, split
from pipelines.data.corpus import Corpus
from pipelines.data.evidence import Evidence
from pipelines.data.privacy import private
from pipelines.data.versioned import versions
from pipelines.data.versioned.table import read_version
from pipelines.gates import Verdict
from pipelines.recipe_file import load_recipe
from pipelines.records import QuarantineRow, ReportRow
from pipelines.review import suspects_of
from tests.pipelines.data.planted_private import plant

pytestmark = pytest.mark.slow

EMAIL, PASSWORD = "jane.doe@example.org", "Tr0ub4dor77"
OURS = {"annotator": "jane", "collector": "ops"}
RULES = {"min_examples": 1, "max_duplicate_share": 1, "anomalies": {"max_share": 1}}


def rows():
    rng = Random(2)
    words = ["".join(rng.choice("abcdefghij") for _ in range(6)) for _ in range(900)]
    plain = [
        {"prompt": " ".join(words[i : i + 8]), "completion": " ".join(words[i + 8 : i + 14])} for i in range(0, 840, 14)
    ]
    return [
        *plain,
        {"prompt": f"{' '.join(words[840:850])} of {EMAIL}", "completion": f"the password is {PASSWORD} for {EMAIL}"},
    ]


@pytest.fixture
def flow(tmp_path, recipe_file, workspace):
    """`flow(action, content) -> (audit's report, split's report or None)`."""

    def perform(action, content=None, kinds=None, dataset=None, **sections):
        lines = [json.dumps(row) for row in content or rows()]
        # A line that is no JSON, with an address in it: it is kept aside.
        (tmp_path / "examples.jsonl").write_text("\n".join([*lines, f'{{"prompt": "{EMAIL}", broken']), "utf-8")
        private = {"action": action} | ({"kinds": kinds} if kinds else {})
        recipe = load_recipe(
            recipe_file(
                dataset={"source": "examples.jsonl", "provenance": OURS} | (dataset or {}),
                audit=RULES | {"private": private},
                **sections,
            )
        )
        audited = audit.STAGE.perform(recipe, workspace)
        try:
            return audited, split.STAGE.perform(recipe, workspace)
        except GateClosed:
            return audited, None

    return perform


def verdict(report):
    return next(gate.verdict for gate in report.gates if gate.gate == "data.private")


def table_of(report):
    return read_version(report.produced["table"], int(report.produced["version"]))


def test_undecided_the_gate_is_closed_and_nothing_is_split(flow):
    audited, divided = flow(None)

    assert verdict(audited) is Verdict.CLOSED
    assert divided is None


def test_masked_the_table_holds_the_row_without_address_and_password(flow):
    audited, divided = flow("mask")
    text = json.dumps(table_of(divided).to_pylist(), default=str)

    assert verdict(audited) is Verdict.OPEN
    assert len(table_of(divided)) == len(rows())
    assert EMAIL not in text and PASSWORD not in text
    assert "the password is <secret> for <email>" in text


def test_dropped_the_row_is_gone_and_counted(flow):
    audited, divided = flow("drop")

    assert verdict(audited) is Verdict.OPEN
    assert len(table_of(divided)) == len(rows()) - 1
    assert EMAIL not in json.dumps(table_of(divided).to_pylist(), default=str)
    assert divided.figures["left_out"]["private"] == 1


def test_allowed_the_row_stays_as_it_is(flow):
    audited, divided = flow("allow")

    assert verdict(audited) is Verdict.OPEN
    assert f"the password is {PASSWORD} for {EMAIL}" in json.dumps(table_of(divided).to_pylist(), default=str)


@pytest.mark.parametrize("action", [None, "mask", "allow"])
def test_nothing_that_is_shown_gives_an_address_or_a_password_away(flow, workspace, capfd, caplog, action):
    audited, divided = flow(action)
    evidence = Evidence(Path(audited.produced["evidence"]))
    with workspace.session() as session:
        reports = [str(row.__dict__) for row in session.scalars(select(ReportRow))]
        kept_aside = [f"{row.reason} {row.content}" for row in session.scalars(select(QuarantineRow))]
    shown = {
        "report": json.dumps(audited.as_json(), default=str),
        "split": json.dumps(divided.as_json(), default=str) if divided else "",
        "records": " ".join(reports),
        "quarantine": " ".join(kept_aside),
        "page": Path(audited.produced["page"]).read_text("utf-8"),
        "samples": json.dumps(evidence.private.to_pylist()),
        "suspects": json.dumps(evidence.suspects.to_pylist()),
        "output": "".join(capfd.readouterr()),
        "log": caplog.text,
    }

    assert {name for name, text in shown.items() if EMAIL in text or "jane.doe" in text or PASSWORD in text} == set()
    assert "broken" in shown["quarantine"]
    assert {"email", "secret"} == set(evidence.private["kind"].to_pylist())


def test_every_kind_is_masked_in_the_table(flow):
    rng, values, content = Random(6), [], rows()[:-1]
    for kind in ("email", "phone", "card", "iban", "secret"):
        text, truth = plant(content[len(values)]["completion"], kind, rng)
        content[len(values)]["completion"] = text
        values.append(text[truth.start : truth.end])
    _, divided = flow("mask", content)
    written = pa.concat_arrays(table_of(divided)["messages"].chunks).to_pylist()

    assert len(written) == len(content)
    assert not [value for value in values if any(json.dumps(value)[1:-1] in text for text in written)]


@pytest.mark.parametrize("action", ["mask", "allow"])
def test_names_are_masked_in_samples_where_the_recipe_asks_for_them(flow, workspace, monkeypatch, action):
    def find(text):
        return [found.span() for found in re.finditer("Ada Lovelace", text)]

    monkeypatch.setitem(private._RULES, "name", find)
    monkeypatch.setattr(private, "load_names", lambda: None)
    content = [row | {"completion": f"said Ada Lovelace: {row['completion']}"} for row in rows()]
    # Too long to pass unseen, and kept aside as it has no prompt.
    content += [content[0] | {"completion": "said Ada Lovelace " * 300}, {"prompt": "Ada Lovelace", "completion": ""}]
    audited, divided = flow(action, content, kinds=["name"])
    corpus = Corpus(Path(audited.produced["corpus"]))
    evidence = Evidence(Path(audited.produced["evidence"]))
    uri, kinds = divided.produced["table"], ("name",)
    with workspace.session() as session:
        aside = [f"{row.reason} {row.content}" for row in session.scalars(select(QuarantineRow))]
    shown = {
        "audit": audited.model_dump_json(include={"findings", "figures"}),
        "split": divided.model_dump_json(include={"findings", "figures"}),
        "quarantine": " ".join(aside),
        "version": repr(versions.show(uri, 0, kinds=kinds)),
        "queue": repr(suspects_of(corpus, evidence, {}, 10, kinds)),
    }
    assert {name for name, text in shown.items() if "Lovelace" in text} == set()
    assert "<name>" in shown["audit"] and "<name>" in shown["quarantine"] and "<name>" in shown["version"]


@pytest.mark.skipif(find_spec("presidio_analyzer") is not None, reason="Presidio is installed")
def test_names_without_presidio_are_refused_with_what_to_install(flow):
    with pytest.raises(UserError, match="name"):
        flow("mask", kinds=["name"])


def about_people(numbers, **more):
    """Rows of ten customers, who are known by their addresses."""
    rng = Random(3)
    words = ["".join(rng.choice("abcdefghij") for _ in range(6)) for _ in range(4000)]
    return [
        {
            "prompt": " ".join(words[14 * i : 14 * i + 8]),
            "completion": " ".join(words[14 * i + 8 : 14 * i + 14]),
            "customer": f"customer{i % 10}@example.org",
            "annotator": f"jane{i % 2}@firm.com",
        }
        | more
        for i in numbers
    ]


def cells_of(report):
    return json.dumps(table_of(report).to_pylist(), default=str)


SIDES = {"train": 0.6, "validation": 0.2, "test": 0.2, "min_validation": 1, "min_test": 1}
GROUPED = {"dataset": {"group_by": "customer"}, "split": SIDES}


def test_an_address_as_group_closes_the_gate_and_masked_its_rows_stay_together_in_all_versions(flow):
    assert verdict(flow(None, about_people(range(60)), **GROUPED)[0]) is Verdict.CLOSED
    _, first = flow("mask", about_people(range(60)), **GROUPED)
    assert first.verdict is Verdict.OPEN
    assert "example.org" not in cells_of(first) and "firm.com" not in cells_of(first)
    before = {row["id"]: (row["split"], row["group"]) for row in table_of(first).to_pylist()}
    assert len(set(before.values())) == len({group for _, group in before.values()}) == 10
    assert len(set(table_of(first)["annotator"].to_pylist())) == 2
    _, grown = flow("mask", about_people(range(120)), **GROUPED)
    after = {row["id"]: (row["split"], row["group"]) for row in table_of(grown).to_pylist()}
    assert before.items() <= after.items() and len(set(after.values())) == 10
    assert versions.diff(grown.produced["table"], 0, 1).changed == 0


def test_of_equal_rows_the_one_of_the_masked_group_it_was_in_stays(flow):
    content = about_people(range(60))
    _, first = flow("mask", content, **GROUPED)
    twin = content[5] | {"customer": "aaron@example.org"}
    _, later = flow("mask", [twin, *content], **GROUPED)
    assert table_of(later)["group"].to_pylist() == table_of(first)["group"].to_pylist()


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"source": "mail of bob@firm.com"}, "email"),
        ({"collector": "bob@firm.com"}, "email"),
        ({"label": "bob@firm.com"}, "email"),
        ({"created_at": "2024-01-01 by bob@firm.com"}, "email"),
        ({"card": 4111111111111111}, "card"),
        ({"card": 4111111111111111.0}, "card"),
        ({"deep": [{"cards": [4111111111111111]}]}, "card"),
        ({"bob@firm.com": "yes", "BOB@firm.com": "no"}, "email"),
    ],
)
def test_what_is_private_in_any_other_column_is_found_and_masked(flow, more, kind):
    content = rows()[:-1]
    content[3] |= more
    dataset = {"label": "label"} if "label" in more else {}
    audited, divided = flow("mask", content, dataset=dataset)
    found = Evidence(Path(audited.produced["evidence"])).private
    assert set(found["kind"].to_pylist()) == {kind} and set(found["row"].to_pylist()) == {3}
    text = cells_of(divided)
    assert "bob@" not in text.casefold() and "4111111111111111" not in text and f"<{kind}>" in text
    assert "bob@" not in json.dumps(divided.as_json(), default=str)
    assert len(table_of(divided)) == len(content)


def test_no_column_is_lost_where_masking_gives_two_the_same_name(flow):
    content = rows()[:-1]
    content[0] |= {"bob@firm.com": "yes", "ann@firm.com": "no"}
    _, divided = flow("mask", content)
    metas = [json.loads(meta)["columns"] for meta in table_of(divided)["meta"].to_pylist()]
    assert {"<email>": "no", "<email> 2": "yes"} in metas


def test_an_annotator_called_by_a_plain_name_stays(flow):
    _, divided = flow("mask", about_people(range(60), annotator="Jane Doe"), **GROUPED)
    assert set(table_of(divided)["annotator"].to_pylist()) == {"Jane Doe"}


def test_a_version_is_shown_with_every_column_masked(flow):
    _, divided = flow("allow", about_people(range(60)), **GROUPED)
    shown = json.dumps(versions.show(divided.produced["table"], 0, limit=60)[1], default=str)
    assert "example.org" not in shown and "firm.com" not in shown and "<email>" in shown
