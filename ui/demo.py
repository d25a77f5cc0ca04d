"""`sluice demo`: from real examples to one served answer of base and tuned, with time and memory measured."""

import json
import os
import socket
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.connect import prepare_environment
from cluster.errors import UserError
from cluster.packages import ROOT
from pipelines.gates import Report, Verdict
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.recipe_file import load_recipe
from pipelines.workspace import Workspace
from serve.client import KEY_VARIABLE
from ui.memory import PeakMemory

if TYPE_CHECKING:
    from rich.table import Table

RECIPE = ROOT / "pipelines" / "recipes" / "demo.yaml"
"""What is shown when no recipe is named."""

GIB = 2**30

INTRODUCTION = """\
The demonstration: {base} learns to summarise Python's documentation.
Every step is a real one, on this machine, in {storage}:
  audit     are the docstrings of the standard library fit to learn from?
  split     training, validation and test sides that share no example, near-duplicate or module
  sweep     three short trials over learning rate and adapter rank
  train     one epoch with DeepSpeed on Ray, stopped by the validation loss
  evaluate  base against tuned on the test side, paired
  promote   into the registry, with everything that it came from
  serve     one answer of each over HTTP
About a quarter of an hour on two cores; what was done before is not done again (--fresh does).
"""


@dataclass(frozen=True)
class Answers:
    """One test example, asked of both models."""

    prompt: str
    reference: str
    base: str
    tuned: str


def run_demo(
    workspace: Workspace,
    progress: Progress,
    *,
    port: int = 8000,
    fresh: bool = False,
    recipe_path: str | Path = RECIPE,
    overrides: Sequence[str] = (),
) -> int:
    """Audit to promote, one answer of base and of tuned from the service, and the tables; the exit code."""
    from pipelines.run import exit_code, run_pipeline
    from pipelines.summary import show_summary

    prepare_environment()
    started = time.monotonic()
    recipe = load_recipe(recipe_path, list(overrides))
    if recipe_path == RECIPE:
        progress.say(INTRODUCTION.format(base=recipe.base.base, storage=workspace.settings.storage))
    if recipe.serve.keys == "required" and not os.environ.get(KEY_VARIABLE):
        raise UserError(
            f"{recipe.name}: serve.keys is required and {KEY_VARIABLE} holds no key: the last step would be refused.",
            "Make one with `sluice keys add RECIPE NAME`, or set serve.keys=off.",
        )
    answers = None
    with PeakMemory() as memory:
        reports = run_pipeline(recipe, workspace, progress, fresh=fresh)
        if reports[-1].verdict is not Verdict.CLOSED:
            progress.say("\n== serve == One test example, asked of base and of tuned.")
            answers = ask_both(recipe, reports, workspace, free_port(port))
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    if answers is not None:
        show_answers(answers)
    facts = [f"This took {minutes} min {seconds:02d} s and at most {memory.peak_bytes / GIB:.1f} GiB of memory."]
    path = Path(recipe_path)
    show_summary(recipe, reports, str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path), facts)
    return exit_code(reports)


def ask_both(recipe: Recipe, reports: list[Report], workspace: Workspace, port: int) -> Answers:
    """A test example, answered by both candidates over HTTP; the service is hosted for that alone."""
    from serve.app import start
    from serve.client import Client
    from serve.listening import Address

    *prompt, reference = first_test_conversation(reports)
    most = min(recipe.evaluate.max_new_tokens, recipe.serve.max_new_tokens)
    handle = start(recipe, workspace, Address(port=port))
    try:
        with Client(handle.url) as client:
            base, tuned = (
                client.chat(prompt, user="demo", model=arm, max_tokens=most, temperature=0).text
                for arm in ("base", "tuned")
            )
    finally:
        handle.stop()
    return Answers(prompt[-1]["content"], reference["content"], base, tuned)


def first_test_conversation(reports: list[Report]) -> list[dict[str, str]]:
    """The turns of the test side's first row: not chosen by how well it went."""
    from pipelines.data.versioned.table import read_side

    split = next(report for report in reports if report.stage == "split")
    turns: list[dict[str, str]] = json.loads(read_side(split, "test").column("messages")[0].as_py())
    return turns


def free_port(wanted: int) -> int:
    """`wanted` when it is free on this machine, else another one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def show_answers(answers: Answers) -> None:
    """Question, reference and both answers, one below the other, on standard output."""
    from rich.console import Console

    Console(highlight=False).print(answer_table(answers))


def answer_table(answers: Answers) -> "Table":
    """A row each for the prompt, the reference and both answers."""
    from rich.table import Table
    from rich.text import Text

    title = "Asked over HTTP: the first conversation of the test side"
    table = Table(title=title, title_justify="left", show_header=False, show_lines=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {"prompt": answers.prompt, "by people": answers.reference, "base": answers.base, "tuned": answers.tuned}
    for name, text in rows.items():
        table.add_row(name, Text(inert(text).strip() or "(nothing)"))
    return table


def inert(text: str) -> str:
    """`text` without the control characters by which a model's answer could steer the terminal."""

    def harmless(character: str) -> bool:
        return character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf")

    return "".join(character if harmless(character) else "\N{REPLACEMENT CHARACTER}" for character in text)
