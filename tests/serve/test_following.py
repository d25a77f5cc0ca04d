"""A replica that follows the deployment log, and a gateway that knows which version answered."""

import asyncio
import shutil
import threading
from contextlib import aclosing

import pytest

from pipelines.engines.protocol import EngineOptions
from pipelines.recipe_file import load_recipe
from pipelines.records import ExperimentExposureRow, InteractionRow
from pipelines.tracking import deployments
from serve import following
from serve.experimentation import lifecycle
from serve.exposures import unit_of
from serve.following import Follow, Follower, promoted
from serve.hosting import EngineReplica, Options, Piece, Started
from serve.places import Places
from tests.serve.test_app import promote
from tests.waiting import until

pytestmark = pytest.mark.slow

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def put(workspace, recipe_file, tiny_model):
    """`put(adapter, version)`: what `sluice promote` leaves."""
    recipe = load_recipe(recipe_file())
    return lambda adapter, version: promote(workspace, recipe, tiny_model, adapter, version)


@pytest.fixture
def replica_of(workspace, monkeypatch):
    """`replica_of(version, *arms)`: one that was told to host what is in production now, as `version`, or these arms
    of it; it looks when told."""
    monkeypatch.setattr(Follower, "_work", lambda follower: None)
    made = []

    def make(version, *only):
        _, arms = promoted("small", workspace)
        hosted = {arm: one for arm, one in arms.items() if not only or arm in only}
        follow = Follow("small", workspace.settings, version, only)
        made.append(EngineReplica(hosted, EngineOptions("transformers", "float32", 4, 4), follow))
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
        "loading": "",
        "trouble": "",
    }


def test_a_replica_of_one_arm_hosts_no_other_also_of_later_versions(put, replica_of, tiny_adapter, other_adapter):
    put(tiny_adapter, "1")
    base, tuned = replica_of("1", "base"), replica_of("1", "tuned")
    first = say(tuned)
    put(other_adapter, "2")
    for replica, arm in ((base, "base"), (tuned, "tuned")):
        replica._follower.look()
        assert list(replica._places.arms) == [arm] and replica._places.version == "2"
    # It has nothing to load, and no memory of what the other arm is.
    assert [place.adapter for place in base._places._loaded] == [None]
    assert say(tuned)[1] != first[1]
    with pytest.raises(KeyError, match="nothing is hosted for 'tuned'"):
        say(base)


def test_a_replica_of_the_base_needs_nothing_that_was_trained(put, replica_of, tiny_adapter, tmp_path):
    import shutil

    put(tiny_adapter, "1")
    base, tuned = replica_of("1", "base"), replica_of("1", "tuned")
    put(shutil.copytree(tiny_adapter, tmp_path / "adapter"), "2")
    shutil.rmtree(tmp_path / "adapter")
    for replica in (base, tuned):
        replica._follower.look()
    assert (base._places.version, base._follower.trouble) == ("2", "")
    assert tuned._places.version == "1" and "gone" in tuned._follower.trouble


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


def test_a_database_that_does_not_answer_holds_no_start_up(put, replica_of, tiny_adapter, monkeypatch):
    put(tiny_adapter, "1")
    over = threading.Event()
    monkeypatch.setattr(following, "FIRST_S", 0.1)
    monkeypatch.setattr(Follower, "_newest", lambda follower: over.wait(600) and None)
    assert say(replica_of("1"))[0] == "1"
    over.set()


