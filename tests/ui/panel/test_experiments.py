"""Experiments and production in a real browser, over rows as the service and its watcher leave them."""

import pytest

from pipelines.recipe_file import load_recipe
from pipelines.tracking import deployments, registry
from serve.experimentation import lifecycle
from tests.ui.panel import seed, seed_experiments
from tests.ui.panel.browser import settled
from tests.ui.panel.seed_experiments import DESIGN, NAME
from tests.waiting import until

pytestmark = pytest.mark.browser
HOSTILE = "<b>x</b>"


def goto(page, address):
    page.goto(address)
    settled(page)


def fill(page, label, text):
    field = page.get_by_label(label, exact=True)
    field.fill(text)
    field.press("Enter")
    settled(page)


def test_an_experiment_is_read_paused_promoted_and_rolled_back(workspace, recipe_file, panel, page):
    workspace.save_report(seed.audit_report())
    first, _ = seed_experiments.deploy(workspace, "a", "b")
    recipe = load_recipe(recipe_file(name=NAME, experiment=DESIGN))
    row = seed_experiments.start(workspace, recipe)
    seed_experiments.let_in(workspace, row, 600, base=0.30, tuned=0.33)
    seed_experiments.answer_lately(workspace)

    goto(page, f"{panel}/experiments?recipe={NAME}")
    page.get_by_text("tuned against base on event.resolved").wait_for()
    page.get_by_role("button", name="Experiment 1").click()
    page.wait_for_url("**experiment=1")
    page.wait_for_selector(".js-plotly-plot")
    settled(page)
    text = page.inner_text(".stMain")
    assert "no difference is shown after 1200 of 6000 units" in text and "watched" in text
    assert "20 % of all users take part, later 100 %" in text and "units are shared out as the weights say" in text
    assert page.locator(".forest").count() == 2 and page.get_by_text("too little is in").count() == 1
    page.get_by_role("button", name="Show the looks too (8)").click()
    page.get_by_role("cell", name="sluice watcher").nth(7).wait_for()
    page.emulate_media(color_scheme="dark")
    page.reload()
    settled(page)
    assert page.get_by_role("cell", name="sluice watcher").count() == 8
    assert page.evaluate("document.querySelector('.stMain').scrollWidth") <= 1280

    # The first of a text, here and below: while a page is drawn anew, what it said stands beside what it says.
    # Without a reason nothing is paused; with one it is, whatever the name holds.
    fill(page, "Your name", HOSTILE)
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("Nothing was changed: it needs the reason.").first.wait_for()
    fill(page, "Because", "the release of Friday")
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("It is paused: nobody new comes in.").first.wait_for()
    assert lifecycle.latest(workspace, NAME).state == "paused"
    page.get_by_role("cell", name=HOSTILE).wait_for()
    assert page.get_by_label("Because", exact=True).input_value() == ""

    # The gate is closed, unless somebody says why.
    page.get_by_role("button", name="Promote tuned").click()
    page.get_by_text("the verdict is not that tuned is better").first.wait_for()
    page.get_by_role("button", name="Send everyone to tuned").click()
    page.get_by_text("The gate is closed. experiment.verdict").first.wait_for()
    assert lifecycle.latest(workspace, NAME).state == "paused" and len(deployments.history(workspace, NAME)) == 2
    fill(page, "Because", "the board decided")
    # Where what was drawn anew has left it open, a click on the opener would close it.
    if not page.get_by_role("button", name="Send everyone to tuned").is_visible():
        page.get_by_role("button", name="Promote tuned").click()
    page.get_by_role("button", name="Send everyone to tuned").click()
    page.get_by_text("tuned answers everyone from now on").first.wait_for()
    page.get_by_text("ended: promoted").first.wait_for()
    switched = deployments.current(workspace, NAME)
    assert switched.content["traffic"] == {"tuned": 1.0} and switched.by == HOSTILE
    assert switched.content["experiment"]["because"] == "the board decided"
    assert lifecycle.latest(workspace, NAME).outcome == "promoted"
    page.get_by_role("button", name="Promote tuned").wait_for(state="detached")
    settled(page)
    assert page.get_by_text("tuned answers everyone from now on").count() == 1

    page.get_by_role("link", name="In production").click()
    page.wait_for_url("**/production**")
    page.get_by_text("experiment 1: the board decided").first.wait_for()
    page.get_by_text("None answers.").first.wait_for()
    page.locator("tr", has_text="corrections change").wait_for()
    cells = page.locator("tr", has_text="tuned").filter(has_text="ms").locator("td").all_inner_texts()
    assert cells == ["tuned", "4", "1 (25 %)", "0", "90 ms, 90 ms", "1.1 s, 1.1 s", "28.7", cells[-1]]
    assert cells[-1] == "correction 3, corrections change 25 % of an answer"
    page.get_by_role("button", name=f"Deployment {first.id}", exact=True).click()
    page.get_by_role("button", name="Roll back to this").wait_for()
    fill(page, "Your name", "jane")
    fill(page, "Because", "answers in the wrong language")
    page.get_by_role("button", name="Roll back to this").click()
    page.get_by_text("is answered by version 1 (base 50 %, tuned 50 %) instead of version 2").first.wait_for()
    page.get_by_role("button", name=f"Put deployment {first.id} back").click()
    page.get_by_text("Deployment 4 is in production.").first.wait_for()
    assert registry.champion(workspace.settings, NAME) == "1"
    restored = until(lambda: deployments.history(workspace, NAME)[0], "the new row")
    assert restored.content["rollback"]["because"] == "answers in the wrong language" and restored.by == "jane"
    page.get_by_text("restores deployment 1: answers in the wrong language").first.wait_for()
    assert page.locator(".stException").count() == 0 and page.locator(".stMain b", has_text="x").count() == 0


