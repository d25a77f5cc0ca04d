"""Examples in installed packages, parsed and never imported."""

import importlib.metadata
import subprocess
import sys

import pytest

from cluster.errors import UserError
from pipelines.data.reading.packages import docstring_examples, find_package
from pipelines.data.reading.read import dataset_fingerprint
from tests.pipelines.data.rows_read import read_examples

pytestmark = pytest.mark.slow


def test_the_chatterbot_corpus_has_2026_conversations_of_which_899_are_unique(reading_of):
    reading = read_examples(reading_of("package://chatterbot-corpus#chatterbot"))
    # One conversation of the corpus is a text instead of a list of lines.
    assert [bad.kind for bad in reading.bad] == ["type"]
    assert len(reading.examples) + len(reading.bad) == 2026
    assert len({example.id for example in reading.examples}) + len(reading.bad) == 899
    assert all(example.by_a_person and example.collector and example.source for example in reading.examples)
    assert max(len(example.turns) for example in reading.examples) > 10


def test_docstrings_of_the_standard_library_become_summaries(reading_of):
    reading = read_examples(reading_of("package://python#docstrings", group_by="module"))
    assert len(reading.examples) > 1500 and reading.bad == []
    assert len({example.group for example in reading.examples}) > 100
    (textwrap,) = (e for e in reading.examples if e.group == "textwrap" and "Fill a single paragraph" in e.messages)
    body, summary = (turn["content"] for turn in textwrap.turns)
    assert summary == "Fill a single paragraph of text, returning a new string."
    assert body.startswith("Reformat the single paragraph in 'text' to fit in lines of no more")
    assert textwrap.annotator == "the authors of python's textwrap"
    assert not any(example.group.startswith(("test.", "site-packages")) for example in reading.examples)


def test_only_a_summary_a_blank_line_and_a_body_make_an_example():
    body = "word " * 20
    source = f'''
"""A module of four words.

{body}
"""
def two_line_summary():
    """A summary that goes on
    in the next line.

    {body}
    """
class TooShort:
    """Three words only.

    {body}
    """
if True:
    async def inner():
        """One that stands in a branch.

        {body}
        """
def without_a_body():
    """Nothing follows this one here."""
'''.encode()
    assert sorted(docstring_examples(source)) == [
        ("", "A module of four words.", body.strip()),
        ("inner", "One that stands in a branch.", body.strip()),
    ]
    assert list(docstring_examples(b"def broken(:")) == []
    assert list(docstring_examples(b"\x00")) == []


def test_an_installed_package_is_parsed_without_being_imported():
    code = (
        "import sys; from pipelines.data.reading.packages import find_package;"
        "rows = list(find_package('package://numpy#docstrings').rows());"
        "assert len(rows) > 100; assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_version_is_in_the_source_and_in_the_fingerprint(reading_of, monkeypatch):
    recipe = reading_of("package://chatterbot-corpus#chatterbot")
    version = importlib.metadata.version("chatterbot-corpus")
    assert read_examples(recipe).examples[0].source.startswith(f"chatterbot-corpus {version}: ")
    before = dataset_fingerprint(recipe)
    assert dataset_fingerprint(recipe) == before
    found = importlib.metadata.distribution

    class Newer:
        """The installed distribution under another version; which class it is depends on what was imported."""

        version = "0.0.0"

        def __init__(self, name):
            self._found = found(name)

        def __getattr__(self, name):
            return getattr(self._found, name)

    monkeypatch.setattr(importlib.metadata, "distribution", Newer)
    assert dataset_fingerprint(recipe) != before


@pytest.mark.parametrize(
    "source,said",
    [
        ("package://numpy", "no reader is no known reader"),
        ("package://numpy#docstring", "did you mean docstrings?"),
        ("package://numpi#docstrings", "did you mean numpy?"),
        ("package://#docstrings", "without a name"),
        ("package://numpy#chatterbot", "has nothing that chatterbot reads"),
    ],
)
def test_what_cannot_be_found_is_named_with_what_is_known(source, said):
    with pytest.raises(UserError) as caught:
        find_package(source)
    assert said in str(caught.value)
