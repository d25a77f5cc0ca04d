"""Our source: where processes here find it, and a copy where Ray packs it, as a cluster has none of our code."""

import os
import shutil
from pathlib import Path

PACKAGES = ("cluster", "pipelines", "serve", "ui")

ROOT = Path(__file__).resolve().parent.parent
"""Folder that holds the four packages: a checkout, or site-packages with all of their neighbours."""


def python_path() -> str:
    """`PYTHONPATH` of a process that we start: our packages before what this environment names."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def copy_packages(target: Path) -> None:
    """Copy the four packages into `target`, and nothing that stands beside them.

    Ray leaves out what a .gitignore in the packed folder names: no such file comes along.
    """
    left_out = shutil.ignore_patterns("__pycache__", "*.pyc", ".gitignore", ".rayignore", "*.db")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, target / name, ignore=left_out)
