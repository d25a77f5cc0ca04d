import pytest

from pipelines.recipe_file import load_recipe
from pipelines.tracking import deployments
from serve.experimentation import lifecycle
from tests.ui.panel import seed_experiments
from tests.ui.panel.seed_experiments import DESIGN, NAME
from ui.panel import experiment_charts, experiment_plans_backend, experiments_backend, production_backend


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file(name=NAME, experiment=DESIGN))


@pytest.fixture
def row(workspace, recipe):
    # The log alone: nothing here asks the registry.
    for version in ("1", "2"):
        deployments.append(
            workspace,
            recipe_name=NAME,
            action=deployments.PROMOTE,
            model_name=NAME,
            model_version=version,
            content={"recipe": {"serve": {"weights": {"base": 1, "tuned": 3}}}},
            by="ada",
        )
    return seed_experiments.start(workspace, recipe)


def view_of(row):
    return experiments_backend.experiment(row.id).value


def test_an_experiment_is_read_with_its_looks_and_what_may_be_asked(workspace, row):
    seed_experiments.let_in(workspace, row, 300, looks=5, base=0.3, tuned=0.3)
    view = view_of(row)
    assert view.possible == ("pause", "cover", "promote", "stop") and view.about["watched"]
    assert view.look["exposures"] == {"base": 300, "tuned": 300} and len(view.looks) == 5
    assert [told.action for told in view.events] == ["look"] * 5 + ["start"]
    points = experiment_charts.intervals(view)
    assert [units for units, *_ in points] == sorted({look["units"] for look in view.looks if look["units"] >= 100})
    widths = [high - low for _, low, _, high in points]
    assert widths == sorted(widths, reverse=True)


def test_an_unknown_number_is_nothing_and_no_problem(row):
    known = experiments_backend.experiment(99)
    assert known.value is None and known.problem is None


def test_each_step_is_recorded_and_changes_what_may_be_asked(workspace, row):
    done = experiments_backend.ask(view_of(row), "pause", "jane", "a release")
    assert done.value and done.problem is None
    assert "resume" in view_of(row).possible and "pause" not in view_of(row).possible
    experiments_backend.ask(view_of(row), "resume", "jane", "it is over")
    assert experiments_backend.ask(view_of(row), "cover", "jane", "", 0.5).value
    told = experiments_backend.ask(view_of(row), "cover", "jane", "", 0.4).problem
    assert "covers 50%" in told.message and told.remedy == "It can only grow."
    assert [event.action for event in lifecycle.events_of(workspace, row.id)] == ["start", "pause", "resume", "cover"]


@pytest.mark.parametrize(
    ("action", "by", "because", "told"),
    [
        ("pause", " ", "why", "it needs a name"),
        ("stop", "jane", " ", "it needs the reason"),
        ("promote", "jane", " ", "The gate is closed"),
    ],
)
def test_what_lacks_who_or_why_changes_nothing(workspace, row, action, by, because, told):
    done = experiments_backend.ask(view_of(row), action, by, because)
    assert done.value is None and told in done.problem.message and "--" not in done.problem.remedy
    assert lifecycle.latest(workspace, NAME).state == "running" and len(deployments.history(workspace, NAME)) == 2


def test_a_page_of_an_experiment_that_was_followed_changes_not_the_one_after(workspace, row, recipe):
    view = view_of(row)
    lifecycle.stop(workspace, NAME, "ada", "the wrong metric")
    after = lifecycle.start(workspace, recipe, "ada")
    done = experiments_backend.ask(view, "stop", "jane", "harm")
    assert f"was followed by experiment {after.id}" in done.problem.message
    assert lifecycle.latest(workspace, NAME).state == "running"
    assert view_of(row).possible == ()


def test_a_switch_stands_though_the_registry_cannot_follow(workspace, row):
    done = experiments_backend.ask(view_of(row), "promote", "jane", "the board decided")
    assert "answers everyone" in done.value and "has not followed yet" in done.problem.message
    assert deployments.current(workspace, NAME).content["traffic"] == {"tuned": 1.0}
    assert view_of(row).possible == ()


def test_the_log_tells_traffic_and_evidence(workspace, row):
    lifecycle.promote(workspace, NAME, "jane", "the board decided")
    switched, second, first = production_backend.log(NAME).value
    assert (switched.traffic, switched.decided, switched.experiment) == ("tuned 100 %", True, row.id)
    assert switched.because == "the board decided" and switched.version == second.version == "2"
    assert (first.traffic, first.decided, first.because) == ("base 25 %, tuned 75 %", False, "")
    (one,) = production_backend.in_force().value
    assert one.deployment == switched and one.running is None


def test_a_rollback_that_cannot_be_is_a_sentence(row):
    *_, first = production_backend.log(NAME).value
    assert "a name and the reason" in production_backend.roll_back(first, "jane", " ").problem.message
    second = production_backend.log(NAME).value[0]
    assert "is what is in production" in production_backend.roll_back(second, "jane", "why").problem.message


def test_the_plan_is_reckoned_before_the_start(workspace, recipe, recipe_file):
    plan = experiment_plans_backend.plan(recipe).value
    assert (plan.size.planned, plan.size.power, plan.units_per_day, plan.days) == (6000, None, 0.0, None)
    few = load_recipe(recipe_file("few.yaml", name=NAME, experiment=DESIGN | {"planned_units": 100}))
    assert "fewer than" in experiment_plans_backend.plan(few).problem.message
    assert experiment_plans_backend.plan(load_recipe(recipe_file("none.yaml"))).value is None


def test_a_start_that_cannot_be_is_a_sentence(workspace, recipe, row):
    assert "needs a name" in experiment_plans_backend.start(recipe, " ").problem.message
    assert f"experiment {row.id} runs already" in experiment_plans_backend.start(recipe, "jane").problem.message
