"""Experiments from start to end: one at a time, and the end is the switch."""

import threading

import pytest

from cluster.errors import GateClosed, UserError
from pipelines.recipe_file import load_recipe
from pipelines.rollback import rollback
from pipelines.tracking import deployments
from serve.experimentation import lifecycle
from tests.serve.experimentation.conftest import DESIGN


def actions(workspace, row):
    return [event.action for event in lifecycle.events_of(workspace, row.id)]


def test_a_start_fixes_the_design_and_is_recorded(started, workspace):
    row = started(ramp=[0.1])
    assert (row.state, row.planned, row.coverage, row.model_version) == ("running", 2000, 0.1, "1")
    assert lifecycle.section_of(row).coverages == (0.1, 1.0)
    (event,) = lifecycle.events_of(workspace, row.id)
    assert (event.action, event.by, event.content) == ("start", "ada", {"planned": 2000, "coverage": 0.1})


def test_an_effect_becomes_planned_units(started):
    row = started(planned_units=None, effect={"baseline": 0.02, "difference": 0.05})
    assert row.planned == 880


def test_a_recipe_has_one_experiment_at_a_time_and_another_seed_for_the_next(started, workspace):
    first = started()
    with pytest.raises(UserError, match=f"experiment {first.id} runs already"):
        started()
    lifecycle.stop(workspace, "small", "ada", "the wrong metric")
    assert started().seed != first.seed


def test_two_who_start_at_once_start_one(started, workspace, recipe_file):
    started()
    lifecycle.stop(workspace, "small", "ada", "again")
    recipe, told = load_recipe(recipe_file(experiment=DESIGN)), []

    def start():
        try:
            told.append(lifecycle.start(workspace, recipe, "ada"))
        except UserError as error:
            told.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(one, UserError) for one in told) == 3


def test_what_cannot_decide_does_not_start(started, workspace):
    with pytest.raises(UserError, match="150 planned units are fewer than the 1000 of any verdict"):
        started(planned_units=150, weights={"base": 9, "tuned": 1})
    assert lifecycle.live(workspace, "small") is None


def test_nothing_is_tried_that_is_not_in_production(workspace, recipe_file):
    with pytest.raises(GateClosed, match="nothing is promoted"):
        lifecycle.start(workspace, load_recipe(recipe_file(experiment=DESIGN)), "ada")
    with pytest.raises(UserError, match="describes no experiment"):
        lifecycle.start(workspace, load_recipe(recipe_file()), "ada")


def test_pause_and_resume_are_recorded_and_need_a_reason(started, workspace):
    row = started()
    with pytest.raises(UserError, match="needs the reason"):
        lifecycle.pause(workspace, "small", "ada", " ")
    assert lifecycle.pause(workspace, "small", "ada", "an incident").state == "paused"
    with pytest.raises(UserError, match="is paused already"):
        lifecycle.pause(workspace, "small", "ada", "again")
    assert lifecycle.resume(workspace, "small", "ada", "it is over").state == "running"
    assert actions(workspace, row) == ["start", "pause", "resume"]


def test_a_coverage_only_grows(started, workspace):
    row = started(ramp=[0.1])
    assert lifecycle.cover(workspace, row, 0.5, "ada")
    assert not lifecycle.cover(workspace, row, 0.2, "ada")
    assert lifecycle.latest(workspace, "small").coverage == 0.5
    with pytest.raises(UserError, match="The coverage is 1"):
        lifecycle.cover(workspace, row, 1.5, "ada")


def test_a_stop_sends_everyone_to_the_control_in_one_transaction(started, workspace):
    row = started()
    lifecycle.stop(workspace, "small", "ada", "the wrong metric")
    assert lifecycle.latest(workspace, "small").outcome == "stopped"
    now = deployments.current(workspace, "small")
    assert (now.action, now.model_version, deployments.traffic_of(now)) == ("rollback", "1", {"base": 1.0})
    assert now.content["experiment"]["experiment"] == row.id and now.content["experiment"]["because"]
    assert deployments.champion_of(now) is None


