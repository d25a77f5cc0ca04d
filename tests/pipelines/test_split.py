"""`sluice split`: sides that share nothing, whatever comes later."""

import json
import shutil

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from cluster.errors import GateClosed, StageFailed, UserError
from pipelines import audit, split
from pipelines.data import prepare
from pipelines.data.leaks.leakage import find_leaks
from pipelines.data.reading import read
from pipelines.data.sides import placing
from pipelines.data.sides.division import Outside, divide
from pipelines.data.sides.past import Past, read_past
from pipelines.data.sides.splitting import HELD, HELD_OUT, SIDES, Places
from pipelines.data.similarity.semantic import Vectors
from pipelines.data.versioned.table import read_side, read_version, write_table
from pipelines.gates import Verdict
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.recipe_data import Semantic
from pipelines.recipe_file import load_recipe
from pipelines.review import decide
from pipelines.stage import require

pytestmark = pytest.mark.slow

SMALL = {"min_validation": 1, "min_test": 1}
NO_SCORES = dict.fromkeys(
    ("length", "repetition", "gibberish", "language", "encoding", "boilerplate", "mismatch", "loss")
)
"""Suspects are the audit's matter."""


def turns_of(messages):
    return json.loads(messages)


def words(start, count=12):
    return " ".join(f"w{start + i}" for i in range(count))


def row(number, topic=None, **more):
    """An example that is like no other number's."""
    return {
        "prompt": words(number * 100),
        "completion": words(number * 100 + 50),
        "topic": topic or f"t{number}",
    } | more


@pytest.fixture
def divided(tmp_path, recipe_file, workspace):
    """`divided(rows, fresh=False, **sections) -> split's Report`, audited before."""

    def perform(content, fresh=False, dataset=None, **sections):
        data = "".join(json.dumps(row) + "\n" for row in content)
        (tmp_path / "examples.jsonl").write_text(data, encoding="utf-8")
        declared = {"annotator": "jane", "collector": "ops"}
        sections["dataset"] = {"source": "examples.jsonl", "provenance": declared, "group_by": "topic"} | (
            dataset or {}
        )
        audit_keys = {"min_examples": 1, "max_duplicate_share": 1, "anomalies": NO_SCORES}
        sections["audit"] = audit_keys | sections.get("audit", {})
        sections["split"] = SMALL | sections.get("split", {})
        perform.recipe = load_recipe(recipe_file(**sections))
        audit.STAGE.perform(perform.recipe, workspace)
        return split.STAGE.perform(perform.recipe, workspace, fresh=fresh)

    return perform


def table_of(report):
    return read_version(report.produced["table"], int(report.produced["version"])).to_pylist()


def places(report):
    return {row["id"]: (row["split"], row["cluster"]) for row in table_of(report)}


def side_of_prompt(report):
    return {turns_of(row["messages"])[0]["content"]: row["split"] for row in table_of(report)}


def codes(report):
    return {finding.code for finding in report.findings}


def test_it_asks_for_an_open_audit_first(recipe_file, workspace, tmp_path):
    (tmp_path / "examples.jsonl").write_text(json.dumps(row(1)) + "\n")
    recipe = load_recipe(recipe_file())
    with pytest.raises(GateClosed, match="there is no audit report"):
        split.STAGE.perform(recipe, workspace)
    audit.STAGE.perform(recipe, workspace)
    with pytest.raises(GateClosed, match=r"data\.size is closed"):
        split.STAGE.perform(recipe, workspace)


def test_the_sides_are_read_back_complete_and_in_order(divided):
    report = divided([row(i) for i in range(80)])
    assert report.verdict is Verdict.OPEN
    sizes = report.figures["rows"]
    assert sum(sizes.values()) == 80 and sizes[HELD_OUT] == 0
    seen = set()
    for side in SIDES:
        table = read_side(report, side)
        ids = table["id"].to_pylist()
        assert len(ids) == sizes[side] > 0 and ids == sorted(ids)
        assert pc.all(pc.equal(table["split"], side)).as_py()
        seen |= set(ids)
    assert len(seen) == 80
    turns = turns_of(read_side(report, "train")["messages"][0].as_py())
    assert [turn["role"] for turn in turns] == ["user", "assistant"]


def test_groups_and_near_duplicates_stay_whole_and_repeats_enter_once(divided):
    content = [row(i, topic=f"t{i % 20}") for i in range(80)]
    near = row(500)
    content += [near, near | {"completion": near["completion"] + " end"}, content[0], content[0]]
    report = divided(content)
    assert report.verdict is Verdict.OPEN
    assert report.figures["repeats_left_out"] == 2
    table = table_of(report)
    for topic in range(20):
        assert len({r["split"] for r in table if r["group"] == f"t{topic}"}) == 1
    assert len({(r["split"], r["cluster"]) for r in table if r["group"] == "t500"}) == 1
    assert len({r["cluster"] for r in table}) == report.figures["clusters"] == 81
    assert sum(report.figures["clusters_by_side"].values()) == 81


