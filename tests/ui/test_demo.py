"""The demonstration's own parts; the whole of it is tried with the pipeline."""

import os
import socket
import subprocess
import sys

from ui.demo import Answers, answer_table, free_port, inert
from ui.memory import PeakMemory, tree_bytes


def test_a_taken_port_is_replaced_by_a_free_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port
    assert free_port(port) == port


def test_an_answer_cannot_steer_the_terminal():
    assert inert("red \x1b[31m\x07\u202etext\nand\ttabs") == "red \ufffd[31m\ufffd\ufffdtext\nand\ttabs"


def test_answers_are_shown_as_text_and_not_as_markup():
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    table = answer_table(Answers("Why?", "[bold]Because[/bold]", "\x1b[2J", "[/nothing]"))
    Console(file=out, width=80).print(table)
    assert "[bold]Because[/bold]" in out.getvalue()
    assert "[/nothing]" in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()


def test_the_peak_counts_what_a_started_process_used():
    before = tree_bytes()
    program = "import sys; block = bytearray(200 * 2**20); print('filled', flush=True); sys.stdin.read()"
    with PeakMemory(interval_s=0.02) as memory:
        child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"filled\n"
        while memory.peak_bytes < before + 190 * 2**20:
            assert child.poll() is None
            os.sched_yield()
        child.communicate(b"")
    assert memory.peak_bytes < before + 400 * 2**20
    assert tree_bytes() < memory.peak_bytes - 150 * 2**20
