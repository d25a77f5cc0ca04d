import pytest

from tests.ui.panel import seed
from tests.ui.panel.browser import serving, settled

pytestmark = pytest.mark.browser


def card(page, stage):
    return page.locator(f'[class*="st-key-stage-{stage}-"]')


def test_an_empty_workspace_says_what_to_do_and_follows_by_itself(workspace, panel, page):
    page.goto(panel)
    page.wait_for_selector("text=Nothing has passed through here yet")
    assert "sluice init" in page.inner_text(".empty")
    assert "make demo" in page.inner_text(".empty")
    workspace.save_report(seed.audit_report())
    page.wait_for_selector('[class*="st-key-stage-audit-closed"]')
    assert "recipe=docstrings" in page.url


def test_the_pipeline_shows_every_gate_with_its_evidence(workspace, panel, page):
    seed.fill_pipeline(workspace)
    page.goto(f"{panel}/?recipe=docstrings&stage=audit")
    settled(page)
    shown = page.locator(".verdict").all_inner_texts()
    assert {"open", "waived", "not yet"} <= set(shown)
    assert "3 of 4 open, 1 waived" in card(page, "audit").inner_text()
    text = page.inner_text(".stMain")
    assert "1,163 unique examples by people, at least 1,000 wanted." in text
    assert "Jane Doe" in text
    assert "Overloads share their descriptions" in text
    assert "Remove the repeats" in text


def test_a_stage_is_chosen_by_its_card_and_kept_by_a_reload(workspace, panel, page):
    seed.fill_pipeline(workspace)
    page.goto(panel)
    settled(page)
    card(page, "split").get_by_role("button").click()
    page.wait_for_url("**/?recipe=docstrings&stage=split")
    page.wait_for_selector("text=No example, cluster or module stands on two sides")
    page.reload()
    page.wait_for_selector("text=No example, cluster or module stands on two sides")
    assert card(page, "split").get_attribute("class").count("-here") == 1


def test_a_recipe_is_chosen_in_the_header_and_kept_by_a_reload(workspace, panel, page):
    seed.fill_pipeline(workspace)
    workspace.save_report(seed.audit_report(recipe=seed.resolved_recipe("other")))
    page.goto(f"{panel}/?recipe=docstrings")
    settled(page)
    page.locator(".st-key-header .stSelectbox").click()
    page.get_by_role("option", name="other").click()
    page.wait_for_url("**/?recipe=other")
    page.wait_for_selector('[class*="st-key-stage-split-not_yet"]')
    page.reload()
    page.wait_for_selector('[class*="st-key-stage-split-not_yet"]')
    page.go_back()
    page.wait_for_selector('[class*="st-key-stage-split-open"]')


def test_base_and_tuned_stand_beside_each_other_with_intervals(workspace, panel, page):
    seed.fill_pipeline(workspace)
    seed.deploy(workspace, "1")
    seed.deploy(workspace, "2", by="joe")
    page.goto(f"{panel}/?recipe=docstrings")
    settled(page)
    row = page.locator("tr", has_text="rougeL").last
    assert row.locator("td").all_inner_texts()[:4] == ["rougeL", "0.173", "0.264", "0.091"]
    assert row.locator(".interval").get_attribute("title") == "0.058 to 0.124, n = 116"
    assert "better" in row.inner_text()
    production = page.locator("tr", has_text="docstrings version")
    assert "now" in production.first.inner_text() and "version 2" in production.first.inner_text()


def test_a_report_has_an_address_of_its_own(workspace, panel, page):
    reports = seed.fill_pipeline(workspace)
    page.goto(f"{panel}/?recipe=docstrings&report={reports['audit'].key}")
    page.wait_for_selector("text=audit of docstrings")
    assert reports["audit"].key in page.inner_text(".stMain")


@pytest.mark.parametrize(
    ("query", "said"),
    [("recipe=nothing", "No such recipe"), ("recipe=docstrings&report=beef", "No such report")],
)
def test_an_unknown_id_in_the_address_is_a_page_that_says_so(workspace, panel, page, query, said):
    seed.fill_pipeline(workspace)
    page.goto(f"{panel}/?{query}")
    page.wait_for_selector(f"text={said}")
    assert page.locator(".stException").count() == 0


def test_markup_in_an_address_is_inert(workspace, panel, page):
    seed.fill_pipeline(workspace)
    page.goto(f"{panel}/?recipe=%3Cimg%20src%3Dhttp%3A%2F%2F127.0.0.1%3A9%2Fb.png%20onerror%3Dwindow.broken%3D1%3E")
    page.wait_for_selector("text=No such recipe")
    assert page.evaluate("window.broken") is None
    assert not [url for url in page.asked if ":9/" in url]


def test_markup_beacons_and_ansi_in_data_are_inert(workspace, panel, page):
    seed.fill_pipeline(workspace)
    page.goto(f"{panel}/?recipe=docstrings&stage=audit")
    settled(page)
    page.locator("summary", has_text="2 samples").click()
    page.wait_for_selector(".sample")
    samples = "\n".join(page.locator(".sample").all_inner_texts())
    assert seed.HOSTILE in samples
    assert seed.MARKDOWN_BEACON in samples
    assert r"\x1b[31mred" in samples and r"\u202e" in samples
    assert page.locator(".sample img, .sample a, .sample script").count() == 0
    page.locator("summary", has_text="The report as JSON").click()
    page.wait_for_selector("text=schema_version")
    assert page.evaluate("window.broken") is None
    assert not [url for url in page.asked if ":9/" in url]


def test_names_of_300_characters_keep_the_layout(workspace, panel, page):
    long = "x" * 300
    recipe = seed.resolved_recipe() | {"name": long}
    report = seed.make_report(
        "audit", [seed.gate(f"data.{long}", "closed", f"{long} {'evidence ' * 60}")], recipe=recipe, recipe_name=long
    )
    workspace.save_report(report)
    for width in (1280, 420):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{panel}/?recipe={long}")
        page.wait_for_selector('[class*="st-key-stage-audit-closed"]')
        settled(page)
        assert page.evaluate("document.querySelector('.stMain').scrollWidth") <= width


def test_a_database_that_is_away_is_a_sentence_with_a_remedy(workspace, tmp_path, page):
    away = {"SLUICE_DATABASE": "postgresql+psycopg2://127.0.0.1:9/none"}
    with serving(tmp_path / "panel.log", **away) as address:
        page.goto(f"{address}/?recipe=docstrings")
        page.wait_for_selector("text=Check SLUICE_DATABASE")
        settled(page)
        assert "The database cannot be opened" in page.inner_text(".notice >> nth=0")
        assert page.locator(".stException").count() == 0
        assert "Traceback" not in page.inner_text(".stMain")
