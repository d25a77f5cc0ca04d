"""What a recipe's dataset comes to, as plain lists: the way of the audit, into a corpus and back."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from cluster.settings import Settings
from pipelines.data.example import COLUMNS, BadRow, Example
from pipelines.data.prepare import prepare
from pipelines.data.reading.read import SMALL_BYTES
from pipelines.progress import Progress
from pipelines.workspace import Workspace


@dataclass(frozen=True)
class Reading:
    """The rows of a corpus."""

    examples: list[Example]
    bad: list[BadRow]
    left_out: int
    driver: str

    @property
    def rows(self) -> int:
        return len(self.examples) + len(self.bad) + self.left_out


def read_examples(recipe, small_bytes=SMALL_BYTES):
    """Prepare the recipe's corpus in a workspace of its own, and read it whole."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(folder, "", "", Path(folder, "models"), None)
        corpus = prepare(recipe, Workspace(settings), Progress(quiet=True), small_bytes=small_bytes)
        rows = corpus.take(range(len(corpus)), COLUMNS).to_pylist()
        bad = [BadRow(**row) for row in corpus.bad.to_pylist()]
        return Reading([Example(**row) for row in rows], bad, corpus.note.left_out, corpus.note.driver)