def test_few_users_and_what_they_did_before_are_told_of(workspace, recipe_file, panel, page):
    workspace.save_report(seed.audit_report())
    seed_experiments.deploy(workspace, "a")
    few = {"primary": {"metric": "event.resolved"}, "guardrails": [], "planned_units": 40, "settle_hours": 24}
    row = seed_experiments.start(workspace, load_recipe(recipe_file(name=NAME, experiment=few)))
    seed_experiments.let_in(workspace, row, 15, looks=3, base=0.05, tuned=0.95)
    goto(page, f"{panel}/experiments?recipe={NAME}&experiment=1")
    page.wait_for_selector(".js-plotly-plot")
    settled(page)
    text = page.inner_text(".stMain")
    assert "tuned is better than base: event.resolved" in text and "of 40 planned units" in text
    assert "the first 40 units count, each 24 hours after it has met its arm" in text
    assert page.locator(".forest").count() == 1
    lifecycle.stop(workspace, NAME, "ada", "enough")

    before = {"metric": "event.minutes", "per_unit": "sum", "higher_is_better": False}
    many = {"primary": before, "guardrails": [], "planned_units": 400, "before_days": 30}
    row = seed_experiments.start(workspace, load_recipe(recipe_file(name=NAME, experiment=many)), days=1)
    seed_experiments.let_in(workspace, row, 150, looks=1, base=0.0, tuned=0.0)
    seed_experiments.take_time(workspace, row, 150)
    goto(page, f"{panel}/experiments?recipe={NAME}&experiment=2")
    page.get_by_text("adjusted for the 30 days before the start").first.wait_for()
    assert "of the variance between units (CUPED)" in page.inner_text(".stMain")
    assert page.locator(".stException").count() == 0


def test_one_is_started_and_what_there_is_not_is_a_sentence(workspace, recipe_file, panel, page):
    workspace.save_report(seed.audit_report())
    goto(page, f"{panel}/experiments?recipe={NAME}&experiment=%3Cb%3Enone%27--")
    assert "<b>none'--" in page.inner_text(".empty")
    goto(page, f"{panel}/experiments?recipe={NAME}&experiment=7")
    page.get_by_text("No such experiment").first.wait_for()
    goto(page, f"{panel}/production?recipe={NAME}&deployment=999999999999999")
    page.get_by_text("No such deployment").first.wait_for()
    goto(page, f"{panel}/experiments?recipe={NAME}")
    page.get_by_role("button", name="New experiment").click()
    page.get_by_text("docstrings describes no experiment.").first.wait_for()

    effect = {"baseline": 0.3, "difference": 0.06}
    path = recipe_file(name=NAME, experiment=DESIGN | {"planned_units": None, "effect": effect})
    goto(page, f"{panel}/experiments?recipe={NAME}&view=new&from=file&path={path}")
    page.get_by_text("power for +0.06").first.wait_for()
    page.get_by_text("No traffic is known yet").first.wait_for()
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_text("Nothing was started: it needs a name.").first.wait_for()
    fill(page, "Your name", "jane")
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_text("nothing is promoted, so there is nothing to try.").first.wait_for()
    seed_experiments.deploy(workspace, "a")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**experiment=1")
    page.get_by_text("too little is in").first.wait_for()
    page.get_by_text("Nobody watches it").first.wait_for()
    (row,) = lifecycle.listed(workspace, NAME)
    assert (row.state, row.by, row.coverage) == ("running", "jane", 0.2)
    assert page.locator(".stException").count() == 0
