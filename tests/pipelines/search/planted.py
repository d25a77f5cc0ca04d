"""A sweep's history as a driver would have written it, without an hour of training."""

import math
import random
from datetime import UTC, datetime, timedelta

from pipelines.search.history import Event, History

BEGAN = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
SPACE = {
    "learning_rate": {"loguniform": [1e-5, 1e-3]},
    "warmup_steps": {"choice": [0, 0.05, 0.1]},
    "lora_r": {"choice": [8, 16, 32]},
}
RUNGS = (8, 16, 32)
PLACES = ("node 10.0.0.4, process 4711", "node 10.0.0.5, process 4712")


def plan(**changed):
    return {
        "rungs": list(RUNGS),
        "num_samples": 12,
        "max_hours": 2.0,
        "max_cost": 40.0,
        "price_per_hour": 3.0,
        "workers": 2,
        "search": "random",
        "scheduler": "asha",
        "objectives": ["loss"],
        "space": SPACE,
        "seed": 17,
        "base": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "max_steps": 32,
        "run_id": "",
        **changed,
    }


class Story:
    """Events one after another, ten seconds apart."""

    def __init__(self, sweep="small-sweep-4f3ac21b"):
        self.sweep, self.events = sweep, []

    def add(self, kind, trial="", by="", **content):
        at = BEGAN + timedelta(seconds=10 * len(self.events))
        self.events.append(Event(len(self.events) + 1, self.sweep, kind, trial, content, by, at))
        return self.events[-1].id

    def rung(self, trial, step, loss, seconds=20.0, place=PLACES[0], began=None):
        began = BEGAN.timestamp() + 10 * len(self.events) if began is None else began
        self.add(
            "rung",
            trial,
            step=step,
            loss=loss,
            train_loss=loss,
            losses=[loss],
            began=began,
            seconds=seconds,
            place=place,
        )


def loss_of(values, step):
    """Lowest at a rate of 2e-4; the rank adds a little, the warm-up nothing."""
    rate = values.get("learning_rate", 2e-5)
    return 1.5 + 0.5 * abs(math.log10(rate) - math.log10(2e-4)) + 0.05 * values.get("lora_r", 8) / 32 + 4 / step


def halving(sweep="small-sweep-4f3ac21b", trials=12, seed=3, until=None, **changed):
    """Successive halving over `trials`, the recipe's own values first; `until`: the rung it has come to."""
    drawn, story = random.Random(seed), Story(sweep)
    story.add("opened", **plan(num_samples=trials, **changed))
    values = {"trial-1": {}}
    for number in range(2, trials + 1):
        values[f"trial-{number}"] = {
            "learning_rate": 10 ** drawn.uniform(-5, -3),
            "warmup_steps": drawn.choice([0, 0.05, 0.1]),
            "lora_r": drawn.choice([8, 16, 32]),
        }
    for name, chosen in values.items():
        story.add("proposed", name, values=chosen, origin="search" if chosen else "default")
    alive, before = list(values), 0
    for rung in RUNGS:
        for number, name in enumerate(alive):
            began = BEGAN.timestamp() + 25 * before * 3 + 30 * number
            story.rung(name, rung, loss_of(values[name], rung), 2.5 * (rung - before), PLACES[number % 2], began)
        if rung == until:
            break
        if rung == RUNGS[-1]:
            for name in alive:
                story.add("ended", name, how="finished", because="the last step")
            break
        ranked = sorted(alive, key=lambda name: loss_of(values[name], rung))
        kept = math.ceil(len(alive) / 2)
        for place, name in enumerate(ranked[kept:], start=kept + 1):
            because = f"place {place} of {len(alive)} at step {rung}, {kept} went on"
            story.add("ended", name, how="stopped", because=because)
        alive, before = [name for name in alive if name in ranked[:kept]], rung
    return story


def write(workspace, story, recipe_name="small"):
    """The story in the database; its history."""
    history = History(workspace, story.sweep, recipe_name)
    for event in story.events:
        history.add(event.kind, event.trial, event.by, **event.content)
    return history
