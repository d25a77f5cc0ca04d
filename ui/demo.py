"""`sluice demo`: real examples to a tuned model that answers, and what it came to."""

import socket
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.connect import prepare_environment
from cluster.packages import ROOT
from pipelines.gates import Report, Verdict
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.workspace import Workspace
from ui.memory import PeakMemory

if TYPE_CHECKING:
    from rich.table import Table

RECIPE = ROOT / "pipelines" / "recipes" / "demo.yaml"
"""What is shown when no recipe is named."""


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
    recipe_path: str | Path = RECIPE,
    overrides: Sequence[str] = (),
    port: int = 8000,
    fresh: bool = False,
) -> int:
    """Audit to promote, one answer of base and of tuned from the service, and the table; the exit code."""
    from pipelines.recipe_file import load_recipe
    from pipelines.run import exit_code, run_pipeline
    from pipelines.summary import show_summary

    prepare_environment()
    recipe = load_recipe(recipe_path, list(overrides))
    started = time.monotonic()
    with PeakMemory() as memory:
        reports = run_pipeline(recipe, workspace, progress, fresh)
        answers = None
        if reports[-1].verdict is not Verdict.CLOSED:
            progress.say("\n== serve == One test example, asked of base and of tuned.")
            answers = ask_both(recipe, reports, workspace, free_port(port))
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    if answers is not None:
        show_answers(answers)
    facts = [f"Total time {minutes} min {seconds:02d} s, peak memory {memory.peak_bytes / 2**30:.1f} GiB."]
    show_summary(recipe, reports, str(recipe_path), facts)
    return exit_code(reports)


def ask_both(recipe: Recipe, reports: list[Report], workspace: Workspace, port: int) -> Answers:
    """The first test example, answered by both candidates through the service's own address."""
    from openai import OpenAI

    from pipelines.models.candidate import candidates
    from serve.app import start

    train = next(report for report in reports if report.stage == "train")
    messages = first_test_example(next(report for report in reports if report.stage == "split"))
    found = candidates(train, workspace)
    handle = start(recipe, workspace, "127.0.0.1", port)
    try:
        client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=300, max_retries=0)
        answers = {}
        for name, candidate in found.items():
            completion = client.chat.completions.create(
                model=candidate.model_id,
                messages=messages[:-1],  # type: ignore[arg-type]
                max_tokens=min(recipe.evaluate.max_new_tokens, recipe.serve.max_new_tokens),
                temperature=0,
                user="demo",
            )
            answers[name] = completion.choices[0].message.content or ""
    finally:
        handle.stop()
    return Answers(messages[-2]["content"], messages[-1]["content"], answers["base"], answers["tuned"])


def first_test_example(split: Report) -> list[dict[str, str]]:
    """The conversation of the test example with the smallest id: not chosen by how well it is answered."""
    import json

    from pipelines.data.table import read_side

    messages: list[dict[str, str]] = json.loads(read_side(split, "test").column("messages")[0].as_py())
    return messages


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

    table = Table(title="One test example", title_justify="left", show_header=False, show_lines=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {"prompt": answers.prompt, "reference": answers.reference, "base": answers.base, "tuned": answers.tuned}
    for name, text in rows.items():
        table.add_row(name, Text(inert(text)))
    return table


def inert(text: str) -> str:
    """`text` without the control characters by which a model's answer could steer the terminal."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf") else "\N{REPLACEMENT CHARACTER}" for c in text
    )
