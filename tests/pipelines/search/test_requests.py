import threading
import time

import pytest

from cluster.errors import UserError
from pipelines.recipe import Train
from pipelines.search.requests import ask, check_values, read_values, requests_of, wait_for_answer
from tests.pipelines.search.planted import halving, write

RATE = {"learning_rate": 3e-4}


@pytest.fixture
def history(workspace):
    return write(workspace, halving(until=8))


def test_values_are_read_as_a_recipe_reads_them():
    given = ["learning_rate=2e-4", "train.lora_r=8", "target_modules=[q_proj, v_proj]", "packing=false"]
    assert read_values(given) == {
        "learning_rate": 2e-4,
        "lora_r": 8,
        "target_modules": ["q_proj", "v_proj"],
        "packing": False,
    }


@pytest.mark.parametrize("given", ["learning_rate", "=3", "lora_r=[1"])
def test_what_sets_nothing_is_refused(given):
    with pytest.raises(UserError):
        read_values([given])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lerning_rate": 1e-4}, "lerning_rate is no key of train; did you mean learning_rate"),
        ({"eval_steps": 3, "fold": 1}, "eval_steps cannot differ between trials: trials are validated.*; fold cannot"),
        ({"learning_rate": -1}, r"learning_rate: input should be greater than 0 \(got -1\)"),
        ({"learning_rate": "fast"}, r"\(got 'fast'\)"),
        ({"global_batch_size": 12}, "global_batch_size"),
    ],
)
def test_values_that_no_trial_may_have_are_a_sentence(values, message):
    with pytest.raises(UserError, match=message):
        check_values(Train(), values, {})


def test_a_clones_values_are_checked_over_its_parents(history):
    with pytest.raises(UserError, match="no key of train"):
        ask(history, "clone", "trial-2", by="jane", train=Train(), values={"rate": 1})
    assert not requests_of(history.events())


def test_nobody_asks_without_a_name(history):
    with pytest.raises(UserError, match="--by is empty"):
        ask(history, "stop", "trial-1", by=" ")


def test_a_request_waits_until_the_driver_answers(history):
    number = ask(history, "stop", "trial-1", by="jane")
    waiting = wait_for_answer(history, number, 0)
    assert waiting.answer is None and waiting.sentence == "stop trial-1: waits for the driver."

    def drive():
        time.sleep(0.2)
        history.add("ended", "trial-1", how="stopped", because="by jane")
        history.add("answered", "trial-1", request=number, problem="")

    driver = threading.Thread(target=drive)
    driver.start()
    assert wait_for_answer(history, number, 20).sentence == "stop trial-1: done."
    driver.join()


def test_the_trial_that_came_of_a_clone_is_named(history):
    number = ask(history, "clone", "trial-2", by="jane", train=Train(), values=RATE)
    values = history.standing().of("trial-2").values | RATE
    history.add("proposed", "trial-13", "jane", values=values, origin="clone", parent="trial-2")
    history.add("answered", "trial-2", request=number, problem="")
    (request,) = requests_of(history.events())
    assert request.made == "trial-13"
    assert request.sentence == "clone trial-2 with learning_rate 0.0003: done, as trial-13."


def test_a_refusal_carries_the_drivers_reason(history):
    number = ask(history, "extend", by="jane", trials=4)
    history.add("answered", request=number, problem="A grid has no further points.")
    assert (
        requests_of(history.events())[0].sentence == "extend by 4 trials more: not done. A grid has no further points."
    )
