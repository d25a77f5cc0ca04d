"""`sluice split`: sides that share nothing, whatever comes later."""

import json

import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import GateClosed, StageFailed, UserError
from pipelines import audit, split
from pipelines.data import read, splitting
from pipelines.data.example import Example
from pipelines.data.splitting import HELD_OUT, SIDES, Place
from pipelines.data.table import make_table, read_past, read_side, read_version, table_fingerprint
from pipelines.gates import Verdict
from pipelines.recipe import Recipe
from pipelines.recipe_file import load_recipe


def turns_of(messages):
    return json.loads(messages)


def words(start, count=12):
    return " ".join(f"w{start + i}" for i in range(count))


def row(number, topic=None):
    """An example that is like no other number's."""
    return {"prompt": words(number * 100), "completion": words(number * 100 + 50), "topic": topic or f"t{number}"}


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
        sections.setdefault("audit", {"min_examples": 1, "max_duplicate_share": 1})
        recipe = load_recipe(recipe_file(**sections))
        audit.STAGE.perform(recipe, workspace)
        return split.STAGE.perform(recipe, workspace, fresh=fresh)

    return perform


def places(report):
    table = read_version(report.produced["table"], int(report.produced["version"]))
    return {row["id"]: (row["split"], row["cluster"]) for row in table.to_pylist()}


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
    table = read_version(report.produced["table"], int(report.produced["version"])).to_pylist()
    for topic in range(20):
        assert len({r["split"] for r in table if r["group"] == f"t{topic}"}) == 1
    assert len({(r["split"], r["cluster"]) for r in table if r["group"] == "t500"}) == 1
    assert len({r["cluster"] for r in table}) == 81


@pytest.mark.parametrize("other", [None, "model:gpt"])
def test_of_equal_examples_the_one_by_a_person_stays_unless_its_group_is_new(other):
    by_machine = Example("id", "[]", "a", "web", None, other, None, "{}", "f", 1)
    by_zoe = Example("id", "[]", "b", "web", None, "zoe", None, "{}", "f", 2)
    for rows in ([by_machine, by_zoe], [by_zoe, by_machine]):
        assert split.once_each(rows, {}) == split.once_each(rows, {"id": "b"}) == [by_zoe]
        # Whoever wrote it, an example that has its place stays in its group.
        assert split.once_each(rows, {"id": "a"}) == [by_machine]


def test_data_that_change_while_they_are_read_enter_no_table(divided, workspace, tmp_path, monkeypatch):
    read_rows, stored = read.raw_rows, divided([row(i) for i in range(60)])

    def rows_of_a_file_that_grows(file):
        yield from read_rows(file)
        with (tmp_path / "examples.jsonl").open("a") as stream:
            stream.write(json.dumps(row(100)) + "\n")

    with monkeypatch.context() as patched:
        patched.setattr(read, "raw_rows", rows_of_a_file_that_grows)
        with pytest.raises(StageFailed, match="the dataset changed while split was reading"):
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


def test_what_was_there_before_a_fresh_start_has_no_old_side(divided, workspace):
    everything = [row(i) for i in range(60)]
    report = divided(everything)
    fresh = divided(everything[:30], fresh=True)
    past = read_past(fresh.produced["table"], split.policy_of(Recipe.model_validate(fresh.recipe)))
    assert len(past.history.present) == 30 and past.history.gone == {}
    assert report.produced["version"] == "0" and fresh.produced["version"] == "1"


def test_a_newcomer_that_would_join_two_sides_is_held_out_and_read_by_no_side(divided):
    content = [row(i) for i in range(60)]
    report = divided(content)
    by_prompt = {
        turns_of(r["messages"])[0]["content"]: r["split"] for r in read_version(report.produced["table"], 0).to_pylist()
    }
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
    assert "split.started_over" in {finding.code for finding in report.findings}


def test_a_group_renamed_onto_another_side_closes_the_gate_and_fresh_opens_it(divided):
    content = [row(i) for i in range(60)]
    report = divided(content)
    table = read_version(report.produced["table"], 0).to_pylist()
    one = next(r["group"] for r in table if r["split"] == "train")
    other = next(r["group"] for r in table if r["split"] == "test")
    renamed = [r | {"topic": one} if r["topic"] == other else r for r in content]
    closed = divided(renamed)
    assert closed.verdict is Verdict.CLOSED
    leak = next(f for f in closed.findings if f.code == "split.leakage.group")
    assert leak.count == 1 and {"left", "right", "left_text"} <= set(leak.samples[0])
    assert divided(renamed, fresh=True).verdict is Verdict.OPEN


