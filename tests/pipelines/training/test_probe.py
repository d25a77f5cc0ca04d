"""The largest batch that fits."""

import pytest

from cluster.errors import UserError
from pipelines.training.probe import MARGIN, Tried, largest, predicted


def device(capacity, speeds=()):
    """A made device: 100 bytes and 10 more a sequence; tokens/s by width, or ever faster."""
    asked = []

    def measure(width):
        asked.append(width)
        used = 100 + 10 * width
        return None if used > capacity else Tried(width, dict(speeds).get(width, 100.0 + width), used)

    return measure, asked


def test_the_largest_power_of_two_up_to_a_workers_share_of_the_global_batch():
    measure, asked = device(10**9)
    found = largest(measure, 16, 10**9)
    assert found.sequences == 16
    assert asked == [1, 2, 4, 8, 16]


def test_what_would_pass_the_margin_is_not_even_tried():
    measure, asked = device(10**9)
    found = largest(measure, 1024, 300)
    # 16 sequences take 260 bytes of the 240 that may be taken.
    assert (MARGIN, found.sequences, asked) == (0.8, 8, [1, 2, 4, 8])
    assert "16 would take" in found.because


def test_memory_is_predicted_by_the_line_through_the_last_two():
    assert predicted([Tried(1, 1.0, 110)]) == 220
    assert predicted([Tried(1, 1.0, 110), Tried(2, 1.0, 120), Tried(4, 1.0, 140)]) == 180


def test_running_out_of_memory_gives_the_width_before_and_for_one_sequence_an_error():
    measure, _ = device(150)
    assert largest(measure, 64, 10**9).sequences == 4
    with pytest.raises(UserError, match="Not even one sequence"):
        largest(lambda width: None, 64, 10**9)


def test_a_wider_pass_that_is_slower_is_not_taken():
    measure, asked = device(10**9, {4: 90.0})
    found = largest(measure, 64, 10**9)
    assert (found.sequences, asked) == (2, [1, 2, 4])
    assert "4 gave 90 tokens/s instead of 102" in found.because


@pytest.mark.cluster
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("stage", [0, 3])
def test_a_run_finds_its_batch_learns_the_same_and_the_next_run_remembers_it(make_job, run, monkeypatch, stage):
    settings = {"max_steps": 3, "eval_steps": 3, "deepspeed": {"stage": stage}}
    plain, _ = run(make_job(f"plain-{stage}", settings | {"per_device_train_batch_size": 2}))
    auto = settings | {"per_device_train_batch_size": "auto"}
    outcome, heard = run(make_job(f"auto-{stage}", auto, memory_bytes=10**10))

    assert outcome["per_device_train_batch_size"] in (1, 2, 4, 8)
    [told] = heard.of("batch", "tried")
    assert [entry["sequences"] for entry in told][:1] == [1]
    assert all(entry["memory_bytes"] >= 0 and entry["tokens_per_second"] > 0 for entry in told)
    for one, other in zip(outcome["history"], plain["history"], strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-3)

    def unasked(*_):
        raise AssertionError("it was remembered")

    monkeypatch.setattr("pipelines.training.probe.probe", unasked)
    # Another rate takes no other memory.
    again, heard = run(make_job(f"again-{stage}", auto | {"learning_rate": 1e-3}, memory_bytes=10**10))
    assert again["per_device_train_batch_size"] == outcome["per_device_train_batch_size"]
    assert heard.of("batch", "remembered") == [True]


@pytest.mark.cluster
@pytest.mark.usefixtures("process_group")
def test_without_memory_to_spare_one_sequence_at_a_time_is_taken(make_job, run):
    outcome, heard = run(
        make_job("tight", {"max_steps": 1, "per_device_train_batch_size": "auto", "lora_r": 8}, memory_bytes=0)
    )

    assert outcome["per_device_train_batch_size"] == 1
    assert "2 would take" in heard.of("batch", "because")[0]


def test_auto_stands_in_a_recipe_whose_workers_share_the_batch():
    from pydantic import ValidationError

    from pipelines.dry_run import _place_and_step
    from pipelines.recipe import Train
    from tests.pipelines.test_recipe import recipe

    assert Train(per_device_train_batch_size="auto").sequences_per_pass == 1
    with pytest.raises(ValidationError):
        Train(per_device_train_batch_size="most")
    with pytest.raises(ValidationError, match="not divisible"):
        recipe(train={"per_device_train_batch_size": "auto"}, cluster={"num_workers": 3})
    asked = recipe(train={"per_device_train_batch_size": "auto"})

    class Somewhere:
        settings = type("Settings", (), {"storage": "here"})

    assert "1 worker(s) x as many sequences as fit, accumulated = 16" in _place_and_step(asked, Somewhere())[1]
