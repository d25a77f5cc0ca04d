"""Pictures of the panel from a real browser.

`python -m tests.ui.panel.screenshots FOLDER` audits the trap and the docstrings in a workspace of its own and takes the
data pages; `... FOLDER http://127.0.0.1:8501` takes the pages of a panel that runs.
"""

import argparse
import contextlib
import os
import tempfile
from pathlib import Path
from unittest.mock import patch

from playwright.sync_api import sync_playwright

from tests.ui.panel.browser import ARGUMENTS, CHROMIUM, serving, settled

PAGES = {
    "overview": "/?recipe={recipe}",
    "launch": "/launch?recipe={recipe}",
    "runs": "/runs?recipe={recipe}&run={run}",
    "compare": "/runs?recipe={recipe}&run={run}&with={others}",
    "sweeps": "/sweeps?recipe={recipe}&sweep={sweep}",
    "experiments": "/experiments?recipe={recipe}&experiment={experiment}",
    "production": "/production?recipe={recipe}",
    "jobs": "/jobs?recipe={recipe}",
    "try": "/try?recipe={recipe}",
}
DATA_PAGES = {
    "data-trap": "/data?recipe=trap",
    "data-audit": "/data?recipe=docstrings",
    "data-clusters": "/data?recipe=docstrings&view=clusters",
    "data-anomalies": "/data?recipe=docstrings&view=anomalies",
    "data-aside": "/data?recipe=trap&view=aside",
}
"""Of the audits that this makes."""
SHOWN = ("data-trap", "data-audit")
"""The ones that the README shows."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("address", nargs="?", help="a running panel; without it, the data pages of audits made here")
    parser.add_argument("--recipe", default="docstrings")
    parser.add_argument("--run", default="")
    parser.add_argument("--sweep", default="")
    parser.add_argument("--experiment", default="")
    parser.add_argument("--with", dest="others", default="", help="ids of runs to compare it with, a comma between")
    parser.add_argument("--try-query", default="", help="more of the try-it page's address, as in chat=ID")
    parser.add_argument("--pages", nargs="*", choices=[*PAGES, *DATA_PAGES])
    parser.add_argument("--schemes", nargs="*", default=["light"], choices=["light", "dark"])
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=860)
    parser.add_argument("--full", action="store_true", help="the whole page, however long")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    wanted = options.pages or (list(PAGES) if options.address else list(SHOWN))
    with contextlib.ExitStack() as stack:
        address = options.address or stack.enter_context(audits())
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        stack.callback(browser.close)
        for scheme in options.schemes:
            viewport = {"width": options.width, "height": options.height}
            page = browser.new_page(viewport=viewport, color_scheme=scheme)
            for name in wanted:
                query = (PAGES | DATA_PAGES)[name].format(**vars(options))
                if name == "try" and options.try_query:
                    query += f"&{options.try_query}"
                take(page, address + query, options.folder / f"panel-{name}-{scheme}.png", options.full)
            page.close()


def take(page, address, target, full):
    page.goto(address)
    settled(page)
    # Charts load after the page has settled.
    page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
    page.screenshot(path=target, full_page=full)
    print(target, target.stat().st_size // 1024, "KB")


@contextlib.contextmanager
def audits():
    """A panel over fresh audits of the trap and of the docstrings; yields its address."""
    from cluster.connect import ROOT
    from cluster.settings import Settings
    from pipelines import audit
    from pipelines.recipe_file import load_recipe
    from pipelines.workspace import Workspace

    with tempfile.TemporaryDirectory(prefix="sluice-pictures-") as folder:
        here = Settings.from_environment()
        variables = {"SLUICE_STORAGE": folder, "SLUICE_MODELS": str(here.models)}
        with patch.dict(os.environ, variables):
            for name in ("trap", "demo"):
                audit.STAGE.perform(load_recipe(ROOT / "pipelines" / "recipes" / f"{name}.yaml"), Workspace())
        with serving(Path(folder) / "panel.log", SLUICE_GATEWAY="http://127.0.0.1:9", **variables) as address:
            yield address


if __name__ == "__main__":
    main()