@pytest.mark.parametrize("turned", [False, True])
def test_of_equal_examples_the_one_by_a_person_stays_unless_its_group_is_new(divided, turned):
    others = [row(i, annotator="zoe") for i in range(60)]
    machine = row(99, topic="a", annotator="model:gpt")
    zoe = row(99, topic="b", annotator="zoe")

    def kept(content, **options):
        report = divided(content[::-1] if turned else content, **options)
        return next(r["group"] for r in table_of(report) if f"w{99 * 100} " in r["messages"])

    assert kept([*others, machine, zoe]) == "b"
    # Whoever wrote it, an example that has its place stays in its group.
    kept([*others, machine], fresh=True)
    assert kept([*others, row(98), machine, zoe]) == "a"


def test_data_that_change_after_the_audit_enter_no_table(divided, workspace, tmp_path, monkeypatch):
    read_rows, stored = read.raw_rows, divided([row(i) for i in range(60)])
    shutil.rmtree(workspace.uri("corpora"))

    def rows_of_a_file_that_grows(file):
        yield from read_rows(file)
        with (tmp_path / "examples.jsonl").open("a") as stream:
            stream.write(json.dumps(row(100)) + "\n")

    with monkeypatch.context() as patched:
        patched.setattr(read, "raw_rows", rows_of_a_file_that_grows)
        with pytest.raises(StageFailed, match="the dataset changed while"):
            divided([row(i) for i in range(60)], fresh=True)
    assert len(workspace.reports(stage="split")) == 1
    with pytest.raises(UserError, match="version 1"):
        read_version(stored.produced["table"], 1)


def test_the_same_data_give_the_same_report_and_version(divided):
    first = divided([row(i) for i in range(60)])
    again = divided([row(i) for i in range(60)])
    assert again.created_at == first.created_at
    assert again.produced == first.produced


def test_an_old_example_never_moves_when_new_ones_arrive(divided):
    first = places(divided([row(i) for i in range(60)]))
    report = divided([row(i) for i in range(200, 260)] + [row(i) for i in range(60)])
    later = places(report)
    assert {id: later[id] for id in first} == first
    assert report.produced["version"] == "1"
    assert (report.figures["kept_places"], report.figures["new_places"]) == (60, 60)


def test_an_example_that_comes_back_returns_to_its_side(divided):
    everything = [row(i) for i in range(60)]
    first = places(divided(everything))
    divided(everything[:30])
    back = places(divided([*everything, row(99)]))
    assert {id: back[id] for id in first} == first


def test_what_was_there_before_a_fresh_start_has_no_old_side(divided):
    everything = [row(i) for i in range(60)]
    report = divided(everything)
    fresh = divided(everything[:30], fresh=True)
    past = read_past(fresh.produced["table"], split.policy_of(Recipe.model_validate(fresh.recipe)))
    assert len(past.present) == 30 and past.gone is None
    assert report.produced["version"] == "0" and fresh.produced["version"] == "1"


def test_a_newcomer_that_would_join_two_sides_is_held_out_and_read_by_no_side(divided):
    content = [row(i) for i in range(60)]
    by_prompt = side_of_prompt(divided(content))
    sides = [by_prompt[r["prompt"]] for r in content]
    train, test = content[sides.index("train")], content[sides.index("test")]
    # Near the one by its text, of the other's group.
    bridge = train | {"completion": train["completion"] + " end", "topic": test["topic"]}
    later = divided([*content, bridge])
    assert later.verdict is Verdict.OPEN
    assert later.figures["rows"][HELD_OUT] == 1
    assert next(f for f in later.findings if f.code == "split.held_out").count == 1
    read = [r for side in SIDES for r in read_side(later, side)["messages"].to_pylist()]
    assert len(read) == 60 and not any("end" in messages for messages in read)


def test_another_seed_places_everything_anew_and_says_so(divided):
    content = [row(i) for i in range(60)]
    first = places(divided(content))
    report = divided(content, seed=3)
    assert places(report) != first
    assert "split.started_over" in codes(report)


def test_a_key_that_is_new_breaks_off_no_table_of_before():
    """The policy of a plain recipe is what it was before there were other ways to divide."""
    plain = Recipe.model_validate({"name": "r", "dataset": {"source": "x"}, "models": [{"base": "a/b"}]})
    shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
    assert split.policy_of(plain) == split.fingerprint(plain.seed, shares, 0.7, None)
    folded = plain.model_copy(update={"split": plain.split.model_copy(update={"folds": 3})})
    timed = plain.model_copy(update={"split": plain.split.model_copy(update={"by_time": True})})
    assert split.policy_of(folded) == split.policy_of(plain) != split.policy_of(timed)


