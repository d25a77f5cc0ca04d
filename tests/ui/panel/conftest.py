"""A panel in a process of its own and a Chromium page on it."""

import os
from pathlib import Path

import pytest

from tests.ui.panel.browser import ARGUMENTS, CHROMIUM, serving
from ui.panel import backend


@pytest.fixture(autouse=True)
def forget():
    """Nothing that another test read is known here."""
    backend.known.clear()


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    if not Path(CHROMIUM).exists():
        pytest.fail(f"The browser tests need Chromium at {CHROMIUM}: install it, or leave them out: -m 'not browser'.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def panel(workspace, tmp_path):
    """Address of a panel over this test's workspace."""
    variables = {"SLUICE_GATEWAY": os.environ.get("SLUICE_GATEWAY", "http://127.0.0.1:9")}
    with serving(tmp_path / "panel.log", **variables) as address:
        yield address


@pytest.fixture
def page(chromium):
    """A fresh page that remembers the errors and requests of its own."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    context.close()
