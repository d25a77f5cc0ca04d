"""The Sweeps page beside a sweep that is really at work: a clone made in the browser starts where its parent is."""

import pytest

from tests.pipelines.search.sweeping import Sweeping, sweep_section
from tests.pipelines.small_recipe import small_recipe  # noqa: F401
from tests.ui.panel.browser import serving, settled

pytestmark = [pytest.mark.browser, pytest.mark.cluster]


def test_a_trial_is_cloned_with_another_rate_while_the_sweep_runs(small_recipe, ray_cluster, page, tmp_path):  # noqa: F811
    section = sweep_section(search="random", num_samples=2, scheduler="median", grace_steps=5, max_steps=4000)
    recipe = small_recipe(name="watched", sweep=section)
    storage = ray_cluster.settings.storage
    with (
        serving(tmp_path / "panel.log", SLUICE_STORAGE=storage, SLUICE_GATEWAY="http://127.0.0.1:9") as address,
        Sweeping(recipe, ray_cluster) as sweeping,
    ):
        sweeping.until(lambda standing: len(standing.trials) == 2 and all(t.chunks for t in standing.trials.values()))
        page.goto(f"{address}/sweeps?recipe=watched&sweep={sweeping.name}&trial=trial-2")
        settled(page)
        page.get_by_text("goes on from the weights of trial-2").wait_for()
        page.get_by_label("Your name").fill("jane")
        page.get_by_label("Your name").press("Enter")
        rate = page.get_by_role("spinbutton", name="learning_rate").or_(page.get_by_label("learning_rate", exact=True))
        rate.first.fill("0.0003")
        rate.first.press("Enter")
        page.get_by_text("learning_rate 0.0003").wait_for()
        page.get_by_role("button", name="Clone it").click()
        page.get_by_text("clone trial-2 with learning_rate 0.0003: done, as trial-3.").wait_for()

        standing = sweeping.until(lambda standing: standing.trials["trial-3"].chunks)
        clone, parent = standing.trials["trial-3"], standing.trials["trial-2"]
        assert clone.values["learning_rate"] == 0.0003
        assert clone.chunks[0].loss == pytest.approx(parent.loss_at(clone.chunks[0].step), abs=1e-5)
        # It stands in the page's own table and history, and after a reload too.
        page.reload()
        settled(page)
        page.get_by_text("done, as trial-3.").wait_for()
        assert page.locator(".stException").count() == 0
        sweeping.stop_all()
    assert sweeping.history.standing().closed
