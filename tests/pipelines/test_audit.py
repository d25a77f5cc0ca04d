"""`sluice audit`: what opens its gates, what closes them, and what it says."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from cluster.errors import GateClosed, StageFailed, UserError
from pipelines import audit, review
from pipelines.commands import run_stage
from pipelines.data.chat import encode
from pipelines.data.corpus import Corpus
from pipelines.data.evidence import Evidence
from pipelines.data.reading import read
from pipelines.gates import Verdict
from pipelines.models.load import base_already_here, load_tokenizer
from pipelines.recipe import BaseModelChoice
from pipelines.recipe_file import load_recipe
from pipelines.records import QuarantineRow
from pipelines.stage import require

pytestmark = pytest.mark.slow

TRAP = Path(__file__).parents[2] / "pipelines" / "recipes" / "trap.yaml"

PEOPLE = {"collector": "ops", "annotator": "jane"}


ENDS = list(enumerate(["odd", "odd", "even", None, None], 5000))
"""Labels of a few rows, and rows without one."""


def rows(count, **columns):
    return [
        {"prompt": f"how many legs have {i} spiders", "completion": f"they have {i * 8} legs"} | columns
        for i in range(count)
    ]


@pytest.fixture
def audited(tmp_path, recipe_file, workspace):
    """`audited(rows, **recipe sections) -> Report` on a file with these rows."""

    def perform(content, dataset=None, **sections):
        lines = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
        (tmp_path / "examples.jsonl").write_text(lines, encoding="utf-8")
        sections["dataset"] = {"source": "examples.jsonl", "provenance": PEOPLE} | (dataset or {})
        # Numbers alone tell these rows apart, which short texts of one pattern hardly do.
        sections.setdefault("audit", {"min_examples": 10, "near_duplicate_threshold": 0.99})
        return audit.STAGE.perform(load_recipe(recipe_file(**sections)), workspace)

    return perform


def gate(report, name):
    return next(gate for gate in report.gates if gate.gate == name)


def finding(report, code):
    return next(finding for finding in report.findings if finding.code == code)


def test_the_trap_is_refused_and_says_why_at_one_look(workspace, capfd):
    assert run_stage(audit.STAGE, [str(TRAP)]) == 3
    shown = " ".join(capfd.readouterr().out.replace("│", " ").split())
    assert "2,026 rows, 899 unique" in shown
    report = workspace.reports(stage="audit")[0]
    figures = report.figures
    assert (figures["rows"], figures["unique_rows"]) == (2026, 899)
    assert figures["most_common_answer"]["count"] > 100
    assert f"One answer stands in {figures['most_common_answer']['count']} of" in shown
    assert 0.4 < figures["random_split_leak_share"] < 0.8
    assert f"random split would have leaked {figures['random_split_leak_share']:.1%} of its" in shown
    assert {g.gate for g in report.closed_gates} == {"data.size", "data.duplicates"}


def test_the_trap_as_json_is_the_report_alone(workspace, capfd):
    assert run_stage(audit.STAGE, [str(TRAP), "--json"]) == 3
    report = json.loads(capfd.readouterr().out)
    assert report["stage"] == "audit" and report["verdict"] == "closed"
    assert report["figures"]["unique_rows"] == 899


def test_good_examples_by_people_open_every_gate(audited):
    report = audited(rows(50))
    assert report.verdict is Verdict.OPEN
    assert report.figures["human_annotated"] == report.figures["rows"] == 50
    assert report.figures["annotators"] == [{"name": "jane", "rows": 50}]
    assert sum(bar["count"] for bar in report.figures["prompt_words"]["histogram"]) == 50


def test_rows_by_a_model_count_for_nobody(audited):
    report = audited(rows(9) + rows(30, annotator="model:gpt")[9:])
    assert gate(report, "data.size").verdict is Verdict.CLOSED
    assert report.figures["human_annotated"] == 9
    assert finding(report, "data.size.by_machines").count == 21
    assert finding(report, "data.size.too_few").count == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_data_that_change_around_the_reading_leave_no_report(audited, workspace, tmp_path, monkeypatch, when):
    read_rows = read.raw_rows

    def rows_of_a_file_that_grows(file):
        found = [] if when == "before" else list(read_rows(file))
        with (tmp_path / "examples.jsonl").open("a") as stream:
            stream.write(json.dumps(rows(51)[-1]) + "\n")
        return iter(found or read_rows(file))

    with monkeypatch.context() as patched:
        patched.setattr(read, "raw_rows", rows_of_a_file_that_grows)
        with pytest.raises(StageFailed, match="the dataset changed while audit was reading"):
            audited(rows(50))
    assert workspace.reports(stage="audit") == []
    assert audited(rows(50)).figures["rows"] == 50


def test_repeats_count_once_towards_the_size(audited):
    report = audited(rows(9) * 5)
    assert gate(report, "data.size").verdict is Verdict.CLOSED
    assert gate(report, "data.duplicates").verdict is Verdict.CLOSED
    assert (report.figures["unique_rows"], report.figures["duplicate_rows"]) == (9, 36)
    assert finding(report, "data.duplicates.exact").samples[0]["times"] == 5


def test_an_unnamed_annotator_closes_provenance_and_an_unnamed_collector_is_a_warning(audited):
    report = audited(rows(20), dataset={"provenance": {}})
    assert gate(report, "data.provenance").verdict is Verdict.CLOSED
    assert finding(report, "data.provenance.annotator").severity == "error"
    assert finding(report, "data.provenance.collector").severity == "warning"
    report = audited(rows(20), dataset={"provenance": {"annotator": "jane"}})
    assert gate(report, "data.provenance").verdict is Verdict.OPEN
    assert "20 of them partly as the recipe declares" in gate(report, "data.provenance").evidence


def test_bad_rows_are_counted_by_reason_and_kept_in_the_quarantine(audited, workspace):
    bad = [{"prompt": "", "completion": "b"}, {"prompt": 5, "completion": "b"}]
    report = audited(rows(50) + bad)
    assert gate(report, "data.schema").verdict is Verdict.OPEN
    assert report.figures["quarantined"] == {"empty": 1, "type": 1}
    mixed = finding(report, "data.schema.type")
    assert "examples.jsonl, row 52: prompt is a number (5), not text" in mixed.message
    assert "50 rows can be read, such as examples.jsonl, row 1" in mixed.message
    with workspace.session() as session:
        kept = [(row.position, row.reason) for row in session.scalars(select(QuarantineRow))]
        dataset = {row.dataset for row in session.scalars(select(QuarantineRow))}
    assert kept == [(51, "prompt is empty"), (52, "prompt is a number (5), not text")]
    assert dataset == {report.fingerprints["dataset"]}


def test_the_quarantine_holds_a_row_once_however_often_it_is_audited(audited, workspace, recipe_file):
    report = audited([*rows(50), {"prompt": "", "completion": "b"}])
    recipe = load_recipe(recipe_file(**{k: report.recipe[k] for k in ("dataset", "audit")}))
    audit.STAGE.perform(recipe, workspace, fresh=True)
    with workspace.session() as session:
        assert len(session.scalars(select(QuarantineRow)).all()) == 1


def test_many_bad_rows_close_the_schema(audited):
    report = audited("".join(json.dumps(row) + "\n" for row in rows(20)) + "{\n" * 2)
    assert gate(report, "data.schema").verdict is Verdict.CLOSED
    assert "20 of 22 rows are readable; 2 kept aside" in gate(report, "data.schema").evidence


def test_bad_rows_fail_the_stage_where_the_recipe_says_so(audited):
    with pytest.raises(UserError, match="row 21"):
        audited("".join(json.dumps(row) + "\n" for row in rows(20)) + "{\n", dataset={"on_bad_row": "raise"})


def test_near_duplicates_are_counted_and_shown_in_pairs(audited):
    text = "the quick brown fox jumps over the lazy dog and runs away into the dark wood at night"
    content = rows(30) + [{"prompt": text, "completion": f"so it does {i}"} for i in ("today", "again")]
    report = audited(content, audit={"min_examples": 10, "near_duplicate_threshold": 0.7, "max_duplicate_share": 1})
    samples = finding(report, "data.duplicates.near").samples
    assert report.figures["near_duplicate_rows"] >= 1
    assert all(sample["similarity"] >= 0.7 for sample in samples)


def test_an_instruction_before_every_prompt_makes_no_near_duplicates(audited):
    words = [f"word{i}" for i in range(400)]
    content = [{"prompt": " ".join(words[i * 10 : i * 10 + 10]), "completion": f"answer {i}"} for i in range(40)]
    told = {"instruction": " ".join(["Read what follows with great care and say in one line what it is about."] * 3)}
    report = audited(content, dataset=told, audit={"min_examples": 10, "near_duplicate_threshold": 0.5})
    assert report.figures["near_duplicate_rows"] == 0


def test_the_same_data_give_the_stored_report_and_one_changed_byte_another(audited, tmp_path, recipe_file, workspace):
    first = audited(rows(50))
    assert audited(rows(50)).created_at == first.created_at
    path = tmp_path / "examples.jsonl"
    recipe = load_recipe(recipe_file(**{k: first.recipe[k] for k in ("dataset", "audit")}))
    assert require(audit.STAGE, recipe, workspace).key == first.key
    path.write_bytes(path.read_bytes().replace(b"400 legs", b"401 legs").replace(b"8 legs", b"9 legs", 1))
    with pytest.raises(GateClosed, match=r"other inputs \(dataset changed\).*data\.size"):
        require(audit.STAGE, recipe, workspace)


@pytest.mark.parametrize("version", ["pipelines.audit.AUDIT_VERSION", "pipelines.data.keys.PROFILE_VERSION"])
def test_a_report_that_other_code_made_does_not_stand(audited, monkeypatch, version):
    first = audited(rows(50))
    monkeypatch.setattr(version, 1000)
    again = audited(rows(50))
    assert again.key != first.key and again.created_at > first.created_at


def test_another_base_counts_the_tokens_anew_and_one_that_comes_here_later_moves_nothing(
    audited, tiny_model, tmp_path, workspace
):
    workspace.settings = replace(workspace.settings, models=tmp_path / "models")
    first = audited(rows(20), models=[{"base": "nobody/absent"}])
    assert first.figures["tokens"] is None
    here = audited(rows(20), models=[{"base": str(tiny_model)}])
    assert here.key != first.key and here.figures["tokens"]["tokenizer"] == str(tiny_model)
    # As training fetches it: what was audited before stands, or the split would close in the middle of a run.
    fetched = shutil.copytree(tiny_model, workspace.settings.models / "nobody--absent")
    (fetched / "sluice.json").write_text("{}")
    assert base_already_here(BaseModelChoice(base="nobody/absent"), workspace.settings) == fetched
    assert audited(rows(20), models=[{"base": "nobody/absent"}]).created_at == first.created_at
    # A folder whose tokenizer is another one under the same name.
    folder = shutil.copytree(tiny_model, tmp_path / "base")
    before = audited(rows(20), models=[{"base": str(folder)}])
    described = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(described | {"note": "another"}))
    assert audited(rows(20), models=[{"base": str(folder)}]).key != before.key


def test_samples_show_the_row_and_not_the_instruction_that_all_rows_share(audited):
    content = rows(5) * 3
    report = audited(content, dataset={"instruction": "Be brief. " * 30, "provenance": PEOPLE})
    assert finding(report, "data.duplicates.exact").samples[0]["prompt"].startswith("how many legs")


def test_rows_of_one_group_that_a_random_split_would_part_are_told(audited):
    report = audited([row | {"topic": "all"} for row in rows(40)], dataset={"group_by": "topic", "provenance": PEOPLE})
    assert report.figures["random_split_group_share"] == 1
    told = finding(report, "data.duplicates.random_split")
    assert "100.0% would have another row of their group" in told.message
    assert {sample["shared"] for sample in told.samples} == {"group"}
    assert all(sample["test_row"] != sample["train_row"] and sample["train_prompt"] for sample in told.samples)


def test_a_random_split_is_shown_by_pairs_that_it_would_leak(audited):
    content = rows(10) * 3
    samples = finding(audited(content), "data.duplicates.random_split").samples
    assert 1 <= len(samples) <= 5
    for sample in samples:
        tested, learnt = content[sample["test_row"] - 1], content[sample["train_row"] - 1]
        assert sample["shared"] == "cluster" and tested == learnt and sample["test_row"] != sample["train_row"]
        assert sample["test_answer"] == sample["train_answer"] == tested["completion"]


@pytest.mark.cluster
def test_it_runs_as_a_module_and_imports_nothing_heavy_before_it_works(tmp_path):
    code = (
        "import sys, pipelines.audit, pipelines.split;"
        "heavy = {'ray', 'torch', 'pandas', 'mlflow', 'pyarrow', 'numpy', 'sqlalchemy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, cwd=TRAP.parents[2])
    environment = os.environ | {"SLUICE_STORAGE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.audit", str(TRAP)],
        env=environment,
        cwd=TRAP.parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 3 and "899 unique" in " ".join(done.stdout.split()), done.stderr


def test_mail_addresses_are_hidden_in_samples(audited):
    report = audited([{"prompt": "write to jane.doe@example.org", "completion": "done and sent"}] * 3 + rows(5))
    assert "jane.doe" not in json.dumps([finding.model_dump() for finding in report.findings])


def private(report):
    return gate(report, "data.private")


def test_personal_data_close_their_gate_until_the_recipe_decides(audited):
    content = [*rows(40), {"prompt": "who is it", "completion": "jane.doe@example.org, or +44 20 7946 0958"}]
    strict = {"min_examples": 10, "near_duplicate_threshold": 0.99}
    report = audited(content, audit=strict)
    assert private(report).verdict is Verdict.CLOSED
    assert "email in 1, phone in 1" in private(report).evidence and "mask, drop or allow" in private(report).evidence
    assert finding(report, "data.private.email").severity == "error"
    for action, said in (("mask", "replaced by its kind"), ("drop", "left out"), ("allow", "let")):
        decided = audited(content, audit=strict | {"private": {"action": action}})
        assert private(decided).verdict is Verdict.OPEN and said in private(decided).evidence
    assert "jane.doe" not in json.dumps(report.as_json()) and "7946" not in json.dumps(report.as_json())


def suspicious(count):
    words = (audit.__doc__ or "").split() * 3
    content = [
        {"prompt": f"{number} " + " ".join(words[number % 7 :]), "completion": " ".join(words[: 5 + number % 9])}
        for number in range(200)
    ]
    refusal = "I'm sorry, but I cannot help with that request."
    return content + [{"prompt": f"{n} please do it", "completion": f"{refusal} Ask {n}."} for n in range(count)]


def test_many_suspect_rows_close_their_gate_and_a_decision_to_keep_them_opens_it(audited, workspace):
    rules = {"min_examples": 10, "near_duplicate_threshold": 0.99, "max_duplicate_share": 1.0}
    rules["anomalies"] = {"max_share": 0.02, "gibberish": None, "loss": None, "boilerplate": None, "length": None}
    report = audited(suspicious(8), audit=rules)
    assert report.figures["suspects"]["refusal"] == 8
    assert gate(report, "data.anomalies").verdict is Verdict.CLOSED
    sample = finding(report, "data.anomalies.refusal").samples[0]
    assert sample["answer"].startswith("I'm sorry") and sample["reason"] and sample["row"] > 200
    ids = Corpus(Path(report.produced["corpus"])).column("id").to_pylist()[200:]
    said(workspace, ids, "drop")
    said(workspace, ids, "keep")
    kept = audited(suspicious(8), audit=rules)
    assert kept.key != report.key
    assert gate(kept, "data.anomalies").verdict is Verdict.OPEN
    assert kept.figures["reviewed_keep_rows"] == 8 and "8 were looked at" in gate(kept, "data.anomalies").evidence


def said(workspace, ids, decision):
    suspects = {id: ["refusal"] for id in ids}
    review.decide(workspace, "small", suspects, decision, by="jane", because="I looked at it")


def test_dropped_rows_are_no_suspects_any_more_and_count_for_nothing_that_goes_on(audited, workspace, monkeypatch):
    mail = {"prompt": "200 who is it", "completion": "ask for her at jane.doe@example.org", "annotator": None}
    content = [*suspicious(8), mail]
    off = dict.fromkeys(["gibberish", "loss", "boilerplate", "length", "mismatch", "language"])
    rules = {"min_examples": 205, "near_duplicate_threshold": 0.99, "max_duplicate_share": 1.0}
    rules["anomalies"] = {"max_share": 0.02} | off
    named = [row | {"annotator": row.get("annotator", "jane")} for row in content]
    report = audited(named, audit=rules, dataset={"provenance": {"collector": "ops"}})
    assert {one.gate for one in report.closed_gates} == {"data.anomalies", "data.provenance", "data.private"}
    assert report.figures["human_annotated"] == 208
    ids = Corpus(Path(report.produced["corpus"])).column("id").to_pylist()[200:]
    said(workspace, ids, "drop")
    # Nothing is looked for again: the evidence is the same, what people said of it is not.
    monkeypatch.setattr("pipelines.data.prepare._find_into", None)
    dropped = audited(named, audit=rules, dataset={"provenance": {"collector": "ops"}})
    assert dropped.produced["evidence"] == report.produced["evidence"]
    assert {one.gate for one in dropped.closed_gates} == {"data.size"}
    assert dropped.figures["human_annotated"] == 200 and dropped.figures["dropped_rows"] == 9
    assert "9 rows were" in gate(dropped, "data.size").evidence
    assert "0 of 200 rows are suspect" in gate(dropped, "data.anomalies").evidence
    assert "8 were looked at and are dropped" in gate(dropped, "data.anomalies").evidence
    assert dropped.figures["private_rows"] == 0 and not dropped.figures["suspects"].get("refusal")
    assert not [one.code for one in dropped.findings if one.code.startswith(("data.private", "data.anomalies.ref"))]
    page = Path(dropped.produced["page"]).read_text("utf-8")
    assert "Thresholds" in page and "declines to answer" not in page and "refusal: " not in page.partition("<footer")[0]


def test_mismatches_are_shown_and_close_nothing(audited):
    rules = {"min_examples": 10, "near_duplicate_threshold": 0.99, "max_duplicate_share": 1.0}
    off = dict.fromkeys(["length", "gibberish", "language", "boilerplate", "loss", "repetition"])
    rules["anomalies"] = {"max_share": 0.0, "mismatch": 0.05} | off
    report = audited(suspicious(0), audit=rules)
    assert report.figures["suspects"]["mismatch"] == 10
    assert gate(report, "data.anomalies").verdict is Verdict.OPEN
    assert finding(report, "data.anomalies.mismatch").severity == "info"


def labelled(wrong):
    topics = {"birds": "feather wing nest beak egg sky", "boats": "sail keel harbour mast rope anchor"}
    content = []
    for number in range(240):
        topic = sorted(topics)[number % 2]
        words = topics[topic].split()
        prompt = " ".join(words[(number * step) % 6] for step in (1, 2, 3, 5)) + f" number {number}"
        said = topic if number >= wrong else sorted(topics)[1 - number % 2]
        content.append({"prompt": f"what is {prompt}", "completion": f"it is one of the {said}", "topic": said})
    return content


@pytest.mark.parametrize("decision", ["keep", "drop"])
def test_wrong_labels_close_their_gate_wait_in_the_queue_and_are_decided(audited, workspace, decision):
    rules = {"min_examples": 10, "max_duplicate_share": 1.0, "near_duplicate_threshold": 0.99, "max_label_noise": 0.02}
    rules["anomalies"] = {"max_share": 1}
    report = audited(labelled(12), dataset={"label": "topic"}, audit=rules)
    assert [one.gate for one in report.closed_gates] == ["data.label_noise"]
    assert report.figures["label_noise"]["share"] == pytest.approx(12 / 240, abs=0.02)
    sample = finding(report, "data.label_noise.label").samples[0]
    assert "The label is 'b" in sample["reason"] and sample["row"] <= 12
    corpus, evidence = Corpus(Path(report.produced["corpus"])), Evidence(Path(report.produced["evidence"]))
    waiting, _ = review.suspects_of(corpus, evidence, {}, 1000)
    wrong = [one["id"] for one in waiting if one["kind"] == "label"]
    assert len(wrong) == report.figures["suspects"]["label"] >= 10
    said(workspace, wrong[:4], decision)
    fewer = audited(labelled(12), dataset={"label": "topic"}, audit=rules)
    assert fewer.figures["label_noise"]["share"] < report.figures["label_noise"]["share"]
    assert fewer.figures["suspects"]["label"] == len(wrong) - 4
    assert "4 were decided" in gate(fewer, "data.label_noise").evidence
    said(workspace, wrong, decision)
    done = audited(labelled(12), dataset={"label": "topic"}, audit=rules)
    assert gate(done, "data.label_noise").verdict is Verdict.OPEN
    assert done.figures["label_noise"]["estimated_share"] == report.figures["label_noise"]["share"]


def test_wrong_labels_are_estimated_where_there_are_labels(audited):
    rules = {"min_examples": 10, "max_duplicate_share": 1.0, "near_duplicate_threshold": 0.99}
    none = audited(rows(20))
    assert gate(none, "data.label_noise").verdict is Verdict.NOT_APPLICABLE
    assert "no dataset.label" in gate(none, "data.label_noise").evidence
    clean = audited(labelled(0), dataset={"label": "topic"}, audit=rules)
    assert gate(clean, "data.label_noise").verdict is Verdict.OPEN
    assert clean.figures["labels"] == [
        {"name": "birds", "rows": 120, "share": 0.5},
        {"name": "boats", "rows": 120, "share": 0.5},
    ]
    few = audited(rows(20, topic="one"), dataset={"label": "topic"})
    assert gate(few, "data.label_noise").verdict is Verdict.NOT_APPLICABLE


def test_rare_labels_are_told_however_many_there_are_and_no_label_is_none(audited):
    content = [row | {"kind": f"common {n // 20}"} for n, row in enumerate(rows(1200))]
    content += [{"prompt": f"what is {n} of them", "completion": f"it is {n}", "kind": kind} for n, kind in ENDS]
    report = audited(content, dataset={"label": "kind"})
    assert {label["name"][:6] for label in report.figures["labels"]} == {"common"}
    assert report.figures["unlabelled_rows"] == 2
    rare = finding(report, "data.size.labels")
    assert rare.count == 2 and list(rare.samples) == [{"name": "odd", "rows": 2}, {"name": "even", "rows": 1}]


def test_figures_tell_origins_times_roles_and_repeats(audited):
    content = [row | {"source": f"s{i % 2}", "created_at": f"2024-0{1 + i % 3}-07"} for i, row in enumerate(rows(30))]
    figures = audited([*content, *content[:4]]).figures
    assert figures["origins"][0] == {"source": "s0", "collector": "ops", "annotator": "jane", "rows": 17}
    assert (figures["time_range"]["first"], figures["time_range"]["last"]) == ("2024-01-07", "2024-03-07")
    assert [one["rows"] for one in figures["time_range"]["rows_by_period"]] == [12, 11, 11]
    assert figures["roles"] == [{"name": "user,assistant", "rows": 34, "share": 1.0}]
    assert figures["turns"] == {"2": 34}
    assert [(bar["from"], bar["to"], bar["count"], bar["rows"]) for bar in figures["cluster_sizes"][:2]] == [
        (1, 1, 26, 26),
        (2, 2, 4, 8),
    ]


@pytest.mark.parametrize(
    "first,last,shown",
    [
        (1704067200, 1706745600, ("2024-01-01", "2024-02-01")),
        (1704067200000, "1706745600.5", ("2024-01-01", "2024-02-01T00:00:00Z")),
        ("2024-01-01T23:30:00-01:00", "2024-02-01T12:00:00", ("2024-01-02T00:30:00Z", "2024-02-01T12:00:00Z")),
    ],
)
def test_times_are_told_as_a_split_by_time_would_read_them(audited, first, last, shown):
    content = [row | {"created_at": first if i % 2 else last} for i, row in enumerate(rows(20))]
    content[0] |= {"created_at": "yesterday"}
    told = audited(content).figures["time_range"]
    assert (told["first"], told["last"], told["rows_without"]) == (*shown, 1)
    assert told["rows_by_period"] == [{"period": "2024-01", "rows": 10}, {"period": "2024-02", "rows": 9}]


def test_tokens_and_what_is_too_long_are_told_by_the_bases_own_tokenizer(audited, tiny_model):
    rules = {"min_examples": 10, "near_duplicate_threshold": 0.99, "context_sizes": [64, 1024]}
    content = [*rows(18), *({"prompt": "word " * 60 + str(i), "completion": f"it ends {i}"} for i in range(2))]
    report = audited(content, audit=rules, models=[{"base": str(tiny_model)}])
    assert report.figures["tokens"]["tokenizer"] == str(tiny_model)
    tokenizer = load_tokenizer(tiny_model)
    lengths = [
        len(encode(tokenizer, [turn("user", row["prompt"]), turn("assistant", row["completion"])]).tokens)
        for row in content
    ]
    assert report.figures["tokens"]["total"] == sum(lengths) and report.figures["tokens"]["max"] == max(lengths)
    # The short ones have fewer than 64 tokens, the two long ones more.
    assert report.figures["over_length"] == {"64": 0.1, "1024": 0.0}
    assert sum(bar["count"] for bar in report.figures["tokens"]["histogram"]) == 20


def test_further_tokenizers_stand_beside_the_bases_own_and_none_is_fetched(
    audited, tiny_model, tmp_path, recipe_file, workspace, monkeypatch
):
    monkeypatch.setattr("pipelines.models.hub.download", None)
    rules = {"min_examples": 10, "near_duplicate_threshold": 0.99, "context_sizes": [16, 1024]}
    shutil.copytree(tiny_model, tmp_path / "candidate")
    named = {"tokenizers": ["candidate", "nobody/absent"]}
    marked = {"prompt": "say <|im_end|> twice <|im_end|>", "completion": "no"}
    report = audited([*rows(18), marked, *rows(3)], audit=rules | named, models=[{"base": str(tiny_model)}])
    figures, (candidate, absent) = report.figures, report.figures["tokenizers"]
    assert candidate["tokenizer"] == str(tmp_path / "candidate")
    own = figures["tokens"] | {"tokenizer": candidate["tokenizer"], "over_length": figures["over_length"]}
    # The same tokenizer under another name: the same numbers.
    assert candidate == own and candidate["over_length"]["16"] > 0.5
    assert absent == {"tokenizer": "nobody/absent", "total": None}
    said = finding(report, "data.size.tokens")
    assert "nobody/absent" in said.message and "the base" not in said.message
    page = Path(report.produced["page"]).read_text("utf-8")
    assert "Lengths by tokenizer" in page and "not on this machine" in page
    # Where a folder lies does not matter, what is in it does.
    shutil.move(tmp_path / "candidate", tmp_path / "moved")
    moved = {"tokenizers": ["moved", "nobody/absent"]}
    assert audited([*rows(18), marked, *rows(3)], audit=rules | moved, models=[{"base": str(tiny_model)}]).key == (
        report.key
    )
    without = audited([*rows(18), marked, *rows(3)], audit=rules, models=[{"base": str(tiny_model)}])
    assert without.key != report.key and without.figures["tokenizers"] == []


def turn(role, content):
    return {"role": role, "content": content}


def test_texts_that_mean_the_same_are_one_cluster_and_other_weights_compare_them_anew(audited, tiny_model, tmp_path):
    said = "The printer on the second floor does not answer"
    content = [*rows(12), *({"prompt": said, "completion": f"It does not answer{end}"} for end in ("", " now"))]
    base = shutil.copytree(tiny_model, tmp_path / "base")
    rules = {"min_examples": 5, "near_duplicate_threshold": 0.99, "max_duplicate_share": 1.0}
    plain = audited(content, audit=rules, models=[{"base": str(base)}])
    meant = audited(content, audit=rules | {"semantic": {"threshold": 0.9}}, models=[{"base": str(base)}])
    cluster = Evidence(Path(meant.produced["evidence"])).cluster
    assert cluster[12] == cluster[13] == 12
    assert meant.figures["near_duplicate_rows"] > plain.figures["near_duplicate_rows"] == 0
    kinds = {sample["kind"] for sample in finding(meant, "data.duplicates.near").samples}
    assert kinds == {"semantic"}
    assert "semantic_model" in meant.fingerprints and "semantic_model" not in plain.fingerprints
    (base / "generation_config.json").write_text("{}")
    again = audited(content, audit=rules | {"semantic": {"threshold": 0.9}}, models=[{"base": str(base)}])
    assert again.key != meant.key and again.produced["evidence"] != meant.produced["evidence"]
    # Who compares no meanings reads no weights.
    assert audited(content, audit=rules, models=[{"base": str(base)}]).created_at == plain.created_at


def test_another_recipe_over_the_same_rows_leaves_the_pages_of_the_first_as_they_are(audited):
    content = [*rows(30), {"prompt": "who is it", "completion": "write to jane.doe@example.com"}]
    keys = {"min_examples": 10, "near_duplicate_threshold": 0.99}
    masked = audited(content, audit=keys)
    page = Path(masked.produced["page"]).read_text("utf-8")
    shown = audited(content, audit=keys | {"min_examples": 1000, "private": {"action": "allow"}})
    assert shown.produced["evidence"] == masked.produced["evidence"]
    assert Path(masked.produced["page"]).read_text("utf-8") == page and "jane.doe" not in page
    assert shown.produced["page"] != masked.produced["page"] and Path(shown.produced["page"]).is_file()


def test_the_report_is_a_page_too_and_names_where_its_evidence_lies(audited):
    report = audited(rows(30))
    page = Path(report.produced["page"]).read_text("utf-8")
    assert "<script" not in page and "data.duplicates" in page
    assert Path(report.produced["evidence"], "clusters.parquet").is_file()
    assert len(Corpus(Path(report.produced["corpus"]))) == 30
