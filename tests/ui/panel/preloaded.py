"""Panels forked from one process that has imported what their pages need: seconds less for each of many.

Run as a module. A line of JSON on its standard input asks for a panel (`arguments` of Streamlit, `environment`, `log`);
a line on its standard output is the panel's process id.
"""

import importlib
import json
import os
import pkgutil
import signal
import sys

import alembic.command  # noqa: F401
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
import optuna.importance  # noqa: F401
import sqlalchemy.dialects.sqlite  # noqa: F401
import streamlit.web.server.starlette.starlette_app  # noqa: F401
import uvicorn.protocols.http.httptools_impl
import uvicorn.protocols.websockets.websockets_impl  # noqa: F401
from streamlit.web import cli

import ui.panel
from pipelines.tracking import runs  # noqa: F401
from serve.experimentation import look, power  # noqa: F401

# The app and its views are scripts, which Streamlit runs itself.
for module in pkgutil.iter_modules(ui.panel.__path__, "ui.panel."):
    if module.name not in ("ui.panel.app", "ui.panel.views"):
        importlib.import_module(module.name)


def main() -> None:
    """Fork until the input ends."""
    # The kernel buries the panels: nobody here waits for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if panel := os.fork():
            print(panel, flush=True)
        else:
            _become(json.loads(line))


def _become(panel: dict) -> None:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(panel["environment"])
        nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(panel["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for ours, theirs in ((0, nothing), (1, log), (2, log)):
            os.dup2(theirs, ours)
        cli.main(panel["arguments"], prog_name="streamlit")
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
