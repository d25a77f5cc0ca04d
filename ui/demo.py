"""`sluice demo`: from real examples to one served answer of base and tuned, with time and memory measured."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cluster.connect import ROOT, prepare_environment
from pipelines.gates import Report, Verdict
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.recipe_file import load_recipe
from pipelines.workspace import Workspace

RECIPE = ROOT / "pipelines" / "recipes" / "demo.yaml"
SAMPLE_EVERY_S = 2.0
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


class MemoryMeter:
    """Peak memory (bytes) of this process and all that it started, sampled."""

    def __init__(self) -> None:
        self.peak = 0

    @contextmanager
    def running(self) -> "Iterator[MemoryMeter]":
        """Sample until the end of the block."""
        ended = threading.Event()

        def sample() -> None:
            while not ended.is_set():
                self.peak = max(self.peak, family_memory())
                ended.wait(SAMPLE_EVERY_S)

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()


def family_memory() -> int:
    """Bytes that this process and its descendants hold; pages that several share count once (PSS, on Linux)."""
    import psutil

    total = 0
    present = psutil.Process()
    for process in [present, *present.children(recursive=True)]:
        # A process may end while it is looked at.
        with suppress(psutil.Error):
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    return total


def run_demo(workspace: Workspace, progress: Progress, *, port: int, fresh: bool) -> int:
    """Run the demonstration and print its tables; the exit code."""
    from pipelines.run import exit_code, run_pipeline
    from pipelines.summary import show_summary

    prepare_environment()
    started = time.monotonic()
    recipe = load_recipe(RECIPE)
    progress.say(INTRODUCTION.format(base=recipe.base.base, storage=workspace.settings.storage))
    facts: list[str] = []
    with MemoryMeter().running() as meter:
        reports = run_pipeline(recipe, workspace, progress, fresh=fresh)
        if reports[-1].verdict is not Verdict.CLOSED:
            facts += served_answers(recipe, workspace, progress, reports, port)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    facts.append(f"This took {minutes} min {seconds:02d} s and at most {meter.peak / GIB:.1f} GiB of memory.")
    shown = RECIPE.relative_to(ROOT) if RECIPE.is_relative_to(ROOT) else RECIPE
    show_summary(recipe, reports, str(shown), facts)
    return exit_code(reports)


def served_answers(
    recipe: Recipe, workspace: Workspace, progress: Progress, reports: list[Report], port: int
) -> list[str]:
    """What base and tuned say over HTTP to the first prompt of the test side; hosted for that alone."""
    from serve.app import start
    from serve.client import Client

    *prompt, reference = first_test_conversation(reports)
    progress.say("\n== serve == Base and tuned behind an OpenAI-compatible address.")
    handle = start(recipe, workspace, "127.0.0.1", port)
    try:
        with Client(handle.url) as client:
            answers = {arm: client.chat(prompt, user="demo", model=arm).text for arm in ("base", "tuned")}
    finally:
        handle.stop()
    return [
        "",
        f"Asked over HTTP (the first conversation of the test side):\n{prompt[-1]['content']}\n",
        f"  by its authors: {reference['content']}",
        *(f"  {arm + ':':<15} {' '.join(text.split())}" for arm, text in answers.items()),
        "",
    ]


def first_test_conversation(reports: list[Report]) -> list[dict[str, str]]:
    """The turns of the test side's first row: not chosen by how well it went."""
    from pipelines.data.table import read_side

    split = next(report for report in reports if report.stage == "split")
    turns: list[dict[str, str]] = json.loads(read_side(split, "test").column("messages")[0].as_py())
    return turns
