"""The Sweeps page in a real browser, over a history as a driver writes it."""

import pytest

from tests.pipelines.search.planted import halving, write
from tests.ui.panel import seed
from tests.ui.panel.browser import resize, serving, settled
from tests.waiting import until

pytestmark = pytest.mark.browser
NAME = "docstrings-sweep-4f3ac21b"


@pytest.fixture
def history(workspace):
    """A sweep at its second rung, six of twelve trials at work."""
    workspace.save_report(seed.audit_report())
    return write(workspace, halving(NAME, until=16), "docstrings")


def asked(history):
    return [event for event in history.events() if event.kind == "asked"]


def goto(page, address, query=f"&sweep={NAME}"):
    page.goto(f"{address}/sweeps?recipe=docstrings{query}")
    settled(page)


def test_a_trial_is_cloned_through_the_form_and_the_answer_is_shown(history, panel, page):
    goto(page, panel)
    page.wait_for_selector(".js-plotly-plot >> nth=5")
    text = page.inner_text(".stMain")
    assert "6 running, 6 stopped" in text and "trial-9" in text and "goes on" in text
    # The check mark of the ninth row, which leads: the table is a canvas.
    box = page.locator('[data-testid="stDataFrame"]').bounding_box()
    page.mouse.click(box["x"] + 16, box["y"] + 36 + 8 * 32 + 16)
    page.wait_for_url("**trial=trial-9")
    page.wait_for_selector("text=goes on from the weights of trial-9")
    page.get_by_label("Your name").fill("jane")
    page.get_by_label("Your name").press("Enter")
    rate = page.get_by_role("spinbutton", name="learning_rate").or_(page.get_by_label("learning_rate", exact=True))
    rate.first.fill("0.0003")
    rate.first.press("Enter")
    page.get_by_text("learning_rate 0.0003").wait_for()
    page.get_by_role("button", name="Clone it").click()
    (event,) = until(lambda: asked(history), "the request in the database")
    assert (event.trial, event.by) == ("trial-9", "jane")
    assert event.content == {"action": "clone", "values": {"learning_rate": 0.0003}}
    page.get_by_text("clone trial-9 with learning_rate 0.0003: waits for the driver.").wait_for()

    values = history.standing().of("trial-9").values | {"learning_rate": 0.0003}
    history.add("proposed", "trial-13", "jane", values=values, origin="clone", parent="trial-9", begins=16)
    history.add("answered", "trial-9", request=event.id, problem="")
    page.get_by_text("clone trial-9 with learning_rate 0.0003: done, as trial-13.").wait_for()

    page.reload()
    settled(page)
    page.get_by_text("done, as trial-13.").wait_for()
    assert "trial=trial-9" in page.url and page.get_by_text("goes on from the weights of trial-9").count() == 1
    assert page.locator(".stException").count() == 0


def test_buttons_follow_the_state_of_the_trial(history, panel, page):
    goto(page, panel, f"&sweep={NAME}&trial=trial-9")
    page.get_by_label("Your name").fill("jane")
    page.get_by_label("Your name").press("Enter")
    page.get_by_role("button", name="Pause").click()
    (event,) = until(lambda: asked(history), "the request")
    history.add("paused", "trial-9", "jane")
    history.add("answered", "trial-9", request=event.id, problem="")
    # Nobody reloads the page.
    page.get_by_role("button", name="Resume").wait_for()
    page.get_by_role("button", name="Pause").wait_for(state="detached")
    history.add("ended", "trial-9", how="stopped", because="by jane")
    page.get_by_role("button", name="Stop").wait_for(state="detached")
    page.get_by_text("pause trial-9: done.").wait_for()


def test_a_second_tab_shows_the_same_sweep_and_has_a_name_of_its_own(history, panel, page):
    goto(page, panel, f"&sweep={NAME}&trial=trial-9")
    page.get_by_label("Your name").fill("jane")
    page.get_by_label("Your name").press("Enter")
    page.get_by_role("button", name="Pause").click()
    until(lambda: asked(history), "the request")

    other = page.context.new_page()
    other.goto(page.url)
    settled(other)
    other.get_by_text("pause trial-9: waits for the driver.").wait_for()
    other.get_by_role("button", name="Stop").click()
    other.get_by_text("Nothing was asked: it needs a name.").wait_for()
    assert len(asked(history)) == 1


def test_nothing_is_asked_without_a_name(history, panel, page):
    goto(page, panel, f"&sweep={NAME}&trial=trial-9")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Nothing was asked: it needs a name.").wait_for()
    assert asked(history) == []


def test_a_trial_is_added_and_the_sweep_extended(history, panel, page):
    goto(page, panel)
    page.get_by_label("Your name").fill("jane")
    page.get_by_label("Your name").press("Enter")
    page.get_by_role("tab", name="Add a trial").click()
    page.get_by_label("lora_r", exact=True).fill("64")
    page.get_by_label("lora_r", exact=True).press("Enter")
    page.get_by_text("What differs: lora_r 64").wait_for()
    page.get_by_role("button", name="Add it").click()
    until(lambda: len(asked(history)) == 1, "the first request")
    page.get_by_role("tab", name="Extend").click()
    page.get_by_label("Trials more (now 12)").fill("4")
    page.get_by_label("Trials more (now 12)").press("Enter")
    page.get_by_role("button", name="Extend", exact=True).click()
    until(lambda: len(asked(history)) == 2, "the second request")
    added, extended = asked(history)
    assert added.content == {"action": "add", "values": {"lora_r": 64}}
    assert extended.content == {"action": "extend", "trials": 4}


