"""Progress without a terminal: lines of a log."""

import pytest

from pipelines import progress
from pipelines.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, to be set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_at_each_tenth_however_many_steps(capsys, clock):
    with Progress().bar("training", 200) as bar:
        for step in range(1, 201):
            bar.update(step, "loss 2.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["training: 1/200 loss 2.5", "training: 20/200 loss 2.5"] and lines[-1].startswith(
        "training: 200/200"
    )
    assert len(lines) == 11


def test_a_long_stage_says_something_between_the_tenths(capsys, clock):
    with Progress().bar("training", 100_000) as bar:
        for step in range(1, 11):
            clock[0] += 10
            bar.update(step)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["training: 1/100000", "training: 5/100000", "training: 9/100000"]


def test_quiet_is_quiet(capsys):
    with Progress(quiet=True).bar("training", 2) as bar:
        bar.update(1)
    assert capsys.readouterr() == ("", "")
