from datetime import UTC, datetime, timedelta

from pipelines.tracking.runs import RunSummary
from ui.panel.run_differences import differing, final, lowest, same_examples

START = datetime(2030, 1, 1, tzinfo=UTC)


def run(params, *, seconds=90):
    ended = START + timedelta(seconds=seconds) if seconds else None
    return RunSummary("id", "name", "docstrings", "train", "FINISHED", START, ended, params, {}, {})


def test_only_what_differs_is_told():
    runs = [run({"lora_r": "8", "seed": "17", "method": "lora"}), run({"lora_r": "16", "seed": "17"})]
    assert differing(runs) == {"lora_r": ["8", "16"], "method": ["lora", None]}


def test_runs_that_were_asked_for_the_same_do_not_differ():
    assert differing([run({"lora_r": "8"}), run({"lora_r": "8"}), run({"lora_r": "8"})]) == {}


def test_the_final_figures_are_those_of_the_curves():
    curves = {
        "train/loss": [(1, 3.0, 0.0), (20, 2.0, 1.0)],
        "train/tokens_per_second": [(1, 5.0, 0.0), (2, 300.0, 0.1), (3, 310.0, 0.2)],
        "train/memory_bytes": [(1, 4e9, 0.0), (2, 3e9, 0.1)],
        "validation/loss": [(8, 2.4, 0.5), (16, 2.6, 0.9)],
    }
    found = final(run({}), curves)
    assert (found.best_validation_loss, found.best_step, found.validation_loss) == (2.4, 8, 2.6)
    assert (found.train_loss, found.steps, found.seconds) == (2.0, 20, 90)
    assert (found.tokens_per_second, found.memory_bytes) == (300.0, 4e9)


def test_a_run_without_a_point_has_no_figure():
    found = final(run({}, seconds=None), {})
    assert set(vars(found).values()) == {None}


def test_losses_over_other_examples_are_not_compared():
    one, other = run({"split": "aa", "fold": "None"}), run({"split": "bb", "fold": "None"})
    assert same_examples([one, run({"split": "aa"})])
    assert not same_examples([one, other])
    assert not same_examples([one, run({"split": "aa", "fold": "1"})])


def test_the_lowest_values_are_found_whatever_is_unknown():
    assert lowest([2.0, None, 1.5, 1.5]) == {2, 3}
    assert lowest([0.0, 1.0]) == {0}
    assert lowest([None, None]) == set()
