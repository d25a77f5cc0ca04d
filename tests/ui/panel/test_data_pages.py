import pytest

from tests.pipelines.data import planted
from tests.ui.panel.browser import settled
from tests.waiting import until

pytestmark = pytest.mark.browser


@pytest.fixture
def open_data(data_panel, page):
    """`open_data("view=browse") -> page` on that view of the planted data, drawn."""

    def go(query="", recipe="planted"):
        page.goto(f"{data_panel}/data?recipe={recipe}&{query}")
        settled(page)
        return page

    yield go
    assert page.locator(".stException").count() == 0
    assert page.evaluate("window.broken") is None
    assert not [url for url in page.asked if ":9/" in url]


def test_the_audit_shows_gates_charts_and_origins_and_goes_to_others_as_a_file(open_data):
    page = open_data()
    page.wait_for_selector(".js-plotly-plot >> nth=1")
    text = page.inner_text(".stMain")
    assert "data.anomalies" in text and "data.private" in text
    assert "Labels" in text and "desk notes" in text
    titles = page.locator(".js-plotly-plot .gtitle").all_text_contents()
    assert {"Length of the prompts", "Sizes of the clusters"} <= set(titles)
    with page.expect_download() as download:
        page.get_by_role("button", name="Report for others").click()
    content = download.value.path().read_text("utf-8")
    assert content.startswith("<!DOCTYPE html>") and "data.private" in content and "<script" not in content


def test_a_view_is_chosen_by_its_tab_and_kept_by_a_reload(open_data):
    page = open_data()
    page.get_by_role("button", name="Clusters").click()
    page.wait_for_url("**/data?recipe=planted&view=clusters")
    page.wait_for_selector("mark.less >> text=receipt")
    page.reload()
    page.wait_for_selector("mark.more >> text=voucher")
    page.get_by_role("button", name="Exact repeats").click()
    page.wait_for_selector("text=row 21, row 310")
    assert "repeats=exact" in page.url
    page.go_back()
    page.wait_for_selector("mark.less >> text=receipt")


def test_rows_are_filtered_in_the_address_and_shown_whole_and_inert(open_data):
    page = open_data("view=browse&suspect=encoding")
    page.wait_for_selector("text=1 to 1 of 1 rows")
    page.get_by_label("text contains").fill("<img src")
    page.get_by_label("text contains").press("Enter")
    page.wait_for_url("**contains=*")
    page.wait_for_selector("text=No row passes these filters.")
    page = open_data("view=browse&contains=%3Cimg+src&row=323")
    page.wait_for_selector(".turns")
    said = page.inner_text(".turns")
    assert planted.HOSTILE in said and r"\x1b[31mred" in said and r"\u202e" in said
    assert page.locator(".turns img, .turns script").count() == 0


def test_personal_data_are_masked_on_every_view(open_data):
    page = open_data("view=browse&private=any&row=316")
    page.wait_for_selector(".turns")
    assert "<email>" in page.inner_text(".turns")
    for query in ("view=browse&private=any&row=316", "view=anomalies&suspect=gibberish", ""):
        assert planted.MAIL not in open_data(query).content()


def test_a_row_leads_to_its_cluster(open_data):
    page = open_data("view=browse&row=301")
    page.get_by_role("button", name="One of 3 rows of a cluster").click()
    page.wait_for_url("**cluster=1*")
    page.wait_for_selector("text=3 rows, 3 texts")
    assert until(lambda: page.locator(".pair").count() == 2, "both pairs")


def test_a_suspect_is_dropped_with_a_name_and_a_reason(open_data, audited):
    from pipelines import review

    page = open_data("view=anomalies&suspect=language")
    page.wait_for_selector("text=Der Glockenturm")
    page.get_by_role("button", name="Drop").click()
    page.wait_for_selector("text=a decision needs a name and a reason")
    # While a page is drawn anew its fields may stand there twice.
    settled(page)
    page.get_by_label("Your name").fill("Jane")
    page.get_by_label("Your name").press("Enter")
    settled(page)
    page.get_by_label("Because").fill("<b>Nobody</b> asked in German.")
    page.get_by_role("button", name="Drop").dblclick()
    page.wait_for_selector("text=Nothing waits here.")
    decided = [one for one in review.decisions(audited[0], "planted").values() if "language" in one.kinds]
    assert [(one.decision, one.by, one.because) for one in decided] == [
        ("drop", "Jane", "<b>Nobody</b> asked in German.")
    ]
    page.get_by_role("button", name="Show what is decided too").click()
    page.wait_for_selector("text=Jane: <b>Nobody</b> asked in German.")
    assert until(lambda: "decided=too" in page.url, "the address")


