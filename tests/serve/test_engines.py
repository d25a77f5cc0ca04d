"""Engine deployments as the gateway sees them: one for all arms, or one for each."""

import asyncio
import time

import pytest

from serve import engines
from serve.engines import EnginePerArm, as_one, together


def test_what_replicas_say_is_summed_and_the_version_that_most_have_counts():
    def said(version, running):
        return {
            "generated_tokens": 5,
            "running": running,
            "waiting": 1,
            "version": version,
            "loading": "",
            "trouble": "no room" if version == "1" else "",
        }

    assert together([said("1", 2), said("2", 3), said("2", 0)]) == {
        "replicas": 3,
        "generated_tokens": 15,
        "running": 5,
        "waiting": 3,
        "version": "2",
        "loading": "",
        "trouble": "no room",
    }
    assert together([]) == {"replicas": 0, "generated_tokens": 0, "running": 0, "waiting": 0}


def test_no_engine_is_sleep_where_the_recipe_says_so_and_trouble_where_one_does_not_wake():
    from ray.serve.exceptions import DeploymentUnavailableError

    class Nobody:
        """A handle of a deployment without replicas."""

        def options(self, **options):
            return self

        def broadcast(self, method):
            return self

        async def results_async(self, **options):
            raise DeploymentUnavailableError("engine")

    async def health(engine):
        try:
            return await engine.health()
        except DeploymentUnavailableError:
            return "unavailable"

    sleeping, broken = engines.ServeEngine(Nobody(), sleeps=True), engines.ServeEngine(Nobody())
    assert asyncio.run(health(broken)) == "unavailable"
    assert asyncio.run(health(sleeping))["waiting"] == 0
    sleeping._unheard[object()] = time.monotonic()
    assert asyncio.run(health(sleeping))["waiting"] == 1
    sleeping._unheard[object()] = time.monotonic() - engines.WAKING_S - 1
    assert asyncio.run(health(sleeping)) == "unavailable"


class Said:
    """An engine that says what it is told to."""

    def __init__(self, **health):
        self._health = health

    async def answer(self, arm, prompt, options):
        yield arm

    async def health(self):
        if not self._health:
            raise RuntimeError("it has ended")
        return self._health


def said(replicas, running, version="", trouble="", waiting=0):
    """What one arm's engine says of itself; one that sleeps names no version."""
    found = {"replicas": replicas, "generated_tokens": 5 * replicas, "running": running, "waiting": waiting}
    return found | ({"version": version, "loading": "", "trouble": trouble} if replicas else {})


def test_arms_with_engines_of_their_own_are_summed_and_told_one_by_one():
    own = {"base": said(1, 2, "2"), "tuned": said(3, 4, "2", waiting=6)}
    assert asyncio.run(EnginePerArm({arm: Said(**one) for arm, one in own.items()}).health()) == {
        "replicas": 4,
        "generated_tokens": 20,
        "running": 6,
        "waiting": 6,
        "version": "2",
        "loading": "",
        "trouble": "",
        "engines": own,
    }


def test_the_version_is_that_of_the_tuned_arm_while_the_other_is_ahead():
    assert as_one({"base": said(1, 0, "2"), "tuned": said(1, 0, "1", "no room")}) == {
        **as_one({"base": said(1, 0, "1"), "tuned": said(1, 0, "1", "no room")}),
        "engines": {"base": said(1, 0, "2"), "tuned": said(1, 0, "1", "no room")},
    }
    # One that sleeps wakes with what is in production.
    assert as_one({"base": said(1, 0, "2"), "tuned": said(0, 0)})["version"] == "2"
    assert "version" not in as_one({"base": said(0, 0), "tuned": said(0, 0)})
    assert as_one({"base": said(1, 0, "2", "gone"), "tuned": said(1, 0, "2")})["trouble"] == "gone"


def test_each_arm_is_answered_by_its_own_engine_and_one_that_has_ended_is_not_hidden():
    both = EnginePerArm({"base": Said(**said(1, 0, "1")), "tuned": Said()})

    async def heard(arm):
        return [event async for event in both.answer(arm, "", None)]

    assert asyncio.run(heard("tuned")) == ["tuned"]
    with pytest.raises(RuntimeError, match="it has ended"):
        asyncio.run(both.health())
