import pytest

from cluster.errors import UserError
from pipelines.search.history import History, check_request, fold, open_history, sweeps
from tests.pipelines.search.planted import Story, halving, plan, write


def folded(story):
    return fold(story.sweep, story.events)


@pytest.fixture
def story():
    """A sweep with a trial that has learnt and one that has not."""
    story = Story()
    story.add("opened", **plan())
    story.add("proposed", "trial-1", values={}, origin="default")
    story.add("proposed", "trial-2", values={"lora_r": 8}, origin="search")
    story.rung("trial-1", 8, 2.0)
    return story


def test_a_trial_is_what_its_events_say(story):
    standing = folded(story)
    first, second = standing.trials.values()
    assert (first.step, first.loss, first.state, first.origin) == (8, 2.0, "running", "default")
    assert (second.step, second.loss, second.state, second.seconds) == (0, None, "waiting", 0)
    assert first.loss_at(8) == 2.0 and first.loss_at(16) is None
    assert standing.seconds == 20.0 and standing.rungs == (8, 16, 32)


def test_a_turn_counts_its_seconds_and_no_step(story):
    story.add("turn", "trial-2", began=0.0, seconds=4.0, place="node a, process 1")
    second = folded(story).trials["trial-2"]
    assert (second.state, second.step, second.seconds) == ("running", 0, 4.0)


def test_opened_again_it_goes_on_with_what_it_knew(story):
    story.add("extended", by="jane", num_samples=20)
    story.add("closed", because="all trials have ended")
    assert folded(story).closed == "all trials have ended"
    story.add("opened", **plan(concurrent=2))
    standing = folded(story)
    assert standing.closed == "" and standing.plan["concurrent"] == 2
    # What people added to the budget outlives the driver.
    assert standing.plan["num_samples"] == 20
    assert standing.trials["trial-1"].state == "waiting" and standing.trials["trial-1"].step == 8


def test_extensions_add_up(story):
    story.add("extended", num_samples=20)
    story.add("extended", max_hours=4.0)
    story.add("opened", **plan())
    standing = folded(story)
    assert (standing.plan["num_samples"], standing.plan["max_hours"]) == (20, 4.0)


def test_a_request_is_open_until_it_is_answered(story):
    number = story.add("asked", "trial-1", "jane", action="stop")
    other = story.add("asked", "trial-2", "jane", action="pause")
    assert [request.id for request in folded(story).open_requests] == [number, other]
    story.add("answered", "trial-1", request=number, problem="")
    assert [request.id for request in folded(story).open_requests] == [other]


def test_pauses_ends_and_retries_leave_their_reason(story):
    story.add("paused", "trial-1", "jane")
    assert (folded(story).trials["trial-1"].state, folded(story).trials["trial-1"].because) == (
        "paused",
        "paused by jane",
    )
    story.add("resumed", "trial-1")
    assert folded(story).trials["trial-1"].state == "running"
    story.add("retried", "trial-2", cause="its worker died")
    assert folded(story).trials["trial-2"].retries == 1
    story.add("ended", "trial-2", how="failed", because="out of memory")
    ended = folded(story).trials["trial-2"]
    assert (ended.state, ended.because) == ("failed", "out of memory")


def test_a_resumed_trial_that_never_learnt_waits(story):
    story.add("paused", "trial-2")
    story.add("resumed", "trial-2")
    assert folded(story).trials["trial-2"].state == "waiting"


def test_an_unknown_trial_is_refused_with_the_nearest(story):
    with pytest.raises(UserError, match=r"no trial 'trial-22'; did you mean trial-2\?"):
        folded(story).of("trial-22")


@pytest.mark.parametrize(
    ("before", "action", "trial", "content", "message"),
    [
        ([], "stop", "trial-9", {}, "no trial 'trial-9'"),
        ([("ended", "stopped")], "stop", "trial-1", {}, "has ended: it was slow"),
        ([("ended", "stopped")], "pause", "trial-1", {}, "has ended"),
        ([("paused", "")], "pause", "trial-1", {}, "paused already"),
        ([], "resume", "trial-1", {}, "is running, not paused"),
        ([], "clone", "trial-1", {}, "clone needs values"),
        ([], "clone", "trial-1", {"values": {"lora_r": 8}}, "lora_r would need others"),
        ([], "clone", "trial-2", {"values": {"learning_rate": 1e-4}}, "no weights yet"),
        ([("rung", 32)], "clone", "trial-1", {"values": {"learning_rate": 1e-4}}, "gone all its steps"),
        ([], "add", "", {"values": {}}, "add needs values"),
        ([], "extend", "", {"trials": 0}, "extend needs what to add"),
        ([("closed", "")], "extend", "", {"trials": 3}, "is over: the hours were spent"),
    ],
)
def test_what_the_sweep_cannot_do_is_a_sentence(story, before, action, trial, content, message):
    for kind, how in before:
        match kind:
            case "ended":
                story.add("ended", "trial-1", how=how, because="it was slow")
            case "closed":
                story.add("closed", because="the hours were spent")
            case "rung":
                story.rung("trial-1", how, 1.8)
            case _:
                story.add(kind, "trial-1")
    with pytest.raises(UserError, match=message) as refused:
        check_request(folded(story), action, trial, content)
    assert refused.value.remedy


def test_a_stopped_trial_may_still_be_cloned(story):
    story.add("ended", "trial-1", how="stopped", because="it was slow")
    check_request(folded(story), "clone", "trial-1", {"values": {"learning_rate": 1e-4}})


def test_the_database_gives_back_what_was_written(workspace):
    story = halving()
    history = write(workspace, story)
    assert [(e.kind, e.trial, e.content) for e in history.events()] == [
        (e.kind, e.trial, e.content) for e in story.events
    ]
    assert history.standing().trials == folded(story).trials
    last = history.events()[-1].id
    assert history.events(after=last) == []
    number = history.ask("extend", by="jane", trials=3)
    (asked,) = history.events(after=last)
    assert (asked.id, asked.kind, asked.by, asked.content) == (
        number,
        "asked",
        "jane",
        {"action": "extend", "trials": 3},
    )


def test_what_cannot_be_done_is_not_written(workspace):
    history = write(workspace, halving())
    before = len(history.events())
    with pytest.raises(UserError):
        history.ask("resume", "trial-1")
    assert len(history.events()) == before


def test_histories_do_not_mix_and_the_newest_is_found(workspace):
    with pytest.raises(UserError, match="small has no sweep yet"):
        open_history(workspace, "small")
    write(workspace, halving("small-sweep-a"))
    write(workspace, halving("small-sweep-b", trials=3))
    write(workspace, halving("other-sweep-c"), recipe_name="other")
    assert [entry.sweep for entry in sweeps(workspace, "small")] == ["small-sweep-b", "small-sweep-a"]
    assert open_history(workspace, "small").sweep == "small-sweep-b"
    assert len(open_history(workspace, "small").standing().trials) == 3
    assert len(open_history(workspace, "small", "small-sweep-a").standing().trials) == 12
    with pytest.raises(UserError):
        open_history(workspace, "small", "other-sweep-c")


def test_two_writers_leave_both_their_events(workspace):
    first = write(workspace, halving())
    second = History(workspace, first.sweep, "small")
    before = len(first.events())
    first.ask("extend", by="jane", trials=1)
    second.ask("extend", by="ops", hours=1)
    assert [event.by for event in first.events()[before:]] == ["jane", "ops"]
