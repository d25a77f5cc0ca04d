"""A panel in a process of its own and a Chromium page on it."""

import contextlib
import threading
from pathlib import Path

import pytest

from pipelines.workspace import Workspace
from tests.ui.panel import seed
from tests.ui.panel.browser import ARGUMENTS, CHROMIUM, free_port, resize, serving, serving_as_users_do
from tests.waiting import PATIENCE_S, until
from ui.panel import backend


@pytest.fixture(autouse=True)
def forget():
    """Nothing that another test read is known here."""
    backend.known.clear()


@pytest.fixture(scope="session")
def chromium():
    """The memory of a real browser, which pages are opened in."""
    from playwright.sync_api import sync_playwright

    if not Path(CHROMIUM).exists():
        pytest.fail(f"The browser tests need Chromium at {CHROMIUM}: install it, or leave them out: -m 'not browser'.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        # What fades in is drawn sixty times a second by the processor.
        context = browser.new_context(reduced_motion="reduce")
        context.set_default_timeout(PATIENCE_S * 1000)
        # Keeps the window open, which takes a second to build.
        context.new_page()
        yield context
        browser.close()


@pytest.fixture
def panel(workspace, tmp_path):
    """Address of a panel over this test's workspace, no service in reach."""
    with serving(tmp_path / "panel.log", SLUICE_GATEWAY="http://127.0.0.1:9") as address:
        yield address


@pytest.fixture
def page(chromium):
    """A fresh page that remembers the requests of its own; it and what a test opened beside it leave nothing behind.

    All share what a browser keeps of files: Streamlit's scripts are long in coming and in being compiled.
    """
    from playwright.sync_api import Error

    page = chromium.new_page()
    # One that another tab hides is not drawn, and what waits for the next drawing waits for ever.
    page.bring_to_front()
    resize(page, 1280)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    for each in chromium.pages[1:]:
        with contextlib.suppress(Error):
            # Where none was ever loaded there is no storage.
            each.evaluate("() => { localStorage.clear(); sessionStorage.clear() }")
        each.close()
    chromium.clear_cookies()


@pytest.fixture(scope="session")
def audited(tmp_path_factory):
    """A workspace with real audits and splits of the planted rows: see `seed.fill_data`. Its reports by recipe."""
    folder = tmp_path_factory.mktemp("audited")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SLUICE_STORAGE", str(folder / "workspace"))
        workspace = Workspace()
    return workspace, seed.fill_data(workspace, folder)


@pytest.fixture(scope="session")
def data_panel(audited, tmp_path_factory):
    """Address of a panel over it."""
    log = tmp_path_factory.mktemp("panel") / "panel.log"
    variables = {"SLUICE_STORAGE": audited[0].settings.storage, "SLUICE_GATEWAY": "http://127.0.0.1:9"}
    with serving_as_users_do(log, **variables) as address:
        yield address


@pytest.fixture(scope="session")
def engine(tiny_model):
    """The engine deployment's own class with the tiny model on both arms, in this process."""
    from pipelines.engines.protocol import EngineOptions
    from pipelines.models.candidate import Candidate
    from serve.hosting import EngineReplica

    arms = {
        side: Candidate(side, str(tiny_model), None, "", f"docstrings-{side}")  # the panel does not care who answers
        for side in ("base", "tuned")
    }
    replica = EngineReplica(arms, EngineOptions("transformers", "float32", 4, 8))
    yield replica
    for one in set(replica._engines.values()):
        one.close()


@pytest.fixture
def service(engine, workspace):
    """A real gateway over the engine in this test's workspace; the value is its address."""
    import uvicorn

    from serve.gateway import build_gateway
    from serve.service import ChatService, Hosted

    hosted = Hosted(
        recipe_name="docstrings",
        seed="docstrings:17",
        models={"base": "docstrings-base", "tuned": "docstrings-tuned"},
        weights={"base": 1.0, "tuned": 1.0},
        max_new_tokens=24,
        log_prompts=True,
        created=1,
    )
    chat = ChatService(hosted, engine, workspace)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(build_gateway(chat), host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, "the gateway")
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)
    chat.log.close()
