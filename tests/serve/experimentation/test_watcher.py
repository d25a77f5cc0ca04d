"""The watcher: what it does at a look, and that killing it, or having two, changes nothing."""

import threading
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import update

from pipelines.records import ExperimentExposureRow, ExperimentRow, now
from pipelines.tracking import deployments, registry
from serve.experimentation import lifecycle
from serve.experimentation.evidence import how_counted
from serve.experimentation.look import evidence_of, look
from serve.experimentation.reading import looks, standing
from serve.experimentation.watcher import Watcher, watch_once
from tests.serve.experimentation.conftest import happened
from tests.waiting import until


def traffic(workspace):
    return deployments.traffic_of(deployments.current(workspace, "small"))


def set_back(workspace, row, **moments):
    """Let the experiment have begun, or been covered, so long ago."""
    with workspace.session() as session:
        session.execute(update(ExperimentRow).where(ExperimentRow.id == row.id).values(**moments))


def test_without_an_experiment_there_is_nothing_to_see(workspace):
    assert watch_once(workspace, "small") is None


def test_a_harmful_arm_is_rolled_back_with_its_evidence(started, users, workspace):
    row = started()
    users(row, base=(400, 0.5), tuned=(400, 0.5), failed=("tuned",))
    seen = watch_once(workspace, "small")
    assert "base serves everyone" in seen.did and "requests.failed" in seen.did
    ended = lifecycle.latest(workspace, "small")
    assert (ended.state, ended.outcome, ended.live) == ("ended", "harm", None)
    now_served = deployments.current(workspace, "small")
    assert (now_served.action, traffic(workspace)) == ("rollback", {"base": 1.0})
    assert now_served.by == "sluice watcher"
    assert now_served.content["experiment"]["evidence"]["outcome"] == "harm"
    assert watch_once(workspace, "small") is None


def test_a_worse_arm_is_put_away_and_a_better_one_waits_for_a_person(started, users, workspace):
    users(started(), base=(800, 0.12), tuned=(800, 0.05))
    assert watch_once(workspace, "small").evidence["outcome"] == "worse"
    assert traffic(workspace) == {"base": 1.0}
    users(started(), base=(800, 0.05), tuned=(800, 0.12))
    seen = watch_once(workspace, "small")
    assert seen.evidence["outcome"] == "better" and not seen.did
    assert lifecycle.live(workspace, "small").state == "running"


def test_on_better_promote_sends_everyone_to_it(started, users, workspace):
    users(started(on_better="promote"), base=(1000, 0.02), tuned=(1000, 0.07))
    assert "tuned serves everyone" in watch_once(workspace, "small").did
    served = deployments.current(workspace, "small")
    assert (served.action, traffic(workspace)) == ("promote", {"tuned": 1.0})


@pytest.mark.parametrize(("margin", "outcome"), [(0.1, "non_inferior"), (0.001, "no_verdict")])
def test_an_end_without_a_difference_ships_nothing(started, users, workspace, margin, outcome):
    row = started(primary={"metric": "event.resolved", "margin": margin})
    users(row, base=(1000, 0.05), tuned=(1000, 0.05))
    watch_once(workspace, "small")
    assert lifecycle.latest(workspace, "small").outcome == outcome and traffic(workspace) == {"base": 1.0}


def test_what_units_did_before_the_start_is_taken_off_and_shows_more(started, workspace):
    minutes = {"metric": "event.minutes", "per_unit": "sum", "higher_is_better": False}

    def outcome(**changes):
        row = started(primary=minutes, guardrails=[], **changes)
        draw = np.random.default_rng(5)
        with workspace.session() as session:
            for number, habit in enumerate(draw.normal(60, 20, 400)):
                arm, unit = ("base", "tuned")[number % 2], f"{row.id}-{number}"
                at = row.created_at + timedelta(seconds=1)
                session.add(ExperimentExposureRow(experiment_id=row.id, unit=unit, arm=arm, created_at=at))
                since = habit + draw.normal(0, 5) - 4 * (arm == "tuned")
                session.add(happened(row, unit, "minutes", habit, row.created_at - timedelta(days=3)))
                session.add(happened(row, unit, "minutes", since, at + timedelta(minutes=1)))
        seen = watch_once(workspace, "small").evidence
        lifecycle.stop(workspace, "small", "ada", "it was a test")
        return seen

    plain, adjusted = outcome(), outcome(before_days=7)
    assert plain["outcome"] == "undecided" and plain["explained"] is None
    assert adjusted["outcome"] == "better" and adjusted["explained"] == pytest.approx(16 / 17, abs=0.02)
    figures = [seen["metrics"][0] for seen in (plain, adjusted)]
    assert figures[1]["high"] - figures[1]["low"] < 0.4 * (figures[0]["high"] - figures[0]["low"])
    # What people see of the arms is what they did.
    assert figures[1]["means"].keys() == {"base", "tuned"} and figures[1]["difference"] == pytest.approx(-4, abs=1.5)


