import pytest

from pipelines.recipe import Recipe, Train
from tests.pipelines.search.planted import halving, plan, write
from tests.ui.panel import seed
from ui.panel import sweeps_backend

NAME = "docstrings-sweep-4f3ac21b"


@pytest.fixture
def history(workspace):
    return write(workspace, halving(NAME, until=8), "docstrings")


@pytest.fixture
def answers_nobody(monkeypatch):
    monkeypatch.setattr(sweeps_backend, "WAIT_S", 0)


def test_a_sweep_is_read_with_all_its_figures(history):
    view = sweeps_backend.sweep(NAME).value
    assert view.recipe_name == "docstrings" and view.leader.trial == "trial-9" and view.gain.difference < 0
    assert view.states == {"running": 12} and view.compared.step == 8 and not view.importance.because
    assert view.values["trial-2"]["lora_r"] == 8 and view.interval is None


def test_what_has_not_changed_is_not_computed_again_and_what_has_is(history):
    first = sweeps_backend.sweep(NAME).value
    assert sweeps_backend.sweep(NAME).value is first
    history.ask("stop", "trial-1", by="jane")
    assert len(sweeps_backend.sweep(NAME).value.requests) == 1


def test_an_unknown_sweep_is_nothing_and_no_problem(history):
    known = sweeps_backend.sweep("other")
    assert known.value is None and known.problem is None


def test_the_list_tells_which_go_on(workspace, history):
    story = halving("docstrings-sweep-old")
    story.add("closed", because="all trials have ended")
    older = write(workspace, story, "docstrings")
    listed = sweeps_backend.sweeps("docstrings").value
    assert [(line.sweep, line.closed, line.trials, line.ended) for line in listed] == [
        ("docstrings-sweep-old", True, 12, 12),
        (NAME, False, 12, 0),
    ]
    older.add("opened", **plan())
    assert not sweeps_backend.sweeps(None).value[0].closed
    assert sweeps_backend.sweeps("other").value == []


def test_the_interval_is_the_reports(workspace, history):
    gained = {"step": 8, "default": 2.5, "winner": 2.0, "difference": -0.5, "low": -0.7, "high": -0.3}
    workspace.save_report(seed.make_report("sweep", [], figures={"sweep": NAME, "against_default": gained}))
    assert sweeps_backend.sweep(NAME).value.interval == gained


def test_new_values_are_checked_over_the_recipes_own_section(workspace, history, answers_nobody):
    workspace.save_report(seed.audit_report())
    view = sweeps_backend.sweep(NAME).value
    assert view.train.learning_rate == 5e-4
    assert sweeps_backend.start_values(view, "trial-2")["lora_r"] == 8
    assert "greater than 0" in sweeps_backend.refusal(view, "add", "", values={"learning_rate": -1})
    assert sweeps_backend.refusal(view, "add", "", values={"learning_rate": 1e-4}) == ""


def test_the_plans_own_section_comes_before_that_of_a_report(workspace):
    workspace.save_report(seed.audit_report())
    write(workspace, halving(NAME, until=8, train=Train(learning_rate=7e-5).model_dump(mode="json")), "docstrings")
    assert sweeps_backend.sweep(NAME).value.train.learning_rate == 7e-5


def test_nothing_is_asked_without_a_name_and_something_with_one(history, answers_nobody):
    view = sweeps_backend.sweep(NAME).value
    refused = sweeps_backend.ask(view, "stop", "trial-1", "  ")
    assert "needs a name" in refused.problem.message and not history.standing().open_requests
    done = sweeps_backend.ask(view, "stop", "trial-1", "jane")
    assert done.value.sentence == "stop trial-1: waits for the driver."
    assert history.standing().open_requests[0].by == "jane"


def test_what_the_sweep_cannot_do_is_a_problem_with_a_remedy(history, answers_nobody):
    done = sweeps_backend.ask(sweeps_backend.sweep(NAME).value, "resume", "trial-1", "jane")
    assert "not paused" in done.problem.message and done.problem.remedy


def test_a_clone_offers_no_key_that_needs_other_weights(history):
    view = sweeps_backend.sweep(NAME).value
    first, others = sweeps_backend.keys(view, clone=True)
    assert first == ["learning_rate", "warmup_steps"] and "method" not in others and "eval_steps" not in others
    assert "lora_r" in sweeps_backend.keys(view, clone=False)[0]


def test_the_estimate_of_a_recipe_without_a_sweep_is_nothing(workspace):
    recipe = Recipe.model_validate(seed.resolved_recipe(sweep=None))
    assert sweeps_backend.expected(recipe).value is None


def test_the_estimate_takes_the_speed_of_earlier_sweeps(workspace):
    write(workspace, halving(NAME, until=8, train={"method": "lora"}), "docstrings")
    recipe = Recipe.model_validate(seed.resolved_recipe(cluster={"price_per_hour": 2.0}))
    found = sweeps_backend.expected(recipe).value
    assert found.seconds_per_step == pytest.approx(2.5) and found.cost == pytest.approx(found.hours * 2)


def test_a_database_that_is_away_leaves_the_last_state(history, monkeypatch):
    from sqlalchemy.exc import OperationalError

    assert sweeps_backend.sweep(NAME).value

    def away(*_):
        raise OperationalError("select", {}, Exception("connection refused"))

    monkeypatch.setattr(sweeps_backend, "_sweep", away)
    known = sweeps_backend.sweep(NAME)
    assert known.value.sweep == NAME and known.read_at and known.problem
