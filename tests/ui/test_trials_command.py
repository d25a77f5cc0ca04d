"""`sluice trials`: what people see of a sweep and ask of it."""

import json
import threading

import pytest

from tests.pipelines.search.planted import halving, write
from tests.waiting import until
from ui import cli


@pytest.fixture
def history(workspace):
    return write(workspace, halving(until=8))


@pytest.fixture
def run(capsys):
    """`run(*arguments) -> (exit code, what was printed, what was said beside it)`."""

    def perform(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["trials", *map(str, arguments)])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return perform


@pytest.fixture
def driver(history):
    """A driver that answers the next request as `answer(request)` says."""
    threads = []

    def start(answer=lambda request: ""):
        def drive():
            (request,) = until(lambda: history.standing().open_requests, "a request")
            history.add("answered", request.trial, request=request.id, problem=answer(request))

        threads.append(threading.Thread(target=drive))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(30)


def asked(history):
    return [event for event in history.events() if event.kind == "asked"]


def test_trials_are_listed_with_what_they_came_to(history, recipe_file, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    history.add("ended", "trial-3", how="stopped", because="place 9 of 12 at step 8, 6 went on")
    code, printed, _ = run("list", recipe_file())
    assert code == 0
    row = next(line for line in printed.splitlines() if "trial-3 " in line)
    assert "stopped" in row and "place 9 of 12" in row and "learning_rate" in row
    assert "the recipe's own values" in printed and "leads (*)" in printed and "of 2 h" in printed


def test_the_list_as_json_has_every_figure(history, recipe_file, run):
    code, printed, _ = run("list", recipe_file(), "--json")
    listed = json.loads(printed)
    assert code == 0 and listed["sweep"] == history.sweep and len(listed["trials"]) == 12
    assert {"trial", "state", "step", "loss", "values", "origin", "parent", "seconds", "cost", "because"} <= set(
        listed["trials"][0]
    )


def test_an_older_sweep_is_named(workspace, history, recipe_file, run):
    write(workspace, halving("small-sweep-newer", trials=3))
    assert len(json.loads(run("list", recipe_file(), "--json")[1])["trials"]) == 3
    named = run("list", recipe_file(), "--sweep", history.sweep, "--json")
    assert len(json.loads(named[1])["trials"]) == 12


def test_a_recipe_that_never_swept_is_a_sentence(workspace, recipe_file, run):
    code, _, said = run("list", recipe_file())
    assert code == 2 and "small has no sweep yet" in said and "sluice sweep RECIPE" in said


@pytest.mark.parametrize("action", ["stop", "pause"])
def test_the_drivers_answer_is_a_sentence(history, recipe_file, run, driver, action):
    driver()
    code, printed, _ = run(action, recipe_file(), "trial-1", "--by", "jane")
    assert code == 0 and printed == f"{action} trial-1: done.\n"
    (event,) = asked(history)
    assert (event.trial, event.by, event.content) == ("trial-1", "jane", {"action": action})


def test_a_refusal_by_the_driver_is_told_and_exits_2(history, recipe_file, run, driver):
    driver(lambda request: "It ended a moment ago.")
    code, printed, _ = run("stop", recipe_file(), "trial-1", "--by", "jane")
    assert code == 2 and "not done. It ended a moment ago." in printed


def test_where_no_driver_answers_the_request_waits(history, recipe_file, run):
    code, printed, _ = run("stop", recipe_file(), "trial-1", "--by", "jane", "--wait", 0)
    assert code == 0 and "waits for the driver" in printed and "stays in the history" in printed
    assert history.standing().open_requests
    code, printed, _ = run("pause", recipe_file(), "trial-1", "--by", "jane", "--wait", 0, "--json")
    assert code == 0 and json.loads(printed)["answered"] is False


def test_a_clone_names_what_differs(history, recipe_file, run):
    code, _, _ = run("clone", recipe_file(), "trial-2", "learning_rate=3e-4", "--by", "jane", "--wait", 0)
    assert code == 0
    (event,) = asked(history)
    assert event.content == {"action": "clone", "values": {"learning_rate": 3e-4}}


def test_a_trial_of_ones_own_is_added_and_the_budget_extended(history, recipe_file, run):
    assert run("add", recipe_file(), "learning_rate=1e-4", "lora_r=64", "--by", "jane", "--wait", 0)[0] == 0
    assert run("extend", recipe_file(), "--trials", 4, "--hours", 1.5, "--by", "jane", "--wait", 0)[0] == 0
    added, extended = asked(history)
    assert added.content["values"] == {"learning_rate": 1e-4, "lora_r": 64}
    assert extended.content == {"action": "extend", "trials": 4, "hours": 1.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "eval_steps=3"), "cannot differ between trials: trials are validated at the rungs"),
        (("add", "learning_rate=-1"), "learning_rate: input should be greater than 0"),
        (("add", "lerning_rate=1"), "did you mean learning_rate"),
        (("add", "learning_rate"), "sets nothing"),
        (("clone", "trial-2", "lora_r=64"), "lora_r would need others"),
        (("clone", "trial-99", "learning_rate=1e-4"), "no trial 'trial-99'"),
        (("resume", "trial-1"), "not paused"),
        (("extend",), "extend needs what to add"),
    ],
)
def test_what_cannot_be_done_is_refused_before_it_is_asked(history, recipe_file, run, arguments, message):
    action, *rest = arguments
    code, _, said = run(action, recipe_file(), *rest, "--by", "jane", "--wait", 0)
    assert code == 2 and message in said and "Traceback" not in said
    assert asked(history) == []


def test_nobody_asks_without_a_name(history, recipe_file, run):
    code, _, said = run("stop", recipe_file(), "trial-1", "--wait", 0)
    assert code == 2 and "--by is empty" in said and asked(history) == []


def test_the_history_is_a_line_for_each_event(history, recipe_file, run):
    history.ask("stop", "trial-1", by="jane")
    code, printed, _ = run("history", recipe_file())
    lines = printed.splitlines()
    assert code == 0 and len(lines) == len(history.events())
    assert "opened: 12 trials" in lines[0] and "asked to stop, by jane" in lines[-1]
    assert any("step 8: validation loss" in line for line in lines)
    assert len(json.loads(run("history", recipe_file(), "--json")[1])) == len(lines)


def test_what_others_wrote_moves_no_terminal(history, recipe_file, run):
    history.add("ended", "trial-1", how="failed", because="\x1b[31mred\x1b[0m")
    for command in ("list", "history"):
        assert "\x1b[31m" not in run(command, recipe_file())[1]