def test_the_same_files_in_another_folder_are_read_as_the_same(recipe_file, workspace, tmp_path):
    read = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        (folder / "examples.jsonl").write_text("".join(json.dumps(row(n)) + "\n" for n in range(20)), "utf-8")
        (folder / "bench.jsonl").write_text(json.dumps(row(900)) + "\n", "utf-8")
        path = recipe_file(
            f"{folder.name}/recipe.yaml",
            dataset={"source": "examples.jsonl", "provenance": {"annotator": "jane", "collector": "ops"}},
            audit={"min_examples": 1, "anomalies": NO_SCORES},
            split=SMALL | {"benchmarks": "bench.jsonl"},
        )
        audit.STAGE.perform(load_recipe(path), workspace)
        read.append(split.STAGE.reads(load_recipe(path), workspace))
    assert read[0] == read[1]


def test_a_group_renamed_onto_another_side_closes_the_gate_and_fresh_opens_it(divided, workspace):
    content = [row(i) for i in range(60)]
    table = table_of(divided(content))
    one = next(r["group"] for r in table if r["split"] == "train")
    other = next(r["group"] for r in table if r["split"] == "test")
    renamed = [r | {"topic": one} if r["topic"] == other else r for r in content]
    closed = divided(renamed)
    assert closed.verdict is Verdict.CLOSED
    leak = next(f for f in closed.findings if f.code == "split.leakage.group")
    assert leak.message == "1 pairs stand on two sides: of one group."
    assert "1 of one group" in next(gate for gate in closed.gates if gate.gate == "split.leakage").evidence
    assert leak.count == 1 and {"left", "right", "left_text"} <= set(leak.samples[0])
    evidence = prepare.evidence_of(divided.recipe, workspace, Progress(quiet=True))
    again = prepare.evidence_of(divided.recipe, workspace, Progress(quiet=True), fresh=True)
    for found in (evidence, again):
        assert found.leaks(closed.produced["split"])["kind"].to_pylist() == ["group"]
    assert divided(renamed, fresh=True).verdict is Verdict.OPEN


def test_a_split_by_a_wrong_assignment_is_caught_and_its_pairs_are_listed(divided, workspace, monkeypatch):
    """The check does not believe the splitter: here it puts each example on a side of its own."""

    def wrong(items, edges, choose, history):
        return Places((np.arange(len(items)) % 3).astype(np.int8), items.ids)

    monkeypatch.setattr(placing, "assign", wrong)
    near = row(500)
    content = [
        near,
        near | {"completion": near["completion"] + " end"},
        *(row(i, topic=f"t{i % 5}") for i in range(30)),
    ]
    report = divided(content)
    assert report.verdict is Verdict.CLOSED
    assert codes(report) >= {"split.leakage.group", "split.leakage.near"}
    with pytest.raises(GateClosed, match=r"split\.leakage is closed: .* pairs stand on two sides"):
        require(split.STAGE, divided.recipe, workspace)
    (pair,) = next(finding for finding in report.findings if finding.code == "split.leakage.near").samples
    ids = {row["id"][:12] for row in table_of(report) if near["prompt"] in row["messages"]}
    assert {pair["left"], pair["right"]} == ids and pair["similarity"] >= 0.7
    assert pair["left_text"].startswith("w50000 w50001") and pair["right_text"].startswith("w50000 w50001")


