"""Engine deployments as the gateway sees them: one for all arms, or one for each."""

import asyncio
import time

import pytest

from pipelines.recipe_file import load_recipe
from serve import engines
from serve.engines import EnginePerArm, as_one, together, version_in_force
from tests.serve.test_app import promote
from tests.waiting import until


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


def apart(base, tuned):
    return as_one({"base": said(1, 0, base), "tuned": said(1, 0, tuned)})


@pytest.mark.parametrize(
    ("health", "newest", "version"),
    [
        (apart("2", "2"), "2", "2"),
        # While one is behind, whichever, nothing is decided about the newest.
        (apart("2", "1"), "2", "1"),
        (apart("1", "2"), "2", "1"),
        # After a rollback.
        (apart("1", "2"), "1", "2"),
        (apart("2", "1"), "1", "2"),
        # One that sleeps wakes with what is in production.
        (as_one({"base": said(1, 0, "2"), "tuned": said(0, 0)}), "2", "2"),
        (as_one({"base": said(0, 0), "tuned": said(0, 0)}), "2", ""),
        # Of engines that hold all arms.
        (together([said(1, 0, "2"), said(1, 0, "2")]), "3", "2"),
        (together([]), "3", ""),
        (apart("2", "2"), None, "2"),
    ],
)
def test_the_version_in_force_is_the_newest_only_once_all_arms_have_it(health, newest, version):
    assert version_in_force(health, newest) == version


def test_the_trouble_of_any_arm_is_told():
    assert as_one({"base": said(1, 0, "2", "gone"), "tuned": said(1, 0, "2")})["trouble"] == "gone"
    assert as_one({"base": said(1, 0, "2"), "tuned": said(1, 0, "2", "no room")})["trouble"] == "no room"


def test_each_arm_is_answered_by_its_own_engine():
    both = EnginePerArm({"base": Said(), "tuned": Said()})

    async def heard(arm):
        return [event async for event in both.answer(arm, "", None)]

    assert asyncio.run(heard("tuned")) == ["tuned"]


def test_an_engine_that_has_ended_hides_nothing_of_the_other():
    found = asyncio.run(EnginePerArm({"base": Said(**said(2, 3, "1")), "tuned": Said()}).health())
    assert (found["replicas"], found["running"], found["version"]) == (2, 3, "1")
    assert found["engines"]["base"] == said(2, 3, "1")
    assert found["trouble"] == found["engines"]["tuned"]["trouble"] == "it does not answer: RuntimeError"
    assert found["engines"]["tuned"]["away"]
    with pytest.raises(RuntimeError, match="it has ended"):
        asyncio.run(EnginePerArm({"base": Said(), "tuned": Said()}).health())


@pytest.mark.parametrize(
    ("base", "tuned", "status"),
    [
        (said(1, 0, "1"), said(1, 0, "1"), "ok"),
        (said(0, 0, waiting=1), said(1, 0, "1"), "ok"),
        (said(0, 0), said(0, 0), "asleep"),
        (said(0, 0, waiting=1), said(0, 0), "waking"),
        ({}, said(1, 0, "1"), "degraded"),
        ({}, {}, 503),
    ],
)
def test_the_service_says_how_its_engines_are(http, service_of, base, tuned, status):
    service = service_of(EnginePerArm({"base": Said(**base), "tuned": Said(**tuned)}), sleeps=True)

    async def go():
        async with http(service) as client:
            return await client.get("/healthz")

    reply = asyncio.run(go())
    if status == 503:
        assert reply.status_code == 503
    else:
        assert (reply.status_code, reply.json()["status"]) == (200, status)


def test_while_an_arm_has_another_version_than_is_in_production_no_experiment_counts(
    service_of, workspace, recipe_file, tiny_model, tiny_adapter
):
    promote(workspace, load_recipe(recipe_file()), tiny_model, tiny_adapter, "2")
    own = {"base": Said(**said(1, 0, "1")), "tuned": Said(**said(1, 0, "2"))}
    service = service_of(EnginePerArm(own), model_version="2")

    def traffic():
        return asyncio.run(service.in_force.traffic())

    service.in_force.answered("1")
    traffic()
    assert service.in_force.version == "1"
    health = asyncio.run(service.health())
    assert health["in_production"] == "2"
    own["base"]._health = said(1, 0, "2")
    until(lambda: traffic() and service.in_force.version == "2", "both arms at the newest")
    until(lambda: traffic().model_version == "2", "a reading about it")
    assert "in_production" not in asyncio.run(service.health())
