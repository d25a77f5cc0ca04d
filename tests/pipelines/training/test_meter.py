"""Utilisation and memory."""

import pytest

from pipelines.training.meter import Meter, flops_per_token, peak_flops


def test_the_peak_is_the_devices_in_the_arithmetic_that_runs():
    assert peak_flops("NVIDIA A100-SXM4-80GB", "bfloat16") == 312e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12
    assert peak_flops("NVIDIA H100 PCIe", "bfloat16") == 756e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "float32") is None
    assert peak_flops("Something else", "bfloat16") is None


def test_frozen_weights_need_no_gradients_and_the_output_layer_works_where_it_is_supervised():
    assert flops_per_token(1000, 100, 100, frozen=False, taught=0.5) == 6 * 850
    assert flops_per_token(1000, 100, 100, frozen=True, taught=0.0) == 4 * 800


def test_a_busy_processor_is_used_and_a_waiting_one_is_not(tiny_model):
    import time

    import torch

    from pipelines.models.load import load_causal_lm

    meter = Meter(load_causal_lm(tiny_model, "float32"), "cpu", "float32", frozen=True)
    meter.restart()
    time.sleep(0.2)
    idle = meter.busy(10, 5)
    meter.restart()
    ended = time.process_time() + 0.2
    while time.process_time() < ended:
        torch.ones(100).sum()
    assert idle < 0.1 < 0.2 / torch.get_num_threads() + 0.05
    assert meter.busy(10, 5) >= 0.2 / torch.get_num_threads()
    assert meter.measure == "the cores' time"
    assert meter.memory()["memory_bytes"] > 50e6


@pytest.mark.cluster
@pytest.mark.usefixtures("process_group")
def test_a_run_tells_its_utilisation_and_memory_at_each_reading_and_as_a_whole(make_job, run):
    outcome, heard = run(make_job("used", {"max_steps": 3}))

    assert len(heard.of("step", "utilisation")) == 3
    assert 0 < outcome["utilisation"] < 1.5
    assert outcome["memory"]["memory_bytes"] >= heard.of("step", "memory_bytes")[-1] > 50e6
