"""A replica that follows the deployment log, and a gateway that knows which version answered."""

import asyncio
import shutil
import threading
from contextlib import aclosing

import pytest

from pipelines.recipe_file import load_recipe
from pipelines.records import InteractionRow
from pipelines.tracking import deployments
from serve.exposures import unit_of
from serve.following import Follow, Follower, promoted
from serve.hosting import EngineReplica, Options, Piece, Started
from serve.traffic import Running, Traffic
from tests.serve.test_app import promote

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def put(workspace, recipe_file, tiny_model):
    """`put(adapter, version)`: what `sluice promote` leaves."""
    recipe = load_recipe(recipe_file())
    return lambda adapter, version: promote(workspace, recipe, tiny_model, adapter, version)


@pytest.fixture
def replica_of(workspace, monkeypatch):
    """`replica_of(version)`: one that was told to host what is in production now, as `version`; it looks when told."""
    monkeypatch.setattr(Follower, "_work", lambda follower: None)
    made = []

    def make(version):
        _, arms = promoted("small", workspace)
        made.append(EngineReplica(arms, "float32", 4, 4, Follow("small", workspace.settings, version)))
        return made[-1]

    yield make
    for replica in made:
        replica._places.worker.shutdown()
        for engine in replica._places.engines:
            engine.close()


async def answered(replica, begun=None, tokens=8):
    """(version, text) of an answer of the tuned arm."""
    version, text = None, []
    async with aclosing(replica.answer("tuned", HELLO, Options(tokens))) as events:
        async for event in events:
            if isinstance(event, Started):
                version = event.version
            if isinstance(event, Piece):
                assert not event.error
                text.append(event.text)
                if begun:
                    begun.set()
    return version, "".join(text)


def say(replica):
    return asyncio.run(asyncio.wait_for(answered(replica), 60))


def test_a_promotion_is_hosted_while_answers_run_and_a_rollback_brings_the_old_one_back(
    put, replica_of, tiny_adapter, other_adapter
):
    first = put(tiny_adapter, "1")
    replica = replica_of("1")
    old = say(replica)
    for engine in replica._places.engines:
        engine._end_tokens = frozenset()

    async def promote_meanwhile():
        begun = asyncio.Event()
        running = asyncio.create_task(answered(replica, begun, tokens=300))
        await begun.wait()
        put(other_adapter, "2")
        await asyncio.to_thread(replica._follower.look)
        assert (await replica.health())["running"] == 1, "it must run all the while for this to prove"
        return await running, await answered(replica)

    long, new = asyncio.run(asyncio.wait_for(promote_meanwhile(), 120))
    assert long[0] == "1" and long[1].startswith(old[1])
    assert new[0] == "2" and new[1] != old[1]
    put(tiny_adapter, first.model_version)
    replica._follower.look()
    assert say(replica) == old
    assert asyncio.run(replica.health()) | {"generated_tokens": 0} == {
        "generated_tokens": 0,
        "running": 0,
        "waiting": 0,
        "version": "1",
        "trouble": "",
    }


def test_a_replica_that_starts_again_hosts_what_is_in_production_by_then(put, replica_of, tiny_adapter, other_adapter):
    put(tiny_adapter, "1")
    put(other_adapter, "2")
    # It was bound when version 1 was in production.
    assert say(replica_of("1"))[0] == "2"


def test_while_the_log_cannot_be_read_it_hosts_what_it_was_told(put, replica_of, tiny_adapter, monkeypatch):
    put(tiny_adapter, "1")
    real, away = deployments.current, threading.Event()

    def current(*arguments):
        if away.is_set():
            raise ConnectionError("the database is away")
        return real(*arguments)

    monkeypatch.setattr(deployments, "current", current)
    # As from the moment when the replica itself begins to read.
    monkeypatch.setattr(
        Follower, "begin", lambda follower, arms, begin=Follower.begin: away.set() or begin(follower, arms)
    )
    replica = replica_of("1")
    assert say(replica)[0] == "1"
    replica._follower.look()
    assert say(replica)[0] == "1"


def test_what_cannot_be_hosted_is_told_and_the_old_version_goes_on(
    put, replica_of, tiny_adapter, other_adapter, tmp_path, monkeypatch
):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(other_adapter, spoilt)
    put(tiny_adapter, "1")
    replica = replica_of("1")
    put(spoilt, "2")
    (spoilt / "adapter_model.safetensors").write_bytes(b"no weights")

    replica._follower.look()

    trouble = asyncio.run(replica.health())["trouble"]
    assert trouble.startswith("version 2 cannot be hosted: ") and "not those that were trained" in trouble
    assert say(replica)[0] == "1"
    with monkeypatch.context() as watched:
        watched.setattr(Follower, "_host", lambda *arguments: pytest.fail("tried again at once"))
        replica._follower.look()
    put(other_adapter, "3")
    replica._follower.look()
    assert say(replica)[0] == "3" and asyncio.run(replica.health())["trouble"] == ""


class Reading:
    """What the log says, for a service; `latest` is set by the test."""

    latest = None

    def close(self):
        """Nothing runs."""


def test_an_experiment_counts_from_the_moment_on_when_its_version_is_hosted(
    http, put, replica_of, service_of, tiny_adapter, other_adapter, rows
):
    put(tiny_adapter, "1")
    replica = replica_of("1")
    service = service_of(engine=replica, model_version="1")
    service.traffic = Reading()
    service.traffic.latest = Traffic(2, "2", None, Running(7, "seed", {"base": 1, "tuned": 1}, "base", 1.0, False))

    async def go():
        async with http(service) as client:

            async def ask(user):
                body = {"messages": HELLO, "max_tokens": 1, "user": user}
                assert (await client.post("/v1/chat/completions", json=body)).status_code == 200

            await ask("early")
            coming = (await client.get("/healthz")).json()
            put(other_adapter, "2")
            await asyncio.to_thread(replica._follower.look)
            service._asked = -1
            await ask("late")
            return coming, (await client.get("/healthz")).json()

    coming, there = asyncio.run(asyncio.wait_for(go(), 60))
    service.close()
    assert coming["in_production"] == "2" and coming["version"] == "1"
    assert "in_production" not in there and there["version"] == "2"
    kept = {row.unit: (row.experiment_id, row.model_version) for row in rows(InteractionRow)}
    assert kept == {unit_of("early"): (None, "1"), unit_of("late"): (7, "2")}


def test_an_answer_of_another_version_than_the_one_the_arm_was_chosen_for_counts_for_no_experiment(
    http, put, replica_of, service_of, tiny_adapter, rows
):
    put(tiny_adapter, "1")
    replica = replica_of("1")
    service = service_of(engine=replica, model_version="2")
    service.traffic = Reading()
    # The gateway takes the engine for version 2 still, which was put back a moment ago.
    service.traffic.latest = Traffic(2, "2", None, Running(7, "seed", {"base": 1, "tuned": 1}, "base", 1.0, False))

    async def go():
        async with http(service) as client:
            body = {"messages": HELLO, "max_tokens": 1, "user": "ada"}
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 200

    asyncio.run(asyncio.wait_for(go(), 60))
    service.close()
    (row,) = rows(InteractionRow)
    assert (row.experiment_id, row.model_version) == (None, "1")
