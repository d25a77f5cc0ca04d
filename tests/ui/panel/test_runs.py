import pytest

from tests.ui.panel import seed
from tests.ui.panel.browser import resize, serving, settled
from tests.waiting import until

pytestmark = pytest.mark.browser


def test_a_run_shows_its_curves_its_example_and_why_it_stopped(workspace, panel, page):
    run_id = seed.track(workspace)
    seed.fill_pipeline(workspace, run_id=run_id)
    page.goto(f"{panel}/runs?recipe=docstrings&run={run_id}")
    page.wait_for_selector(".js-plotly-plot >> nth=4")
    settled(page)
    text = page.inner_text(".stMain")
    assert "All 116 steps were done." in text
    titles = page.locator(".js-plotly-plot .gtitle").all_text_contents()
    shown = ["Loss", "Perplexity", "Learning rate", "Gradient norm", "Throughput"]
    assert [title.split(",")[0] for title in titles] == shown
    assert page.locator(".js-plotly-plot >> nth=0").locator(".annotation-text").all_text_contents() == ["best"]
    assert page.locator(".example mark").all_inner_texts() == ["Return the nearest common ancestor.<|im_end|>"]
    assert seed.HOSTILE in page.inner_text(".example")
    assert page.evaluate("window.broken") is None
    page.reload()
    page.wait_for_selector(".example mark")
    assert f"run={run_id}" in page.url


def test_a_running_run_grows_before_ones_eyes_and_settles_at_its_end(workspace, panel, page):
    from pipelines.tracking import runs

    run_id = seed.track(workspace, steps=8, ended=None)
    page.goto(f"{panel}/runs?recipe=docstrings&run={run_id}")
    page.wait_for_selector(".facts >> text=step")
    step = page.locator(".facts dd").first
    assert step.inner_text() == "8"
    assert page.locator(".verdict.running").count() == 1
    seed.log_step(workspace, run_id, 9)
    until(lambda: step.inner_text() == "9", "the ninth step")
    runs.end_run(workspace.settings, run_id)
    page.wait_for_selector(".verdict.open >> text=finished")


def test_runs_are_compared_by_what_differs_and_over_each_other(workspace, panel, page):
    first = seed.track(workspace, lora_r=8)
    second = seed.track(workspace, name="docstrings-77aa0f21", steps=24, ended="KILLED", learning_rate=1e-3)
    page.goto(f"{panel}/runs?recipe=docstrings&run={first}")
    page.get_by_label("Compare with").click()
    page.get_by_role("option", name="docstrings-77aa0f21").click()
    page.wait_for_url(f"**with={second}")
    page.keyboard.press("Escape")
    page.wait_for_selector("text=Settings that differ")
    table = page.locator("table.compared", has_text="setting")
    assert [row.split() for row in table.locator("tr").all_inner_texts()[1:]] == [
        ["learning_rate", "0.0005", "0.001"],
        ["lora_r", "8", "16"],
    ]
    figures = page.locator("table.compared", has_text="best validation loss")
    assert "lowest" in figures.locator("tr", has_text="best validation loss").inner_text()
    assert figures.locator("tr", has_text="steps").inner_text().split() == ["steps", "40", "24"]
    page.wait_for_selector(".js-plotly-plot >> nth=3")
    legend = page.locator(".js-plotly-plot >> nth=0").locator(".legendtext").all_text_contents()
    assert legend == ["A", "B"]
    # Back to the one run, as the address was before.
    page.go_back()
    page.wait_for_selector("text=Settings that differ", state="detached")
    assert "with=" not in page.url


def test_a_comparison_with_what_there_is_not_says_so(workspace, panel, page):
    run_id = seed.track(workspace, steps=2)
    page.goto(f"{panel}/runs?recipe=docstrings&run={run_id}&with=%3Cb%3Enone,{run_id}")
    page.wait_for_selector("text=No such run")
    settled(page)
    assert page.locator(".stException").count() == 0


def test_a_comparison_fits_a_narrow_window(workspace, panel, page):
    ids = [seed.track(workspace, name=f"docstrings-{'x' * 200}-{n}", steps=8, lora_r=2**n) for n in range(5)]
    resize(page, 390)
    page.goto(f"{panel}/runs?recipe=docstrings&run={ids[0]}&with={','.join(ids[1:])}")
    page.wait_for_selector("text=How they came out")
    settled(page)
    assert page.evaluate("document.querySelector('.stMain').scrollWidth") <= 390


def test_an_unknown_run_is_a_page_that_says_so(workspace, panel, page):
    seed.track(workspace)
    page.goto(f"{panel}/runs?recipe=docstrings&run=%3Cb%3Enone%27--")
    page.wait_for_selector("text=No such run")
    assert "<b>none'--" in page.inner_text(".empty")
    assert page.locator(".stException").count() == 0


def test_a_recipe_without_runs_says_how_to_start_one(workspace, panel, page):
    workspace.save_report(seed.audit_report())
    page.goto(f"{panel}/runs?recipe=docstrings")
    page.wait_for_selector("text=sluice train RECIPE")


def test_a_thousand_runs_with_long_names_keep_the_layout_and_one_can_be_picked(workspace, panel, page):
    from mlflow import MlflowClient

    from pipelines.tracking import runs

    long = "docstrings-" + "x" * 289
    seed.track(workspace, steps=2)
    client = MlflowClient(workspace.settings.tracking_uri)
    experiment = client.get_experiment_by_name(runs.EXPERIMENT).experiment_id
    tags = {"sluice.recipe": "docstrings", "sluice.stage": "trial"}
    for number in range(999):
        client.create_run(experiment, run_name=f"{long}-{number}", tags=tags)
    page.goto(f"{panel}/runs?recipe=docstrings")
    page.wait_for_selector("text=1,000")
    settled(page)
    table = page.locator('[data-testid="stDataFrame"]')
    box = table.bounding_box()
    assert box["height"] < 320 and box["x"] + box["width"] <= 1280
    # The check mark of the first row: the table is a canvas.
    page.mouse.click(box["x"] + 16, box["y"] + 32 + 16)
    page.wait_for_url("**run=*")
    page.wait_for_selector("text=No point yet.")
    assert page.evaluate("document.querySelector('.stMain').scrollWidth") <= 1280
    run_id = page.url.rpartition("run=")[2]
    page.reload()
    page.wait_for_selector(f"text={run_id}")


def test_tracking_that_is_away_is_a_sentence_and_not_a_traceback(workspace, tmp_path, page):
    workspace.save_report(seed.audit_report())
    with serving(tmp_path / "panel.log", SLUICE_TRACKING="http://127.0.0.1:9") as address:
        page.goto(f"{address}/runs?recipe=docstrings&run=0123456789abcdef0123456789abcdef")
        page.wait_for_selector("text=Check SLUICE_TRACKING")
        settled(page)
        assert page.locator(".stException").count() == 0
        assert "Traceback" not in page.inner_text(".stMain")