def test_a_split_by_a_wrong_assignment_is_caught_and_its_pairs_are_listed(divided, monkeypatch):
    """The check does not believe the splitter: here it puts each example on a side of its own."""
    right = splitting.assign

    def wrong(items, *arguments):
        right(items, *arguments)
        return {item.id: Place(item.id, SIDES[number % 3]) for number, item in enumerate(items)}

    monkeypatch.setattr(split, "assign", wrong)
    near = row(500)
    content = [
        near,
        near | {"completion": near["completion"] + " end"},
        *(row(i, topic=f"t{i % 5}") for i in range(30)),
    ]
    report = divided(content)
    assert report.verdict is Verdict.CLOSED
    assert {f.code for f in report.findings} >= {"split.leakage.group", "split.leakage.near"}


def test_near_duplicates_that_the_sketches_miss_are_found_and_kept_together(divided, monkeypatch):
    from pipelines.data import survey

    monkeypatch.setattr(survey, "near_duplicate_pairs", lambda texts, threshold: [])
    content = [row(i) for i in range(60)]
    content += [r | {"completion": r["completion"] + " end", "topic": f"copy {r['topic']}"} for r in content]
    report = divided(content)
    assert report.figures["near_duplicates_missed_by_sketches"] > 0
    assert report.verdict is Verdict.OPEN


def test_a_side_without_examples_is_refused_with_what_to_do(divided):
    with pytest.raises(UserError, match="no example falls on the side") as caught:
        divided([row(i, topic="one") for i in range(20)])
    assert "Group by something finer" in str(caught.value)


def test_a_table_that_was_tampered_with_is_not_read(divided, workspace):
    report = divided([row(i) for i in range(60)])
    stored = report.model_copy(update={"produced": report.produced | {"split": "0" * 64}})
    with pytest.raises(UserError, match="is not what the split left"):
        read_side(stored, "train")
    gone = report.model_copy(update={"produced": report.produced | {"version": "7"}})
    with pytest.raises(UserError, match="version 7 of the split cannot be read"):
        read_side(gone, "train")


def test_a_later_version_changes_nothing_for_who_reads_the_earlier(divided):
    first = divided([row(i) for i in range(60)])
    before = read_side(first, "train")
    divided([row(i) for i in range(90)])
    assert read_side(first, "train").equals(before)


def test_coarse_shares_are_told(divided):
    content = [row(i, topic="large" if i < 50 else None) for i in range(90)]
    report = divided(content)
    assert "split.shares" in {finding.code for finding in report.findings}
    assert report.figures["wanted_shares"] == {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_rows_from_templates_stay_together_while_they_grow(recipe_file, tmp_path):
    """Of many like texts not every pair is known to the splitter: the exact search finds what it needs."""
    from pipelines.data.read import read_examples

    def asked(numbers):
        return [
            {"prompt": f"please tell me the status of my order number {n * 7919 % 100_000}", "completion": "on its way"}
            for n in numbers
        ]

    history = splitting.History()
    for wave in (asked(range(100)) + [row(i) for i in range(20)], asked(range(300)) + [row(i) for i in range(20)]):
        path = tmp_path / "examples.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in wave))
        recipe = load_recipe(recipe_file())
        examples = split.once_each(read_examples(recipe).examples, {})
        division = split.divide(examples, recipe, history)
        assert split.verify(make_table(examples, division.places), recipe) == []
        assert division.rows[HELD_OUT] == 0
        history = splitting.History(division.places)


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


@given(st.lists(examples, min_size=1, max_size=40), st.lists(examples, max_size=20), st.integers(0, 2**31 - 1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_for_any_data_seed_and_growth_the_written_rows_leak_nothing_and_nobody_moves(
    tmp_path_factory, recipe_file, first, more, seed
):
    """From raw rows to the table's rows: the reader, the sketches, the splitter and the check together."""
    from pipelines.data.read import read_examples

    folder = tmp_path_factory.mktemp("growth")
    history, before = splitting.History(), {}
    for wave in (first, first + more):
        path = folder / "examples.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in wave))
        recipe = load_recipe(recipe_file(seed=seed, dataset={"source": str(path), "group_by": "topic"}))
        unique = split.once_each(read_examples(recipe).examples, {id: group for id, (_, group) in before.items()})
        division = split.divide(unique, recipe, history)
        table = make_table(unique, division.places)
        assert split.verify(table, recipe) == []
        assert table_fingerprint(table) == table_fingerprint(table.take(list(range(len(table)))[::-1]))
        now = {example.id: (division.places[example.id], example.group) for example in unique}
        assert {id: now[id] for id in before} == before
        before, history = now, splitting.History(division.places)