def test_of_two_who_end_an_experiment_one_switches(started, workspace):
    row, switched = started(), []

    def end(champion):
        try:
            switched.append(lifecycle.end(workspace, row, "stopped", by="ada", because="enough", champion=champion))
        except UserError as error:
            assert "has ended meanwhile" in error.message

    threads = [threading.Thread(target=end, args=(arm,)) for arm in ("base", "tuned", "base", "tuned")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(switched) == 1
    assert len(deployments.history(workspace, "small")) == 2
    assert actions(workspace, row).count("end") == 1


def test_nothing_is_switched_when_the_deployment_cannot_be_written(started, workspace, monkeypatch):
    row = started()

    def fail(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr(deployments, "switch_traffic", fail)
    with pytest.raises(OSError, match="disk is full"):
        lifecycle.stop(workspace, "small", "ada", "enough")
    assert lifecycle.live(workspace, "small").id == row.id and actions(workspace, row) == ["start"]


def test_what_is_not_better_is_promoted_only_for_a_reason_that_is_kept(started, workspace):
    row = started()
    with pytest.raises(GateClosed, match=r"experiment\.verdict: too little is in"):
        lifecycle.promote(workspace, "small", "ada")
    made = lifecycle.promote(workspace, "small", "ada", "the contract asks for it")
    assert (made.action, deployments.traffic_of(made)) == ("promote", {"tuned": 1.0})
    note = made.content["experiment"]
    assert note["because"] == "the contract asks for it" and note["evidence"]["outcome"] == "undecided"
    assert note["evidence"]["exposures"] == {}
    assert lifecycle.latest(workspace, "small").outcome == "promoted"
    assert row.id == note["experiment"]


def test_what_is_better_is_promoted_on_its_evidence(started, workspace, users):
    row = started()
    users(row, base=(1000, 0.02), tuned=(1000, 0.07))
    made = lifecycle.promote(workspace, "small", "ada")
    assert made.content["experiment"]["evidence"]["outcome"] == "better"
    assert made.content["experiment"]["evidence"]["exposures"] == {"base": 1000, "tuned": 1000}
    assert lifecycle.latest(workspace, "small").outcome == "better"


def test_an_experiment_that_ended_without_a_promotion_can_be_promoted_later(started, workspace, users):
    row = started()
    users(row, base=(1000, 0.05), tuned=(1000, 0.05))
    lifecycle.end(workspace, row, "no_verdict", by="watcher", because="nothing shown", champion="base")
    with pytest.raises(GateClosed):
        lifecycle.promote(workspace, "small", "ada")
    lifecycle.promote(workspace, "small", "ada", "cheaper to run")
    assert deployments.traffic_of(deployments.current(workspace, "small")) == {"tuned": 1.0}
    assert actions(workspace, row) == ["start", "end", "promote"]


def test_the_model_of_another_deployment_is_not_promoted(started, workspace, deployed):
    started()
    deployed(2)
    with pytest.raises(UserError, match="deployment 1, which it tried, is no longer in production"):
        lifecycle.promote(workspace, "small", "ada", "all the same")
    # Nor does its end touch what was promoted meanwhile.
    assert lifecycle.stop(workspace, "small", "ada", "not this one") is None
    served = deployments.current(workspace, "small")
    assert (served.model_version, deployments.traffic_of(served)) == ("2", None)


def test_a_second_click_promotes_once_and_one_that_comes_too_late_not_at_all(started, workspace, users, monkeypatch):
    from serve.experimentation import look

    row = started()
    users(row, base=(1000, 0.02), tuned=(1000, 0.07))
    real = look.look

    def harmed_meanwhile(*arguments):
        seen = real(*arguments)
        lifecycle.end(workspace, row, "harm", by="watcher", because="failures", champion="base")
        return seen

    monkeypatch.setattr(look, "look", harmed_meanwhile)
    with pytest.raises(UserError, match="has ended meanwhile"):
        lifecycle.promote(workspace, "small", "ada")
    monkeypatch.undo()
    assert deployments.traffic_of(deployments.current(workspace, "small")) == {"base": 1.0}
    first = lifecycle.promote(workspace, "small", "ada", "it was a false alarm")
    assert lifecycle.promote(workspace, "small", "ada", "it was a false alarm").id == first.id


def test_a_rollback_after_a_harmful_experiment_goes_back_and_never_to_what_harmed(
    started, workspace, deployed, monkeypatch
):
    from pipelines.tracking import lineage

    monkeypatch.setattr(lineage, "model_problem", lambda *_: "")
    # No registry knows these models.
    monkeypatch.setattr(deployments, "follow_alias", lambda *_: None)
    started()
    lifecycle.stop(workspace, "small", "ada", "not this one")
    deployed(2)
    row = started()
    lifecycle.end(workspace, row, "harm", by="watcher", because="failures", champion="base")
    back = rollback(workspace, "small", None, "ada", "before both")
    # Version 1 had been put back to its base: that is what comes again, and nothing before it.
    assert (back.model_version, deployments.traffic_of(back)) == ("1", {"base": 1.0})
    with pytest.raises(UserError, match="nothing before version 1"):
        rollback(workspace, "small", None, "ada", "and before that")


def test_a_rollback_ends_what_runs(started, workspace, deployed, monkeypatch):
    from pipelines.tracking import lineage
    from serve.experimentation.watcher import watch_once
    from serve.traffic import read_traffic

    monkeypatch.setattr(lineage, "model_problem", lambda *_: "")
    # No registry knows these models.
    monkeypatch.setattr(deployments, "follow_alias", lambda *_: None)
    deployed(2)
    started()
    assert read_traffic(workspace, "small").experiment
    rollback(workspace, "small", 1, "ada", "a person saw it")
    assert read_traffic(workspace, "small").experiment is None
    assert "no longer in production" in watch_once(workspace, "small").did