def test_files_that_changed_are_told_and_the_old_version_goes_on(
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
    # It is not tried again at every look.
    with monkeypatch.context() as watched:
        watched.setattr(Follower, "_host", lambda *arguments: pytest.fail("tried again at once"))
        replica._follower.look()
    put(other_adapter, "3")
    replica._follower.look()
    assert say(replica)[0] == "3" and asyncio.run(replica.health())["trouble"] == ""


def test_what_fails_while_it_is_loaded_leaves_nothing_and_is_tried_again(
    put, replica_of, tiny_adapter, other_adapter, tmp_path, monkeypatch, caplog
):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(other_adapter, spoilt)
    whole = (spoilt / "adapter_model.safetensors").read_bytes()
    (spoilt / "adapter_model.safetensors").write_bytes(whole[:-10])
    put(tiny_adapter, "1")
    replica = replica_of("1")
    before = list(replica._places._loaded)
    put(spoilt, "2")
    monkeypatch.setattr(following, "AGAIN_S", 0)

    replica._follower.look()
    replica._follower.look()

    assert "version 2 cannot be hosted" in replica._follower.trouble and replica._follower.loading == ""
    assert replica._places._loaded == before and say(replica)[0] == "1"
    assert [bool(record.exc_info) for record in caplog.records] == [True, False], "a traceback the first time alone"


def test_what_is_rolled_back_while_it_is_loaded_is_never_met(put, replica_of, tiny_adapter, other_adapter, monkeypatch):
    put(tiny_adapter, "1")
    replica = replica_of("1")
    put(other_adapter, "2")
    load = Places._load

    def and_meanwhile(places, *arguments):
        assert replica._follower.loading == "2"
        put(tiny_adapter, "1")
        return load(places, *arguments)

    monkeypatch.setattr(Places, "_load", and_meanwhile)
    replica._follower.look()
    assert say(replica)[0] == "1" and len(replica._places._loaded) == 2, "base and the old one alone"


@pytest.fixture
def ask(http):
    """`ask(service, user)`: status 200 was said to that user."""

    async def post(service, user):
        async with http(service) as client:
            body = {"messages": HELLO, "max_tokens": 1, "user": user}
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
            return (await client.get("/healthz")).json()

    return lambda service, user: asyncio.run(asyncio.wait_for(post(service, user), 60))


@pytest.fixture
def experiment(workspace, recipe_file):
    """`experiment()`: one that runs on what is in production."""
    section = {"primary": {"metric": "event.resolved"}, "guardrails": [], "planned_units": 1000}
    return lambda: lifecycle.start(workspace, load_recipe(recipe_file(experiment=section)), "ada")


def test_an_experiment_counts_from_the_moment_on_when_its_version_is_hosted(
    ask, put, replica_of, service_of, experiment, tiny_adapter, other_adapter, rows
):
    put(tiny_adapter, "1")
    replica = replica_of("1")
    service = service_of(engine=replica, model_version="1")
    put(other_adapter, "2")
    row = experiment()

    coming = ask(service, "early")
    replica._follower.look()
    users = (f"user-{number}" for number in range(10**6))

    def counted():
        there = ask(service, user := next(users))
        return unit_of(user) in {one.unit for one in rows(ExperimentExposureRow)} and there

    there = until(counted, "the count")
    service.close()
    assert coming["in_production"] == "2" and coming["version"] == "1"
    assert "in_production" not in there and there["version"] == "2"
    kept = [(one.experiment_id, one.model_version) for one in rows(InteractionRow)]
    assert kept[0] == (None, "1") and kept[-1] == (row.id, "2")
    assert {version for number, version in kept if number} == {"2"}


def test_an_answer_of_a_version_that_came_after_the_choice_counts_for_no_experiment(
    ask, put, replica_of, service_of, experiment, tiny_adapter, other_adapter, rows, monkeypatch
):
    put(tiny_adapter, "1")
    replica = replica_of("1")
    service = service_of(engine=replica, model_version="1")
    row = experiment()
    ask(service, "before")
    taken = service._taken

    async def and_meanwhile(request_id):
        # Between the choice of the arm and the answer, and another request has told the gateway already.
        put(other_adapter, "2")
        await asyncio.to_thread(replica._follower.look)
        service.in_force.version = "2"
        return await taken(request_id)

    monkeypatch.setattr(service, "_taken", and_meanwhile)
    ask(service, "meanwhile")
    service.close()
    kept = {one.unit: (one.experiment_id, one.model_version) for one in rows(InteractionRow)}
    assert kept == {unit_of("before"): (row.id, "1"), unit_of("meanwhile"): (None, "2")}


def test_a_gateway_that_starts_again_learns_what_the_engine_has(
    ask, put, replica_of, service_of, tiny_adapter, other_adapter
):
    put(tiny_adapter, "1")
    replica = replica_of("1")
    put(other_adapter, "2")
    replica._follower.look()
    # It was bound when version 1 was in production.
    service = service_of(engine=replica, model_version="1")
    until(lambda: ask(service, "ada") and service.in_force.version == "2", "the new version")


def test_an_answer_that_never_began_names_no_version(http, put, replica_of, service_of, tiny_adapter, rows):
    class Dead:
        """An engine whose process has ended."""

        async def answer(self, *arguments):
            raise ConnectionError("the actor died")
            yield

        async def health(self):
            raise ConnectionError("the actor died")

    put(tiny_adapter, "1")
    service = service_of(engine=Dead(), model_version="1")

    async def post():
        async with http(service) as client:
            return await client.post("/v1/chat/completions", json={"messages": HELLO, "max_tokens": 1, "user": "ada"})

    assert asyncio.run(post()).status_code == 500
    service.close()
    (kept,) = rows(InteractionRow)
    assert (kept.status, kept.model_version) == (500, None)
