import pytest

from tests.pipelines.search.planted import halving, write
from tests.ui.panel import seed
from ui.panel import sweep_view, sweeps_backend

NAME = "docstrings-sweep-4f3ac21b"


@pytest.fixture
def figures(workspace):
    """`figures(**plan) -> dict`: what stands on top of a sweep of twelve trials at its second rung."""

    def read(**changed):
        write(workspace, halving(NAME, until=16, **changed), "docstrings")
        return sweep_view.figures(sweeps_backend.sweep(NAME).value)

    return read


def test_the_figures_tell_what_was_spent_of_what_may_be(figures):
    shown = figures(max_hours=2.0, price_per_hour=3.0, max_cost=40.0)
    assert shown["of them"] == "6 running, 6 stopped" and shown["wall-clock"].endswith(" of 2 h")
    assert shown["cost"].endswith(" of 40") and shown["leader"].startswith("trial-9: ")
    assert shown["leader against the recipe's own"].startswith("-")


def test_without_limits_or_a_price_there_are_none(figures):
    shown = figures(max_hours=None, price_per_hour=None, max_cost=None)
    assert "cost" not in shown and " of " not in shown["wall-clock"]


@pytest.mark.parametrize(
    ("ends", "told"), [((-0.7, -0.3), "-0.5000 [-0.7000, -0.3000] at step 8"), ((None, None), "-0.5000 at step 8")]
)
def test_the_reports_gain_is_told_with_its_interval_where_there_is_one(workspace, figures, ends, told):
    gained = {"step": 8, "default": 2.5, "winner": 2.0, "difference": -0.5, "low": ends[0], "high": ends[1]}
    workspace.save_report(seed.make_report("sweep", [], figures={"sweep": NAME, "against_default": gained}))
    assert figures()["winner against the recipe's own"] == told
