"""Pictures of the panel from a real browser: `python -m tests.ui.panel.screenshots http://127.0.0.1:8501 FOLDER`."""

import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.ui.panel.browser import ARGUMENTS, CHROMIUM, settled

PAGES = {"overview": "/?recipe={recipe}", "runs": "/runs?recipe={recipe}&run={run}", "try": "/try?recipe={recipe}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="docstrings")
    parser.add_argument("--run", default="")
    parser.add_argument("--try-query", default="", help="more of the try-it page's address, as in chat=ID")
    parser.add_argument("--pages", nargs="*", default=list(PAGES))
    parser.add_argument("--schemes", nargs="*", default=["light", "dark"])
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=860)
    parser.add_argument("--full", action="store_true", help="the whole page, however long")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for scheme in options.schemes:
            viewport = {"width": options.width, "height": options.height}
            page = browser.new_page(viewport=viewport, color_scheme=scheme)
            for name in options.pages:
                query = PAGES[name].format(recipe=options.recipe, run=options.run)
                if name == "try" and options.try_query:
                    query += f"&{options.try_query}"
                page.goto(options.address + query)
                settled(page)
                # Charts load after the page has settled.
                page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
                target = options.folder / f"panel-{name}-{scheme}.png"
                page.screenshot(path=target, full_page=options.full)
                print(target, target.stat().st_size // 1024, "KB")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
