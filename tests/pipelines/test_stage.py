"""A stage: evidence before work, the same report for the same inputs, and a stop where evidence is missing."""

from dataclasses import replace

import pytest

from cluster.errors import GateClosed, StageFailed
from pipelines.gates import Gate, Verdict, Waiver, decide
from pipelines.recipe_file import load_recipe
from pipelines.records import now
from pipelines.stage import Outcome, Stage, require


class Bench:
    """Two stages over a value that stands for the data: `sift` decides, `learn` requires it."""

    def __init__(self):
        self.data, self.holds, self.worked = "one", True, []
        self.sift = Stage("sift", "Sifts.", ("data.size",), self.read_data, self.sift_work)
        self.learn = Stage("learn", "Learns.", (), self.read_sift, self.learn_work)

    def read_data(self, recipe, workspace):
        return {"data": self.data, "seed": str(recipe.seed)}

    def sift_work(self, recipe, workspace, progress, fresh):
        self.worked.append(("sift", fresh))
        return Outcome(gates=(decide("data.size", self.holds, "750 of 1000."),), figures={"rows": 750})

    def read_sift(self, recipe, workspace):
        return {"sift": require(self.sift, recipe, workspace).key}

    def learn_work(self, recipe, workspace, progress, fresh):
        self.worked.append(("learn", fresh))
        return Outcome(gates=())


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file())


def test_the_same_inputs_give_the_stored_report_and_no_work(bench, recipe, workspace):
    first = bench.sift.perform(recipe, workspace)
    second = bench.sift.perform(recipe, workspace)
    assert bench.worked == [("sift", False)]
    assert second == first and second.created_at == first.created_at


def test_other_inputs_are_other_work(bench, recipe, workspace):
    first = bench.sift.perform(recipe, workspace)
    bench.data = "two"
    assert bench.sift.perform(recipe, workspace).key != first.key
    assert len(bench.worked) == 2


def test_fresh_does_the_work_again_and_its_report_counts(bench, recipe, workspace):
    bench.sift.perform(recipe, workspace)
    bench.holds = False
    again = bench.sift.perform(recipe, workspace, fresh=True)
    assert bench.worked == [("sift", False), ("sift", True)]
    assert again.verdict is Verdict.CLOSED
    assert workspace.find_report("sift", again.key).verdict is Verdict.CLOSED


def test_a_later_stage_does_not_start_without_a_report_and_names_the_command(bench, recipe, workspace):
    with pytest.raises(GateClosed) as caught:
        bench.learn.perform(recipe, workspace)
    assert "there is no sift report, so data.size stays closed" in caught.value.message
    assert caught.value.remedy == "Run `sluice sift RECIPE` first."
    assert caught.value.exit_code == 3
    assert bench.worked == []


def test_evidence_about_yesterdays_data_opens_no_gate_today(bench, recipe, workspace):
    bench.sift.perform(recipe, workspace)
    bench.data = "one byte more"
    with pytest.raises(GateClosed, match="the last sift report is on other inputs \\(data changed\\)"):
        bench.learn.perform(recipe, workspace)
    assert ("learn", False) not in bench.worked


def test_evidence_for_another_recipe_is_none_for_this_one(bench, recipe, workspace):
    bench.sift.perform(recipe, workspace)
    other = recipe.model_copy(update={"name": "other", "seed": 18})
    with pytest.raises(GateClosed, match="other: there is no sift report"):
        bench.learn.perform(other, workspace)


def test_a_closed_gate_stops_the_next_stage_and_says_how_to_waive_it(bench, recipe, workspace):
    bench.holds = False
    bench.sift.perform(recipe, workspace)
    with pytest.raises(GateClosed) as caught:
        bench.learn.perform(recipe, workspace)
    assert "data.size is closed: 750 of 1000." in caught.value.message
    assert "sluice waive RECIPE data.size" in caught.value.remedy


def test_a_waiver_lets_the_next_stage_start_and_is_seen_in_the_stored_report(bench, recipe, workspace):
    bench.holds = False
    closed = bench.sift.perform(recipe, workspace)
    workspace.save_waiver(Waiver(gate="data.size", report=closed.key, by="Ada", because="pilot", created_at=now()))
    bench.learn.perform(recipe, workspace)
    assert ("learn", False) in bench.worked
    assert bench.sift.perform(recipe, workspace).verdict is Verdict.WAIVED


def test_a_stage_that_fails_leaves_no_report(bench, recipe, workspace):
    def fail(recipe, workspace, progress, fresh):
        raise OSError("disk full")

    broken = Stage("sift", "Sifts.", ("data.size",), bench.read_data, fail)
    with pytest.raises(OSError, match="disk full"):
        broken.perform(recipe, workspace)
    assert workspace.reports() == []


@pytest.mark.parametrize("gates", [(), ("data.size", "data.size"), ("data.other",)])
def test_a_stage_that_does_not_decide_exactly_its_gates_is_our_own_mistake(bench, recipe, workspace, gates):
    outcome = Outcome(gates=tuple(Gate(gate=gate, verdict=Verdict.OPEN, evidence="") for gate in gates))
    careless = Stage("sift", "Sifts.", ("data.size",), bench.read_data, lambda *_: outcome)
    with pytest.raises(AssertionError):
        careless.perform(recipe, workspace)
    assert workspace.reports() == []


def test_the_whole_resolved_recipe_stands_in_the_report(bench, recipe, workspace):
    report = bench.sift.perform(recipe, workspace)
    assert report.recipe == recipe.model_dump(mode="json")
    assert report.recipe["train"]["learning_rate"] is None


def test_work_that_found_other_inputs_than_it_was_started_on_leaves_no_report(bench, recipe, workspace):
    def work(recipe, workspace, progress, fresh):
        bench.data = "two"
        return Outcome(gates=(decide("data.size", True, "All."),), read={"data": bench.data})

    sift = replace(bench.sift, work=work)
    with pytest.raises(StageFailed, match="small: the data changed while sift was reading") as caught:
        sift.perform(recipe, workspace)
    assert caught.value.exit_code == 1
    assert workspace.reports(stage="sift") == []
    # On what is there now the same work is good.
    assert sift.perform(recipe, workspace).verdict is Verdict.OPEN