def test_of_few_units_a_large_difference_is_found_once_their_hours_are_over(started, workspace):
    flags = {"metric": "event.flagged", "higher_is_better": False, "margin": 0.6}
    row = started(primary={"metric": "event.resolved"}, guardrails=[flags], planned_units=40, settle_hours=1)
    with workspace.session() as session:
        for number in range(32):
            arm, unit, at = ("base", "tuned")[number % 2], f"unit-{number}", row.created_at + timedelta(seconds=number)
            session.add(ExperimentExposureRow(experiment_id=row.id, unit=unit, arm=arm, created_at=at))
            if (arm == "tuned") != (number % 16 < 2):
                session.add(happened(row, unit, "resolved", 1.0, at + timedelta(minutes=5)))
    assert look(workspace, row).verdict.outcome == "undecided"
    seen = look(workspace, row, row.created_at + timedelta(hours=2))
    assert seen.verdict.outcome == "better" and seen.verdict.primary.p < 0.05
    assert (seen.verdict.primary.control_n, seen.exposures) == (16, {"base": 16, "tuned": 16})
    assert "safe test" in how_counted(standing(workspace, "small")["experiment"], evidence_of(seen))


def test_a_wrong_sample_ratio_blocks_even_a_clear_difference(started, users, workspace):
    users(started(on_better="promote"), base=(1000, 0.02), tuned=(750, 0.09))
    seen = watch_once(workspace, "small")
    assert seen.evidence["outcome"] == "blocked" and not seen.did
    assert seen.evidence["sample_ratio"]["mismatch"] and traffic(workspace) is None


def test_time_that_is_over_ends_it_whatever_is_in(started, users, workspace):
    row = started(max_days=10)
    users(row, base=(30, 0.1), tuned=(30, 0.1))
    assert not watch_once(workspace, "small").did
    set_back(workspace, row, created_at=now() - timedelta(days=11))
    watch_once(workspace, "small")
    assert lifecycle.latest(workspace, "small").outcome == "no_verdict" and traffic(workspace) == {"base": 1.0}


def test_the_ramp_goes_up_only_after_its_hours_and_not_while_it_is_paused(started, users, workspace):
    row = started(ramp=[0.1, 0.5], ramp_hours=2)
    users(row, base=(50, 0.1), tuned=(50, 0.1))
    assert not watch_once(workspace, "small").did
    set_back(workspace, row, covered_at=now() - timedelta(hours=3))
    lifecycle.pause(workspace, "small", "ada", "an incident")
    assert not watch_once(workspace, "small").did
    lifecycle.resume(workspace, "small", "ada", "over")
    assert "covers 50%" in watch_once(workspace, "small").did
    # Each coverage lasts its hours anew.
    assert not watch_once(workspace, "small").did
    set_back(workspace, row, covered_at=now() - timedelta(hours=3))
    watch_once(workspace, "small")
    assert lifecycle.live(workspace, "small").coverage == 1.0


def test_another_model_in_production_ends_it_and_switches_nothing(started, users, workspace, deployed):
    users(started(), base=(400, 0.5), tuned=(400, 0.5), failed=("tuned",))
    promoted = deployed(2)
    assert "no longer in production" in watch_once(workspace, "small").did
    assert lifecycle.latest(workspace, "small").outcome == "superseded"
    assert deployments.current(workspace, "small").id == promoted.id


def test_looks_are_kept_when_they_show_something_new_and_an_end_stands(started, users, workspace):
    row = started()
    for _ in range(3):
        watch_once(workspace, "small")
    assert [look["units"] for look in looks(workspace, row.id)] == [0]
    users(row, base=(200, 0.1), tuned=(200, 0.1))
    watch_once(workspace, "small")
    watch_once(workspace, "small")
    assert [look["units"] for look in looks(workspace, row.id)] == [0, 400]
    users(row, event="more", base=(200, 0.0), tuned=(200, 0.0), failed=("tuned",))
    watch_once(workspace, "small")
    decided = standing(workspace, "small")["look"]
    assert decided["outcome"] == "harm"
    with workspace.session() as session:
        late = ExperimentExposureRow(experiment_id=row.id, unit="late", arm="base", created_at=row.created_at)
        session.add(late)
    assert standing(workspace, "small")["look"] == decided


def test_two_watchers_and_a_person_end_it_once(started, users, workspace):
    row = started()
    users(row, base=(400, 0.5), tuned=(400, 0.5), failed=("tuned",))
    threads = [threading.Thread(target=watch_once, args=(workspace, "small")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(deployments.history(workspace, "small")) == 2
    assert [event.action for event in lifecycle.events_of(workspace, row.id)].count("end") == 1


def test_the_alias_follows_the_log_also_after_the_registry_was_away(deployed, started, workspace, monkeypatch):
    deployed(1, registered=True)
    started()
    lifecycle.stop(workspace, "small", "ada", "not this one")
    away = [True]
    real = registry.champion

    def champion(*arguments):
        if away.pop() if away else False:
            raise OSError("the registry is away")
        return real(*arguments)

    monkeypatch.setattr(registry, "champion", champion)
    watcher = Watcher(workspace.settings, "small", every_s=0.05)
    try:
        until(lambda: real(workspace.settings, "small") is None, "the alias")
    finally:
        watcher.close()
    assert not away, "the registry was asked before, and was away"
    served = deployments.current(workspace, "small")
    assert deployments.champion_of(served) is None
    lifecycle.promote(workspace, "small", "ada", "a second thought")
    deployments.follow_alias(workspace, "small")
    assert real(workspace.settings, "small") == "1"
