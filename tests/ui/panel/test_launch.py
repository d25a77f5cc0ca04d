"""The launch page: a form from the recipe's schema, the command that comes of it, and what it refuses."""

import shlex
from urllib.parse import quote

import pytest

from cluster.connect import ROOT
from pipelines.recipe_file import parse_yaml
from pipelines.workspace import Workspace
from tests.ui.panel import seed
from tests.ui.panel.browser import POLL_MS, resize, serving, settled

pytestmark = pytest.mark.browser
DEMO = ROOT / "pipelines" / "recipes" / "demo.yaml"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A workspace in which a recipe has left a report."""
    folder = tmp_path_factory.mktemp("launch")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SLUICE_STORAGE", str(folder / "workspace"))
        workspace = Workspace()
    workspace.save_report(seed.audit_report())
    return workspace


@pytest.fixture(scope="module")
def panel(stored, tmp_path_factory):
    """One panel over it: these pages leave nothing behind."""
    log = tmp_path_factory.mktemp("panel") / "panel.log"
    with serving(log, SLUICE_STORAGE=stored.settings.storage, SLUICE_GATEWAY="http://127.0.0.1:9") as address:
        yield address


def command(page):
    """The words of the command that the page shows, once all of it is drawn."""
    settled(page)
    return shlex.split(page.locator(".st-key-launch-command [data-testid=stCode]").last.inner_text())


def enter(page, label, text):
    field = page.get_by_label(label, exact=True).locator("visible=true")
    field.fill(text)
    field.press("Enter")


def test_the_form_holds_the_recipe_and_tells_what_differs_with_its_command(panel, page):
    page.goto(f"{panel}/launch?from=demo.yaml")
    settled(page)
    assert page.get_by_label("lora_r", exact=True).locator("visible=true").input_value() == "16"
    assert command(page) == ["sluice", "submit", "run", str(DEMO)]

    enter(page, "lora_r", "8")
    page.get_by_text("1 changed").wait_for()
    assert command(page)[4:] == ["train.lora_r=8"]
    differs = page.locator(".st-key-launch-command [data-testid=stCode]").first.inner_text()
    assert differs.split() == ["train:", "lora_r:", "8"]

    page.get_by_role("tab", name="dataset").click()
    enter(page, "instruction", "Say it; $(touch /tmp/x) 'briefly'")
    page.get_by_text("2 changed").wait_for()
    # What the shell hands on is read back as the very text.
    name, _, value = command(page)[4].partition("=")
    assert (name, parse_yaml(value)) == ("dataset.instruction", "Say it; $(touch /tmp/x) 'briefly'")


def test_what_is_no_recipe_cannot_be_submitted(panel, page):
    page.goto(f"{panel}/launch?from=demo.yaml")
    settled(page)
    submit = page.get_by_role("button", name="Submit")
    assert submit.is_enabled()
    enter(page, "global_batch_size", "12")
    page.get_by_text("Not yet a recipe:").wait_for()
    assert "train.global_batch_size" in page.locator(".notice.error").inner_text()
    settled(page)
    assert submit.is_disabled()
    enter(page, "target_modules", "[unclosed")
    page.get_by_text("train.target_modules: not YAML").wait_for()
    enter(page, "global_batch_size", "8")
    enter(page, "target_modules", "all-linear")
    page.locator(".notice.error").wait_for(state="detached")
    settled(page)
    assert submit.is_enabled()


def test_a_stage_can_be_chosen_and_a_report_is_where_to_start(stored, panel, page):
    page.goto(f"{panel}/launch?recipe=docstrings")
    settled(page)
    words = command(page)
    assert words[:3] == ["sluice", "submit", "run"]
    assert words[3].startswith(stored.uri("recipes")) and words[3].endswith(".yaml")
    page.get_by_role("combobox", name="Stage", exact=True).click()
    page.get_by_role("option", name="train:").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.st-key-launch-command [data-testid=stCode]')].at(-1)"
        ".innerText.startsWith('sluice submit train')",
        polling=POLL_MS,
    )


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("from=" + quote("<b>x</b>.yaml"), "There is no shipped recipe '<b>x</b>.yaml'"),
        ("from=file&path=" + quote("/nowhere/x.yaml"), "/nowhere/x.yaml"),
        ("from=file&path=/etc/passwd", "A recipe is a file that ends with .yaml or .yml."),
        ("from=file&path=x.yaml", "not a whole path"),
        ("from=recorded&recipe=" + quote("../../etc"), "No stage of '../../etc' has left a report here."),
        ("from=file", "Name a recipe file of this machine"),
    ],
)
def test_a_start_that_there_is_not_is_a_sentence(panel, page, query, told):
    page.goto(f"{panel}/launch?{query}")
    page.locator(".notice", has_text=told).wait_for()
    settled(page)
    assert page.locator(".stException").count() == 0
    assert page.get_by_role("button", name="Submit").count() == 0


def test_a_cluster_that_is_away_is_told_when_submitting(workspace, tmp_path, page):
    variables = {"RAY_ADDRESS": "http://127.0.0.1:9", "SLUICE_GATEWAY": "http://127.0.0.1:9"}
    with serving(tmp_path / "panel.log", **variables) as address:
        page.goto(f"{address}/launch?from=demo.yaml")
        settled(page)
        page.get_by_role("button", name="Submit").click()
        page.locator(".notice", has_text="127.0.0.1:9").wait_for()
        settled(page)
        assert page.locator(".stException").count() == 0
        page.goto(f"{address}/jobs")
        page.wait_for_selector("text=Nothing was submitted yet")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_form_fits_its_window(panel, page, width, scheme):
    resize(page, width)
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{panel}/launch?from=demo.yaml")
    settled(page)
    assert page.evaluate("document.querySelector('.stMain').scrollWidth") <= width
