"""The winner among trials."""

import os

import pytest

from pipelines.search.trials import TrialResult, check_finished, find_winner, join_group


def trial(name, loss, steps=10, stopped="the last step"):
    return TrialResult(name, {}, loss, steps, stopped, 1.0)


def test_a_trial_that_was_stopped_or_failed_is_no_result():
    check_finished({"status": "finished", "stopped_because": "the last step"})
    with pytest.raises(RuntimeError, match="stopped: stop requested"):
        check_finished({"status": "stopped", "stopped_because": "stop requested"})
    with pytest.raises(RuntimeError, match="diverged at step 3"):
        check_finished({"status": "failed", "message": "Training diverged at step 3.", "remedy": ""})


def test_the_lowest_loss_at_the_last_step_wins():
    assert find_winner([trial("a", 2.0), trial("b", 1.5), trial("c", 1.9)]).trial == "b"


def test_an_early_loss_is_no_rival_of_one_at_the_end():
    assert find_winner([trial("early", 1.0, steps=5, stopped="asha stopped it"), trial("end", 1.5)]).trial == "end"


def test_a_failed_trial_never_wins():
    failed = trial("failed", 0.1, steps=10, stopped="failed: diverged")
    assert find_winner([failed, trial("end", 1.5)]).trial == "end"
    assert find_winner([failed, trial("none", None, steps=0, stopped="failed")]) is None
    assert find_winner([]) is None


def test_a_loss_that_is_no_number_wins_nothing():
    assert find_winner([trial("nan", float("nan")), trial("end", 2.0)]).trial == "end"
    assert find_winner([trial("nan", float("nan"))]) is None


@pytest.mark.parametrize(("device", "backend", "accelerator"), [("cpu", "gloo", "cpu"), ("cuda", "nccl", "cuda")])
def test_the_recipe_and_not_the_machine_decides_about_the_gpu(monkeypatch, device, backend, accelerator):
    import torch

    from pipelines.training.engine import prepare_process

    begun = []
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("DEEPSPEED_LOG_LEVEL", "error")
    monkeypatch.setattr("torch.cuda.is_available", lambda: device == "cpu")  # the contrary of what is asked for
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: False)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda name, **_: begun.append(name))
    threads = torch.get_num_threads()
    try:
        prepare_process(device, seed=0)
        join_group(device)
    finally:
        torch.set_num_threads(threads)
    assert begun == [backend]
    assert os.environ["DS_ACCELERATOR"] == accelerator