def test_the_queue_tells_thresholds_and_labels_in_doubt(open_data):
    page = open_data("view=anomalies")
    page.locator("summary", has_text="Thresholds").click()
    row = page.locator("tr", has=page.locator("td:text-is('gibberish')"))
    assert row.locator("td").nth(1).inner_text() == "8" and row.locator("td").nth(5).inner_text()
    page = open_data("view=anomalies", recipe="leaky")
    page.locator("summary", has_text="Labels in doubt").click()
    page.wait_for_selector("text=a model of the other folds says")


def test_rows_that_were_kept_aside_are_shown_whole_inert_and_masked(open_data):
    page = open_data("view=aside")
    page.wait_for_selector("text=1 to 12 of 12 rows")
    text = page.inner_text(".stMain")
    assert "planted.jsonl, row 344" in text and r"\x1b[31mred" in text and "<script>" in text
    assert page.locator(".finding img, .finding script").count() == 0
    assert planted.MAIL not in page.content()
    open_data("view=aside", recipe="leaky").wait_for_selector("text=Every row could be read.")


def test_leaks_stand_side_by_side(open_data):
    page = open_data("view=leakage", recipe="leaky")
    page.wait_for_selector(".pair")
    text = page.inner_text(".stMain")
    assert "split.leakage" in text and "split.heal" in text and "of one group" in text
    assert page.locator(".share").count() == 3
    page.get_by_role("button", name="Next").click()
    page.wait_for_url("**offset=10*")
    page.wait_for_selector("text=11 to 20 of")
    page = open_data("view=leakage")
    page.wait_for_selector("text=none was found")
    assert "Nothing was fitted to it yet." in page.inner_text(".stMain")


def test_versions_are_listed_and_compared(open_data):
    page = open_data("view=versions")
    page.wait_for_selector("text=of the newest report")
    page.wait_for_selector(".facts >> text=added")
    assert page.locator(".facts dt").all_inner_texts() == ["added", "removed", "changed", "moved"]
    assert page.locator(".facts dd").all_inner_texts() == ["20", "0", "0", "0"]
    page.locator("summary", has_text="added").click()
    page.wait_for_selector("text=Question 300")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("view=nothing", "No such view of the data"),
        ("view=browse&row=999", "No such row"),
        ("view=browse&row=%3Cb%3E", "No such row"),
        ("view=clusters&cluster=302", "No such cluster"),
        ("view=clusters&repeats=x", "No such kind of repeats"),
        ("view=anomalies&suspect=%3Cimg%3E", "No such kind of suspicion"),
        ("view=versions&after=77", "No such version"),
    ],
)
def test_an_unknown_id_in_the_address_is_a_page_that_says_so(open_data, query, said):
    page = open_data(query)
    page.wait_for_selector(f"text={said}")


def test_a_recipe_that_was_never_audited_is_not_found(open_data):
    open_data(recipe="nobody").wait_for_selector("text=No such recipe")


def test_caches_that_are_gone_from_this_machine_are_made_again_by_a_command(open_data, audited):
    from pathlib import Path

    corpus = Path(audited[1]["planted"][0].produced["corpus"])
    away = corpus.rename(corpus.with_name("away"))
    try:
        page = open_data("view=browse")
        page.wait_for_selector("text=sluice audit RECIPE --fresh")
        page = open_data()
        page.wait_for_selector("text=sluice audit RECIPE --fresh")
        page.wait_for_selector("text=data.private")
    finally:
        away.rename(corpus)


def test_names_of_300_characters_and_a_narrow_window_keep_the_layout(open_data, page):
    views = ("", "view=browse&row=1", "view=clusters", "view=anomalies", "view=aside", "view=leakage", "view=versions")
    for width in (1280, 420):
        page.set_viewport_size({"width": width, "height": 900})
        for query in views:
            open_data(query, recipe="leaky")
            assert page.evaluate("document.querySelector('.stMain').scrollWidth") <= width, (width, query)
            if query in ("", "view=browse&row=1"):
                assert until(lambda: "x" * 100 in page.content(), "the long names")
        open_data("view=browse&source=" + "x" * 300)
        assert page.evaluate("document.querySelector('.stMain').scrollWidth") <= width, width