def test_a_sweep_grows_before_ones_eyes_and_ends(history, panel, page):
    goto(page, panel)
    page.get_by_text("6 running, 6 stopped").wait_for()
    history.add("ended", "trial-4", how="stopped", because="place 6 of 6 at step 16, 3 went on")
    page.get_by_text("5 running, 7 stopped").wait_for()
    history.add("closed", because="sweep.max_hours 2 was spent")
    page.get_by_text("sweep.max_hours 2 was spent").wait_for()
    page.get_by_text("The search is over.").wait_for()
    page.get_by_label("Your name").wait_for(state="detached")


def test_the_list_leads_to_a_sweep_and_back(workspace, history, panel, page):
    story = halving("docstrings-sweep-0000ffff")
    story.add("closed", because="all trials have ended")
    write(workspace, story, "docstrings")
    goto(page, panel, "")
    page.get_by_text("12 of 12 trials have ended").wait_for()
    page.get_by_role("button", name=NAME).click()
    page.wait_for_url(f"**sweep={NAME}")
    page.get_by_text("6 running, 6 stopped").wait_for()
    page.get_by_role("button", name="All sweeps").click()
    page.get_by_text("6 of 12 trials have ended").wait_for()


def test_an_unknown_sweep_and_an_unknown_trial_are_sentences(history, panel, page):
    goto(page, panel, "&sweep=%3Cb%3Enone%27--")
    page.wait_for_selector("text=No such sweep")
    assert "<b>none'--" in page.inner_text(".empty")
    goto(page, panel, f"&sweep={NAME}&trial=%3Cb%3Enone")
    page.get_by_text("The sweep has no trial called <b>none").wait_for()
    assert page.locator(".stException").count() == 0


def test_a_recipe_that_never_swept_says_how(workspace, panel, page):
    workspace.save_report(seed.audit_report())
    goto(page, panel, "")
    page.wait_for_selector("text=sluice sweep RECIPE")


def test_what_others_wrote_is_inert(workspace, panel, page):
    workspace.save_report(seed.audit_report())
    space = {"target_modules": {"choice": [[seed.HOSTILE], [seed.MARKDOWN_BEACON]]}}
    story = halving(NAME, trials=4, until=8, space=space, base=seed.HOSTILE)
    for number in range(5, 9):
        values = {"target_modules": space["target_modules"]["choice"][number % 2]}
        story.add("proposed", f"trial-{number}", seed.HOSTILE, values=values, origin="search")
        story.rung(f"trial-{number}", 8, 2.0 + number / 10, place=seed.HOSTILE)
    story.add("ended", "trial-5", how="failed", because=seed.MARKDOWN_BEACON + seed.HOSTILE)
    story.add("asked", "trial-6", seed.HOSTILE, action="clone", values={"lr_scheduler_type": seed.MARKDOWN_BEACON})
    write(workspace, story, "docstrings")
    goto(page, panel, f"&sweep={NAME}&trial=trial-5")
    page.wait_for_selector(".js-plotly-plot >> nth=3")
    settled(page)
    assert seed.HOSTILE in page.inner_text(".stMain")
    assert page.evaluate("window.broken") is None and page.locator(".stException").count() == 0
    assert not [url for url in page.asked if ":9/" in url]


def test_a_sweep_that_has_only_opened_shows_what_there_is(workspace, panel, page):
    workspace.save_report(seed.audit_report())
    story = halving(NAME)
    story.events = story.events[:1]
    write(workspace, story, "docstrings")
    goto(page, panel)
    page.get_by_text("No trial was drawn yet.").wait_for()
    page.get_by_text("No validation yet").wait_for()
    assert page.locator(".stException").count() == 0


def test_it_fits_a_narrow_window(history, panel, page):
    resize(page, 390)
    goto(page, panel, f"&sweep={NAME}&trial=trial-9")
    page.wait_for_selector(".js-plotly-plot >> nth=5")
    assert page.evaluate("document.querySelector('.stMain').scrollWidth") <= 390


def test_the_estimate_stands_beside_the_command(workspace, panel, page):
    workspace.save_report(seed.audit_report())
    write(workspace, halving(NAME, until=16, train={"method": "lora"}), "docstrings")
    page.goto(f"{panel}/launch?recipe=docstrings")
    settled(page)
    page.get_by_text("The sweep will take").wait_for()
    page.get_by_text("At 2.5 s a step").wait_for()


def test_a_database_that_is_away_is_a_sentence(workspace, tmp_path, page):
    variables = {"SLUICE_DATABASE": "postgresql+pg8000://nobody@127.0.0.1:9/none"}
    with serving(tmp_path / "panel.log", SLUICE_PANEL_DEADLINE_S="3", **variables) as address:
        page.goto(f"{address}/sweeps?recipe=docstrings&sweep={NAME}")
        page.wait_for_selector(".notice")
        settled(page)
        assert page.locator(".stException").count() == 0 and "Traceback" not in page.inner_text(".stMain")


def test_a_trials_run_leads_to_its_sweep(workspace, history, panel, page):
    run_id = seed.track(workspace, name=NAME.removeprefix("docstrings-sweep-"), stage="trial", steps=8)
    page.goto(f"{panel}/runs?recipe=docstrings&run={run_id}")
    settled(page)
    page.get_by_text("Its sweep").click()
    page.wait_for_url(f"**sweep={NAME}")
    page.get_by_text("6 running, 6 stopped").wait_for()
