"""The demonstration's own parts; the whole of it is tried with the pipeline."""

import json
import os
import random
import socket
import subprocess
import sys

import pytest

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


WORDS = (
    "red",
    "blue",
    "small",
    "large",
    "old",
    "new",
    "car",
    "house",
    "river",
    "stone",
    "bird",
    "tree",
    "road",
    "lamp",
)


def write_examples(folder, count=160):
    """Descriptions that a random model can begin to learn: the answer's words stand in the prompt."""
    draw = random.Random(0)
    rows = []
    for number in range(count):
        words = " ".join(draw.choice(WORDS) for _ in range(8))
        answer = {"completion": f"the case {number} is {words}", "annotator": "jane", "source": "made"}
        rows.append({"prompt": f"Case {number}: describe {words} number {number * 7}"} | answer)
    (folder / "examples.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


@pytest.mark.cluster
def test_the_whole_demonstration_on_a_tiny_model(ray_cluster, recipe_file, tiny_model, tmp_path, capsys):
    from pipelines.progress import Progress
    from pipelines.tracking import deployments, registry
    from ui.demo import run_demo

    write_examples(tmp_path)
    path = recipe_file(
        name="tiny-demo",
        models=[{"base": str(tiny_model)}],
        audit={"min_examples": 100, "max_duplicate_share": 1.0, "near_duplicate_threshold": 1.0},
        train={"learning_rate": 1e-2, "max_steps": 12, "global_batch_size": 4, "max_length": 256, "eval_steps": 6}
        | {"dtype": "float32"},
        evaluate={"primary": "loss", "max_examples": 12, "max_new_tokens": 8, "resamples": 200},
    )

    code = run_demo(ray_cluster, Progress(), port=0, recipe_path=path)

    shown = capsys.readouterr().out
    assert code == 0, shown
    for text in (
        "by people",
        "the case",
        "base",
        "tuned",
        "ROUGE-L",
        "registry.lineage",
        "GiB of memory",
        "sluice serve",
    ):
        assert text in shown
    deployed = deployments.current(ray_cluster, "tiny-demo")
    assert registry.champion(ray_cluster.settings, "tiny-demo") == deployed.model_version
    assert set(deployed.content["reports"]) == {"audit", "split", "train", "evaluate"}


def test_a_recipe_that_asks_for_keys_is_refused_at_once_where_there_is_none(workspace, recipe_file, monkeypatch):
    from cluster.errors import UserError
    from pipelines.progress import Progress
    from ui.demo import run_demo

    monkeypatch.delenv("SLUICE_API_KEY", raising=False)
    with pytest.raises(UserError, match="SLUICE_API_KEY holds no key") as refused:
        run_demo(workspace, Progress(), recipe_path=str(recipe_file(serve={"keys": "required"})))
    assert "sluice keys add" in refused.value.remedy