def test_the_leaks_of_two_recipes_over_the_same_rows_stand_side_by_side(divided, workspace):
    content = [row(i, first=SIDES[i % 3], second=SIDES[min(i // 20, 2)]) for i in range(60)]
    content[0]["topic"] = content[1]["topic"]
    near = content[59] | {"prompt": "now " + content[59]["prompt"], "topic": "x", "first": "train", "second": "train"}
    content.append(near)
    found = {}
    for column in ("first", "second"):
        report = divided(content, name=column, split={"column": column})
        evidence = prepare.evidence_of(divided.recipe, workspace, Progress(quiet=True))
        found[column] = (report.produced["split"], evidence)
    assert found["first"][1].folder == found["second"][1].folder
    kinds = {column: set(evidence.leaks(split)["kind"].to_pylist()) for column, (split, evidence) in found.items()}
    assert kinds["first"] - kinds["second"] == {"group"} and "near" in kinds["second"]


def test_near_duplicates_that_the_search_for_clusters_misses_are_found_and_kept_together(divided, workspace):
    content = [row(i) for i in range(60)]
    content += [r | {"prompt": "now " + r["prompt"], "topic": f"copy {r['topic']}"} for r in content]
    divided(content)
    recipe, quiet = divided.recipe, Progress(quiet=True)
    corpus, evidence = prepare.prepare(recipe, workspace, quiet), prepare.evidence_of(recipe, workspace, quiet)
    evidence.__dict__["edges"] = evidence.edges.slice(0, 0)
    found = divide(corpus, evidence, recipe, Past(), Outside(), quiet)
    assert found.missed["near"] > 0 and found.leaks.counts == {}


def test_rows_of_which_one_holds_the_other_share_a_side(divided):
    content = []
    for number in range(60):
        short = words(number * 1000, 60)
        content.append({"prompt": short, "completion": "yes", "topic": f"a{number}"})
        content.append(
            {"prompt": short + " " + words(number * 1000 + 500, 200), "completion": "no", "topic": f"b{number}"}
        )
    report = divided(content, split={"train": 0.5, "validation": 0.25, "test": 0.25})
    assert report.verdict is Verdict.OPEN and report.figures["kept_together"]["containment"] > 0
    sides = side_of_prompt(report)
    assert all(sides[a["prompt"]] == sides[b["prompt"]] for a, b in zip(content[::2], content[1::2], strict=True))
    # What is joined only because one holds the other is of one side, but of two clusters.
    assert report.figures["clusters"] <= 120


def test_a_side_without_examples_is_refused_with_what_to_do(divided):
    with pytest.raises(UserError, match="no example falls on the side") as caught:
        divided([row(i, topic="one") for i in range(20)])
    assert "Group by something finer" in str(caught.value)
    with pytest.raises(UserError, match="no example falls on the side") as caught:
        divided([row(i, part="test" if i % 2 else "train") for i in range(20)], split={"column": "part"})
    assert "stand in part" in str(caught.value) and "groups" not in str(caught.value)


def test_too_small_sides_close_a_gate_that_names_sizes_and_clusters(divided):
    report = divided([row(i) for i in range(60)], split={"min_validation": 1, "min_test": 20})
    gate = next(gate for gate in report.gates if gate.gate == "split.size")
    assert gate.verdict is Verdict.CLOSED
    test = report.figures["rows"]["test"]
    assert f"test {test} examples in {test} clusters" in gate.evidence and "at least 20" in gate.evidence


def test_coarse_shares_are_told(divided):
    content = [row(i, topic="large" if i < 50 else None) for i in range(90)]
    report = divided(content)
    assert "split.shares" in codes(report)
    assert report.figures["wanted_shares"] == {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_labels_keep_their_shares_on_every_side_and_while_they_grow(divided):
    def labelled(numbers):
        return [row(i, kind="rare" if i % 10 == 0 else "common") for i in numbers]

    options = {"dataset": {"label": "kind"}}
    first = divided(labelled(range(100)), **options)
    labels = first.figures["labels"]
    assert labels["rare"] == {"train": 8, "validation": 1, "test": 1, HELD_OUT: 0}
    assert labels["common"] == {"train": 72, "validation": 9, "test": 9, HELD_OUT: 0}
    later = divided(labelled(range(200)), **options)
    assert later.figures["labels"]["rare"] == {"train": 16, "validation": 2, "test": 2, HELD_OUT: 0}
    assert places(first).items() <= places(later).items()


def test_by_time_the_newest_are_tested_and_later_ones_follow_the_same_times(divided):
    def dated(days):
        return [row(i, created_at=f"2024-{1 + i // 28:02}-{1 + i % 28:02}") for i in days]

    report = divided(dated(range(100)), split={"by_time": True})
    table = sorted(table_of(report), key=lambda r: r["created_at"])
    assert [r["split"] for r in table] == ["train"] * 80 + ["validation"] * 10 + ["test"] * 10
    assert report.figures["cutoffs"]["test"].startswith("2024-04-07")
    later = divided(dated(range(120)), split={"by_time": True})
    assert later.figures["rows"] == {"train": 80, "validation": 10, "test": 30, HELD_OUT: 0}
    assert later.figures["cutoffs"] == report.figures["cutoffs"]


def test_by_time_asks_for_times_that_can_be_read(divided):
    content = [row(i, created_at="2024-01-01") for i in range(40)]
    with pytest.raises(UserError, match="1 examples do not say when they were made"):
        divided([*content, row(50)], split={"by_time": True})
    with pytest.raises(UserError, match=r"no times: 'soon' \(first in examples.jsonl row 41\)"):
        divided([*content, row(50, created_at="soon")], split={"by_time": True})


def test_sides_of_the_data_are_taken_as_they_are_and_leaks_close_the_gate_until_they_are_healed(divided):
    content = [row(i, part=("Train", "dev", "test")[min(i // 20, 2)]) for i in range(60)]
    content.append(content[0] | {"completion": content[0]["completion"] + " end", "part": "test", "topic": "x"})
    # Its group is on the validation side too.
    content[1]["topic"] = content[25]["topic"]
    closed = divided(content, split={"column": "part"})
    assert closed.verdict is Verdict.CLOSED and codes(closed) >= {"split.leakage.near", "split.leakage.group"}
    proposal = next(f for f in closed.findings if f.code == "split.leakage.heal")
    assert proposal.count == 2 and "split.heal=true" in proposal.remedy
    assert closed.figures["rows"] == {"train": 20, "validation": 20, "test": 21, HELD_OUT: 0}
    healed = divided(content, split={"column": "part", "heal": True})
    assert healed.verdict is Verdict.OPEN
    assert healed.figures["rows"] == {"train": 18, "validation": 20, "test": 21, HELD_OUT: 2}


def test_values_that_are_no_sides_are_named(divided):
    content = [row(i, part=("train", "test", "holdout", None)[i % 4]) for i in range(40)]
    with pytest.raises(UserError, match=r"'holdout' \(10 rows, first examples.jsonl row 3\), nothing \(10 rows"):
        divided(content, split={"column": "part"})
    with pytest.raises(UserError, match="no row has a column prt; did you mean part"):
        divided([row(i, part="train") for i in range(40)], split={"column": "prt"})


def test_what_was_tested_once_never_trains_again(divided):
    content = [row(i) for i in range(80)]
    tested = {id for id, (side, _) in places(divided(content)).items() if side == "test"}
    anew = divided(content, seed=4, split={"freeze_test": True})
    now = places(anew)
    assert {now[id][0] for id in tested} == {"test"} and anew.verdict is Verdict.OPEN
    again = places(
        divided(
            content, fresh=True, seed=5, split={"freeze_test": True, "train": 0.9, "test": 0.05, "validation": 0.05}
        )
    )
    assert {again[id][0] for id in tested} == {"test"}


def test_what_is_like_a_test_example_that_is_gone_never_trains(divided):
    content = [row(i) for i in range(80)]
    sides = side_of_prompt(divided(content))
    tested = [r for r in content if sides[r["prompt"]] == "test"]
    rest = [r for r in content if r not in tested] + [row(i) for i in range(100, 160)]
    alike = [r | {"prompt": "now " + r["prompt"], "topic": f"like {r['topic']}"} for r in tested]
    kin = [row(300 + i, topic=r["topic"]) for i, r in enumerate(tested)]
    report = divided([*rest, *alike, *kin], fresh=True, split={"freeze_test": True})
    train = {r["messages"] for r in table_of(report) if r["split"] == "train"}
    assert not any(r["prompt"] in messages for r in (*alike, *kin) for messages in train)
    assert report.figures["left_out"]["tested_before"] > 0 and "split.tested_before" in codes(report)


def test_items_of_a_benchmark_are_kept_from_training(divided, tmp_path):
    content = [row(i) for i in range(80)]
    sides = side_of_prompt(divided(content))
    trained = [r["prompt"] for r in content if sides[r["prompt"]] == "train"]
    asked = {r["prompt"]: f"Answer this: {r['prompt']} {r['completion']}" for r in content}
    (tmp_path / "bench.jsonl").write_text(
        "".join(json.dumps({"question": asked[prompt]}) + "\n" for prompt in trained[:3])
    )
    report = divided(content, split={"benchmarks": str(tmp_path / "bench.jsonl"), "containment": 0.5})
    kept = {prompt for prompt, side in side_of_prompt(report).items() if side == "train"}
    assert report.verdict is Verdict.OPEN
    assert kept.isdisjoint(trained[:3]) and report.figures["left_out"]["benchmarks"] == 3


def test_a_short_question_of_a_benchmark_is_kept_from_training_whatever_its_answer(divided, tmp_path):
    content = [{"prompt": words(i * 100, 8), "completion": words(i * 100 + 50, 16)} for i in range(80)]
    content += [row | {"completion": words(n * 100 + 70, 20)} for n, row in enumerate(content)]
    options = {"dataset": {"group_by": None}}
    sides = side_of_prompt(divided(content, **options))
    trained = [prompt for prompt, side in sides.items() if side == "train"][:3]
    quiz = [{"question": f"{prompt.upper()}?"} for prompt in trained]
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(item) + "\n" for item in quiz))
    report = divided(content, split={"benchmarks": str(tmp_path / "quiz.jsonl")}, **options)
    assert report.verdict is Verdict.OPEN and report.figures["left_out"]["benchmarks"] == 6
    assert not {prompt for prompt, side in side_of_prompt(report).items() if side == "train"} & set(trained)


def prompted(number, prompt, topic=None):
    return row(number, topic) | {"prompt": prompt}


def test_examples_of_one_prompt_share_a_side_and_newcomers_follow_them(divided):
    content = [prompted(i, f"tell me of {words(i % 20, 1)}") for i in range(80)]
    report = divided(content)
    assert report.verdict is Verdict.OPEN and "split.instructions" not in codes(report)
    table = table_of(report)
    assert len({(turns_of(r["messages"])[0]["content"], r["split"]) for r in table}) == 20
    # Whoever answers the same prompt is of one side, and yet no near-duplicate.
    assert report.figures["clusters"] == 80
    first = side_of_prompt(report)
    later = divided([*content, *(prompted(100 + i, f"tell me of {words(i, 1)}") for i in range(20))])
    assert side_of_prompt(later) == first and later.figures["rows"][HELD_OUT] == 0
    # Of the group of the one side and the prompt of another.
    one, other = (next(r for r in content if first[r["prompt"]] == side) for side in ("train", "test"))
    bridge = divided([*content, prompted(200, one["prompt"], other["topic"])])
    assert bridge.verdict is Verdict.OPEN and bridge.figures["rows"][HELD_OUT] == 1


def test_a_prompt_of_very_many_examples_is_an_instruction_that_ties_nobody(divided):
    content = [prompted(i, "Write it.") for i in range(60)] + [row(i) for i in range(100, 120)]
    report = divided(content, split={"shared_prompts": 59})
    assert report.verdict is Verdict.OPEN
    told = next(finding for finding in report.findings if finding.code == "split.instructions")
    assert told.count == 1 and told.samples == ({"prompt": "Write it.", "rows": 60},)
    assert {r["split"] for r in table_of(report) if "Write it." in r["messages"]} == set(SIDES)
    tied = divided(content, split={"shared_prompts": 60})
    assert {r["split"] for r in table_of(tied) if "Write it." in r["messages"]} == {"train"}


def test_prompts_on_two_given_sides_close_the_gate_until_they_are_healed(divided):
    content = [row(i, part=("train", "validation", "test")[i % 3]) for i in range(60)]
    content[0]["prompt"] = content[1]["prompt"] = content[3]["prompt"] = "the same"
    closed = divided(content, split={"column": "part"})
    assert closed.verdict is Verdict.CLOSED and closed.figures["leaks"] == {"prompt": 1}
    assert "shared_prompts" in next(f for f in closed.findings if f.code == "split.leakage.prompt").remedy
    healed = divided(content, split={"column": "part", "heal": True})
    assert healed.verdict is Verdict.OPEN and healed.figures["rows"][HELD_OUT] == 2


def test_prompts_that_masking_makes_equal_share_a_side(divided):
    content = [row(i) for i in range(60)]
    content += [prompted(100 + i, f"write to somebody{i}@example.org") for i in range(30)]
    report = divided(content, audit={"private": {"action": "mask"}})
    assert report.verdict is Verdict.OPEN
    assert len({r["split"] for r in table_of(report) if "<email>" in r["messages"]}) == 1


def test_a_prompt_that_was_tested_once_never_trains_again(divided):
    content = [row(i) for i in range(80)]
    sides = side_of_prompt(divided(content))
    tested = [r for r in content if sides[r["prompt"]] == "test"]
    rest = [r for r in content if r not in tested] + [row(i) for i in range(100, 160)]
    again = [prompted(300 + i, r["prompt"]) for i, r in enumerate(tested)]
    report = divided([*rest, *again], fresh=True, split={"freeze_test": True})
    sides = side_of_prompt(report)
    assert "train" not in {sides.get(r["prompt"]) for r in again}


def test_folds_keep_groups_whole_and_cover_the_training_side(divided):
    report = divided([row(i, topic=f"t{i % 30}") for i in range(90)], split={"folds": 4})
    table = table_of(report)
    assert all((r["fold"] is None) == (r["split"] != "train") for r in table)
    assert len({(r["group"], r["fold"]) for r in table if r["fold"] is not None}) == len(
        {r["group"] for r in table if r["fold"] is not None}
    )
    sizes = report.figures["folds"]
    assert len(sizes) == 4 and max(sizes) - min(sizes) <= 3 and sum(sizes) == report.figures["rows"]["train"]


def test_of_the_training_side_what_belongs_together_is_in_one_fold(divided):
    content = []
    for number in range(40):
        short = words(number * 1000, 60)
        longer = f"{short} {words(number * 1000 + 500, 200)}"
        content.append({"prompt": short, "completion": "yes", "topic": f"a{number}"})
        content.append({"prompt": longer, "completion": "no", "topic": f"b{number}"})
    content += [prompted(100 + i, f"tell me of {words(i % 10, 1)}") for i in range(40)]
    report = divided(content, split={"folds": 4})
    assert report.verdict is Verdict.OPEN and "in two folds" in report.gates[0].evidence
    fold = {turns_of(r["messages"])[0]["content"]: r["fold"] for r in table_of(report)}
    assert all(fold[a["prompt"]] == fold[b["prompt"]] for a, b in zip(content[:80:2], content[1:80:2], strict=True))
    rows = table_of(report)
    assert len({(turns_of(r["messages"])[0]["content"], r["fold"]) for r in rows}) == 90
    assert len(report.figures["folds"]) == 4 and min(report.figures["folds"]) > 0


def test_folds_that_share_something_close_the_gate_and_list_the_pairs(divided, monkeypatch):
    monkeypatch.setattr(placing, "folds", lambda component, keys, count, seed: np.arange(len(component)) % count)
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    report = divided([row(i, topic=f"t{i % 20}") for i in range(80)], split={"folds": 3} | shares)
    assert report.verdict is Verdict.CLOSED and "stand in two folds" in report.gates[0].evidence
    told = next(finding for finding in report.findings if finding.code == "split.leakage.folds")
    assert told.count > 0 and told.samples[0]["kind"] == "group"
    assert report.figures["leaks"] == {}


@pytest.mark.parametrize(("rule", "kept"), [("keep_first", "end"), ("keep_best", "zoe")])
def test_of_near_duplicates_one_stays(divided, rule, kept):
    content = [row(i, annotator="model:x") for i in range(60)]
    near = row(500, annotator="model:x")
    content += [
        near | {"completion": near["completion"] + " end"},
        near | {"completion": near["completion"] + " zoe", "annotator": "zoe"},
        near | {"completion": near["completion"] + " so long an end", "annotator": "model:x"},
    ]
    content += [row(900 + i) for i in range(10)]
    report = divided(content, split={"dedup": rule})
    assert report.figures["left_out"]["near_duplicates"] == 2
    left = [r for r in table_of(report) if near["prompt"] in r["messages"]]
    assert len(left) == 1 and f" {kept}" in left[0]["messages"]
    # What the table holds stays; a newcomer like it does not enter.
    later = divided([near | {"annotator": "zoe", "topic": "other"}, *content], split={"dedup": rule})
    assert places(later) == places(report)


def test_private_data_are_masked_or_left_out_as_the_recipe_says(divided):
    content = [row(i) for i in range(60)]
    content.append(row(70) | {"completion": "write to jane.doe@example.com about it today please"})
    masked = divided(content, audit={"private": {"action": "mask"}})
    text = next(r["messages"] for r in table_of(masked) if "write to" in r["messages"])
    assert "<email>" in text and "jane.doe" not in text
    assert masked.figures["masked_kinds"] == ["card", "email", "iban", "phone", "secret"]
    dropped = divided(content, audit={"private": {"action": "drop"}})
    assert dropped.figures["left_out"]["private"] == 1
    assert not any("write to" in r["messages"] for r in table_of(dropped))


def test_texts_that_masking_makes_equal_share_a_side(divided):
    text = words(0, 4)
    content = [row(i) for i in range(60)]
    content += [
        {"prompt": f"{text} {name}{i}@example.org {name}{i}@example.org", "completion": "ok", "topic": f"m{i}"}
        for i, name in enumerate(("amelia", "bartholomew", "constantine", "dorothea", "emmanuel", "friederike"))
    ]
    report = divided(content, audit={"private": {"action": "mask"}})
    assert report.verdict is Verdict.OPEN
    assert len({r["split"] for r in table_of(report) if "<email>" in r["messages"]}) == 1


def test_what_a_person_drops_is_not_written_and_comes_back_to_its_side(divided, workspace):
    content = [row(i) for i in range(60)]
    first = places(divided(content))
    id = min(first)
    decide(workspace, divided.recipe.name, {id: ["length"]}, "drop", by="jane", because="it is spam")
    report = divided(content)
    assert id not in places(report) and report.figures["left_out"]["reviews"] == 1
    decide(workspace, divided.recipe.name, {id: ["length"]}, "keep", by="jane", because="it is none")
    assert first.items() < places(divided([*content, row(60)])).items()


def test_preference_pairs_keep_the_answer_that_was_not_preferred(divided):
    content = [
        {"prompt": words(i * 100), "chosen": words(i * 100 + 50), "rejected": f"no {i}", "topic": f"t{i}"}
        for i in range(60)
    ]
    report = divided(content)
    assert all(json.loads(r["rejected"]).startswith("no ") for r in table_of(report))


def test_rows_from_templates_stay_together_while_they_grow(divided):
    """Of many like texts not every pair is known to the splitter: the exact search finds what it needs."""

    def asked(numbers):
        return [
            {"prompt": f"please tell me the status of my order number {n * 7919 % 100_000}", "completion": "on its way"}
            for n in numbers
        ]

    others = [row(i) for i in range(60)]
    for wave in (range(100), range(300)):
        report = divided(
            asked(wave) + others, dataset={"group_by": None}, split={"train": 0.5, "validation": 0.25, "test": 0.25}
        )
        assert report.verdict is Verdict.OPEN
        assert report.figures["rows"][HELD_OUT] == 0


def test_duplicates_by_meaning_on_two_sides_of_given_ones_are_leaks(divided, workspace):
    content = [row(i, part=("train", "validation", "test")[i % 3]) for i in range(60)]
    divided(content, split={"column": "part"})
    recipe, quiet = divided.recipe, Progress(quiet=True)
    corpus, evidence = prepare.prepare(recipe, workspace, quiet), prepare.evidence_of(recipe, workspace, quiet)
    units = np.eye(60, dtype=np.float32)
    units[1], units[6] = units[0], units[3]
    # Of what the audit made of the vectors nothing is used: it may have missed a pair.
    assert len(evidence.edges) == 0
    evidence.__dict__["vectors"] = Vectors(units, np.zeros(60, np.float32))
    meaning = recipe.model_copy(update={"audit": recipe.audit.model_copy(update={"semantic": Semantic()})})
    found = divide(corpus, evidence, meaning, Past(), Outside(), quiet)
    assert found.leaks.counts == {"semantic": 1}
    left, right = found.leaks.of("semantic")
    assert (left.tolist(), right.tolist()) == ([0], [1]) and found.healing == 1


def test_what_means_the_same_as_an_item_of_a_benchmark_is_kept_from_training(divided, tiny_model, tmp_path):
    content = [row(i) for i in range(80)]
    options = {"audit": {"semantic": {"model": str(tiny_model), "threshold": 0.97}}}
    sides = side_of_prompt(divided(content, **options))
    trained = next(r for r in content if sides[r["prompt"]] == "train")
    told = f"{trained['prompt']} {trained['completion']}".split()
    # Every fifth word is another one: no sequence of five is shared.
    told[2::5] = told[0 : len(told[2::5])]
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"question": " ".join(told)}) + "\n")
    report = divided(content, split={"benchmarks": str(tmp_path / "quiz.jsonl")}, **options)
    kept = {prompt for prompt, side in side_of_prompt(report).items() if side == "train"}
    assert trained["prompt"] not in kept and 1 <= report.figures["left_out"]["benchmarks"] < 9


vocabulary = [f"v{i}" for i in range(30)]
examples = st.builds(
    lambda start, length, tail, topic: {
        "prompt": " ".join(vocabulary[start : start + length]),
        "completion": f"answer {tail}",
        "topic": topic,
    },
    st.integers(0, 20),
    st.integers(3, 14),
    st.integers(0, 3),
    st.sampled_from(["", "", "a", "b", "c", "d", "e"]),
)


def held_for_nothing(found, before):
    """Newcomers that are held out though what they reach among newcomers touches old rows of less than two sides."""
    seen, side = found.checked, found.places.side
    everyone = find_leaks(seen.apart(np.arange(seen.rows)), 0.7, 0.8)
    near = set(zip(*(rows.tolist() for rows in everyone.of("near", "containment")), strict=True))
    keys = [seen.keys[kind] for kind in ("text", "group", "prompt")]
    size, old = seen.rows, found.old
    bound = np.zeros((size, size), bool)
    for key in keys:
        bound |= (key[:size, None] == key[None, :size]) & (key[:size, None] != 0)
    # A pair stands for all rows of its texts.
    text = seen.keys["text"][:size]
    for left, right in near:
        bound |= np.outer(text == text[left], text == text[right]) | np.outer(text == text[right], text == text[left])
    component = connected_components(bound & ~old[:, None] & ~old[None, :], directed=False)[1]
    return [
        row
        for row in np.flatnonzero((side == HELD) & ~old)
        if len(set(side[old & bound[component == component[row]].any(axis=0)].tolist()) - {HELD}) < 2
    ]


@given(st.lists(examples, min_size=1, max_size=30), st.lists(examples, max_size=15), st.integers(0, 2**31 - 1))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_for_any_data_seed_and_growth_the_written_rows_leak_nothing_and_nobody_moves(
    tmp_path_factory, recipe_file, workspace, first, more, seed
):
    """From raw rows to the table's rows: the reader, the sketches, the splitter and the check together."""
    folder, quiet = tmp_path_factory.mktemp("growth"), Progress(quiet=True)
    past, before = Past(), {}
    for wave in (first, first + more):
        path = folder / "examples.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in wave))
        recipe = load_recipe(recipe_file(seed=seed, dataset={"source": str(path), "group_by": "topic"}))
        corpus = prepare.prepare(recipe, workspace, quiet)
        evidence = prepare.evidence_of(recipe, workspace, quiet)
        found = divide(corpus, evidence, recipe, past, Outside(), quiet)
        assert found.leaks.counts == {}
        write_table(str(folder / "table"), found.batches(corpus), "policy")
        past = read_past(str(folder / "table"), "policy")
        now = {row["id"]: (row["split"], row["cluster"], row["group"]) for row in past.present.to_pylist()}
        assert held_for_nothing(found, before) == []
        assert {id: now[id] for id in before} == before
        before = now


@given(st.lists(st.tuples(examples, st.sampled_from(SIDES)), min_size=1, max_size=30))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_for_any_given_sides_what_is_healed_leaks_nothing_and_no_test_row_is_lost(
    tmp_path_factory, recipe_file, workspace, given_rows
):
    folder, quiet = tmp_path_factory.mktemp("given"), Progress(quiet=True)
    # Of equal conversations the first of the groups enters: on which side is no question here.
    side_of = {json.dumps([row["prompt"], row["completion"]]): side for row, side in given_rows}
    rows = [row | {"part": side_of[json.dumps([row["prompt"], row["completion"]])]} for row, _ in given_rows]
    (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = {"source": str(folder / "examples.jsonl"), "group_by": "topic"}
    recipe = load_recipe(recipe_file(dataset=dataset, split={"column": "part", "heal": True}))
    corpus = prepare.prepare(recipe, workspace, quiet)
    found = divide(corpus, prepare.evidence_of(recipe, workspace, quiet), recipe, Past(), Outside(), quiet)
    assert found.leaks.counts == {}
    assert found.sizes["test"] == sum(side == "test" for side in side_of.values())
    assert sum(found.sizes.values()) == len(side_of)
    assert found.sizes[HELD_OUT] == found.healing
