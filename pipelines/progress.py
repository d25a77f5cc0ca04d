"""Progress for people: on standard error, so that `--json` leaves standard output to the report."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

LINE_S = 30
"""Where there is no terminal, what goes on tells so at least this often (seconds), if it is heard of."""


class Progress:
    """Says what happens; silent when `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    @property
    def console(self) -> "Console":
        """A console on standard error."""
        from rich.console import Console

        return Console(stderr=True, quiet=self.quiet, highlight=False)

    def say(self, text: str) -> None:
        """One line, never interpreted as markup."""
        self.console.print(text, markup=False)

    @contextmanager
    def bar(self, description: str, total: float | None = None) -> "Iterator[Bar]":
        """A bar over `total` units (None: unknown); plain lines where there is no terminal."""
        console = self.console
        if self.quiet or not console.is_terminal:
            bar = Bar(None, 0, self, description, total)
            yield bar
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with RichProgress(*columns, console=console, transient=False) as rich_bar:
            yield Bar(rich_bar, rich_bar.add_task(description, total=total, note=""), self, description, total)


class Bar:
    """A running bar: `update` moves it."""

    def __init__(self, rich_bar: Any, task: Any, progress: Progress, description: str, total: float | None) -> None:
        self._rich_bar, self._task, self._progress = rich_bar, task, progress
        self._description, self._total = description, total
        self._tenth, self._told_at = -1, time.monotonic()

    def update(self, completed: float, note: str = "", total: float | None = None) -> None:
        """Set how much is done, with a short note (loss, tokens/s)."""
        self._total = total or self._total
        if self._rich_bar is not None:
            self._rich_bar.update(self._task, completed=completed, note=note, total=self._total)
            return
        # Without a terminal (a job's log) a line at each tenth, and at times in between, is enough.
        tenth = int(10 * completed / self._total) if self._total else int(completed)
        now = time.monotonic()
        if tenth > self._tenth or now - self._told_at > LINE_S:
            self._tenth, self._told_at = tenth, now
            of = f"/{self._total:g}" if self._total else ""
            self._progress.say(f"{self._description}: {completed:g}{of} {note}".rstrip())
