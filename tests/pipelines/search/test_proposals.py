"""What is tried: the same seed draws the same, and what was recorded is drawn again."""

import random
from datetime import UTC, datetime

import pytest

from pipelines.recipe import Sweep, Train
from pipelines.search.history import Event
from pipelines.search.proposals import Proposals, within

SPACE = {
    "learning_rate": {"loguniform": [1e-5, 1e-3]},
    "method": {"choice": ["lora", "full"]},
    "lora_r": {"randint": [4, 9]},
    "target_modules": {"choice": ["all-linear", ["q_proj", "v_proj"]]},
    "weight_decay": {"uniform": [0.0, 0.1]},
}


def sweep(**values):
    return Sweep.model_validate({"num_samples": 12, "space": SPACE} | values)


def drive(setting, seed=3, known=()):
    """Propose and learn as a driver does; (proposals, events)."""
    proposals = Proposals(setting, Train(), seed, [])
    proposals.replay(list(known))
    events, draw = list(known), random.Random(1)
    proposed = [event.content["values"] for event in known if event.kind == "proposed"]

    def note(kind, trial, **content):
        events.append(Event(len(events) + 1, "s", kind, trial, content, "", datetime.now(UTC)))

    while len(proposed) < proposals.total:
        names = [f"trial-{len(proposed) + n + 1}" for n in range(proposals.round_size(proposals.total - len(proposed)))]
        for name in names:
            proposal = proposals.propose(name)
            proposed.append(proposal.values)
            note("proposed", name, values=proposal.values, origin=proposal.origin)
        for name in draw.sample(names, len(names)):
            loss = 2.0 + random.Random(name).random()
            note("rung", name, step=4, loss=loss, train_loss=loss, began=0.0, seconds=2.0, place="here")
            how = "finished" if loss < 2.5 else "stopped"
            proposals.learn(name, [(4, loss)], how, 2.0)
            note("ended", name, how=how, because="")
    return proposed, events


@pytest.mark.parametrize("setting", [sweep(), sweep(search="tpe"), sweep(search="tpe", objectives=["loss", "cost"])])
def test_the_same_seed_and_results_give_the_same_configurations_and_another_seed_others(setting):
    first, _ = drive(setting)
    assert drive(setting)[0] == first
    assert drive(setting, seed=4)[0] != first
    assert first[0] == {}, "the recipe's own values come first"
    for values in first[1:]:
        assert within(SPACE, Train(), values) == values


def test_a_driver_that_replays_a_history_goes_on_as_the_first_would_have():
    setting = sweep(search="tpe", num_samples=16)
    whole, events = drive(setting)
    ends = [number for number, event in enumerate(events, start=1) if event.kind == "ended"]
    first_round = Proposals(setting, Train(), 3, []).round_size(16)
    cut = events[: ends[first_round - 1]]
    assert sum(event.kind == "proposed" for event in cut) == first_round
    again = Proposals(setting, Train(), 3, [])
    again.replay(cut)
    assert [again.propose(f"trial-{first_round + n + 1}").values for n in range(first_round)] == whole[
        first_round : 2 * first_round
    ]


def test_random_draws_do_not_depend_on_what_came_of_them():
    told = Proposals(sweep(), Train(), 3, [])
    silent = Proposals(sweep(), Train(), 3, [])
    for number in range(12):
        name = f"trial-{number}"
        assert told.propose(name).values == silent.propose(name).values
        told.learn(name, [(4, 2.0 - number / 10)], "stopped", 1.0)


def test_a_grid_is_walked_in_its_order_and_ends():
    setting = sweep(search="grid", space={"lora_r": {"choice": [4, 8]}, "weight_decay": {"choice": [0.0, 0.1]}})
    proposals = Proposals(setting, Train(), 3, [])
    assert proposals.total == 5
    found = [proposals.propose(f"trial-{n}") for n in range(6)]
    assert [proposal.values for proposal in found[:5]] == [
        {},
        {"lora_r": 4, "weight_decay": 0.0},
        {"lora_r": 4, "weight_decay": 0.1},
        {"lora_r": 8, "weight_decay": 0.0},
        {"lora_r": 8, "weight_decay": 0.1},
    ]
    assert found[5] is None


def test_earlier_winners_are_tried_as_far_as_this_space_has_them():
    prior = [{"learning_rate": 2e-4, "lora_r": 64, "warmup_steps": 0.1}, {"lora_r": 64}]
    proposals = Proposals(sweep(), Train(), 3, prior)
    assert proposals.propose("a").origin == "default"
    second = proposals.propose("b")
    assert (second.origin, second.values) == ("prior", {"learning_rate": 2e-4})
    assert proposals.propose("c").origin == "search"


def test_tpe_draws_nearer_to_what_did_well_than_chance():
    """On a loss whose lowest is at a rate of 1e-4, more of the later draws are close to it."""
    import math

    def near(search):
        hits = 0
        for seed in range(4):
            setting = sweep(
                search=search, num_samples=40, default_trial=False, space={"learning_rate": SPACE["learning_rate"]}
            )
            proposals = Proposals(setting, Train(), seed, [])
            for number in range(40):
                rate = proposals.propose(f"t{number}").values["learning_rate"]
                off = abs(math.log10(rate) + 4)
                proposals.learn(f"t{number}", [(4, 2 + off)], "finished", 1.0)
                hits += number >= 20 and off < 0.2
        return hits

    assert near("tpe") > 1.5 * near("random")
