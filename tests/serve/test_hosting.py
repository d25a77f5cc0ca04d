"""Candidates that come and go in a replica that answers."""

import asyncio
import gc
import json
import shutil
import threading
import weakref
from contextlib import aclosing
from dataclasses import replace

import pytest
import torch

from cluster.errors import UserError
from pipelines.engines.protocol import EngineFailed, EngineOptions
from pipelines.fingerprint import folder_fingerprint
from pipelines.models.candidate import Candidate
from pipelines.models.files import RECORD
from serve.hosting import EngineReplica, Options, Piece

pytestmark = pytest.mark.slow

HELLO = [{"role": "user", "content": "Hello"}]
SHORT, LONG = Options(8), Options(400)


@pytest.fixture(scope="module")
def other_model(tiny_model, tmp_path_factory):
    """Another base of the same shape."""
    from pipelines.models.load import load_causal_lm

    folder = tmp_path_factory.mktemp("models") / "other"
    shutil.copytree(tiny_model, folder)
    model = load_causal_lm(folder, "float32")
    torch.manual_seed(9)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def candidate(tiny_model, other_model, tmp_path_factory):
    """`candidate(seed, base=tiny_model)`: an adapter of that seed, as training leaves it; no seed: the base alone."""
    from peft import LoraConfig, get_peft_model

    from pipelines.models.load import load_causal_lm

    made = {}

    def make(seed=None, base=tiny_model):
        print_of_base = folder_fingerprint(base)
        if seed is None:
            return Candidate("base", str(base), None, print_of_base, "small-base", base_fingerprint=print_of_base)
        if (seed, base) not in made:
            torch.manual_seed(seed)
            config = LoraConfig(r=4, lora_alpha=64, target_modules="all-linear")
            model = get_peft_model(load_causal_lm(base, "float32"), config)
            for key, parameter in model.named_parameters():
                if "lora_B" in key:
                    torch.nn.init.normal_(parameter, std=0.3)
            folder = tmp_path_factory.mktemp("adapters") / f"seed-{seed}"
            model.save_pretrained(folder)
            (folder / RECORD).write_text(json.dumps({"base_fingerprint": print_of_base}))
            made[seed, base] = folder
        folder = str(made[seed, base])
        return Candidate("tuned", str(base), folder, f"print-{seed}", "small-tuned", base_fingerprint=print_of_base)

    return make


@pytest.fixture
def replica_of(workspace):
    """`replica_of(arm=candidate, ...)`: a replica whose answers are as long as they may be."""
    made = []

    def make(**arms):
        replica = EngineReplica(arms, EngineOptions("transformers", "float32", 16, 16))
        made.append(replica)
        return endless(replica)

    yield make
    for replica in made:
        replica._places.worker.shutdown()
        for engine in replica._places.engines:
            engine.close()


def endless(replica):
    for engine in replica._places.engines:
        engine._end_tokens = frozenset()
    return replica


async def text_of(replica, arm, options=SHORT, begun=None):
    """The whole answer; `begun` is told of its first piece."""
    pieces = []
    async with aclosing(replica.answer(arm, HELLO, options)) as events:
        async for event in events:
            if isinstance(event, Piece):
                pieces.append(event.text)
                assert not event.error and event.finish_reason in (None, "stop", "length")
                if begun:
                    begun.set()
    return "".join(pieces)


@pytest.fixture(scope="module")
def remembered():
    return {}


@pytest.fixture
def alone(replica_of, remembered):
    """`alone(candidate, options=SHORT)`: what it says in a replica of its own."""

    def say(candidate, options=SHORT):
        if (candidate, options) not in remembered:
            remembered[candidate, options] = asyncio.run(text_of(replica_of(arm=candidate), "arm", options))
        return remembered[candidate, options]

    return say


async def host(replica, arm, candidate):
    """Give the arm the candidate, as following the log does."""
    await asyncio.wrap_future(replica._places.worker.submit(replica._places.switch, {arm: candidate}))


def loaded(replica):
    """Base folder -> how many adapters over it are in memory."""
    return {place.base_folder: len(place.engine.base.adapters) for place in replica._places._loaded}


async def settled(replica, expected):
    """Wait until the models in memory are the expected ones."""
    for _ in range(1000):
        if loaded(replica) == expected:
            return
        await asyncio.sleep(0.01)
    assert loaded(replica) == expected


async def streams(replica, arm, count, options=LONG):
    """Tasks of answers that have begun."""
    begun = [asyncio.Event() for _ in range(count)]
    tasks = [asyncio.create_task(text_of(replica, arm, options, event)) for event in begun]
    await asyncio.gather(*(event.wait() for event in begun))
    return tasks


def test_ten_streams_end_on_the_old_model_and_later_ones_are_the_new_ones(replica_of, candidate, alone, tiny_model):
    old, new = candidate(1), candidate(2)
    replica = replica_of(base=candidate(), tuned=old)

    async def go():
        running = await streams(replica, "tuned", 10)
        await host(replica, "tuned", new)
        assert (await replica.health())["running"] == 10, "they must run all the while for this to prove"
        assert loaded(replica) == {str(tiny_model): 2}
        later = [text_of(replica, "tuned", LONG) for _ in range(3)]
        said = await asyncio.gather(*running, *later, text_of(replica, "base"))
        await settled(replica, {str(tiny_model): 1})
        return said

    said = asyncio.run(asyncio.wait_for(go(), 120))
    before, after = alone(old, LONG), alone(new, LONG)
    assert before != after
    assert said == [before] * 10 + [after] * 3 + [alone(candidate())]


def test_what_nobody_reads_along_comes_in_fewer_events_and_is_the_same_answer(replica_of, candidate):
    replica = replica_of(tuned=candidate(1))

    async def pieces(options):
        async with aclosing(replica.answer("tuned", HELLO, options)) as events:
            return [event async for event in events if isinstance(event, Piece)]

    def whole(pieces):
        return (
            "".join(piece.text for piece in pieces),
            sum(piece.tokens for piece in pieces),
            [told.text for piece in pieces for told in piece.logprobs],
            [piece.finish_reason for piece in pieces if piece.finish_reason],
        )

    alongside = Options(200, logprobs=0)
    each = asyncio.run(pieces(alongside))
    together = asyncio.run(pieces(replace(alongside, read_along=False)))
    assert whole(together) == whole(each) and whole(each)[1] == 200
    # The first token comes at once: when it came is told of every answer.
    assert together[0] == each[0] and len(together) < len(each) / 4


def test_what_nobody_reads_along_has_all_that_was_generated_when_it_breaks_off(replica_of, candidate):
    replica = replica_of(tuned=candidate(1))
    (engine,) = replica._places.engines
    before = engine.generated_tokens

    async def go():
        pieces = []
        async with aclosing(replica.answer("tuned", HELLO, replace(LONG, read_along=False))) as events:
            async for event in events:
                if isinstance(event, Piece):
                    pieces.append(event)
                    if len(pieces) == 1:
                        await asyncio.to_thread(engine.close)
        return pieces

    pieces = asyncio.run(asyncio.wait_for(go(), 60))
    assert [piece.finish_reason for piece in pieces if piece.finish_reason] == [pieces[-1].finish_reason]
    assert pieces[-1].finish_reason == "cancelled"
    assert 1 < sum(piece.tokens for piece in pieces) == engine.generated_tokens - before < 400


def test_a_whole_model_comes_in_an_engine_of_its_own_and_the_old_one_ends_with_its_last_answer(
    replica_of, candidate, alone, tiny_model, other_model
):
    replica = replica_of(arm=candidate(1))
    (old,) = (weakref.ref(engine) for engine in replica._places.engines)

    async def go():
        (running,) = await streams(replica, "arm", 1)
        await host(replica, "arm", candidate(base=other_model))
        before = await replica.health()
        endless(replica)
        assert before["running"] == 1
        assert loaded(replica) == {str(tiny_model): 1, str(other_model): 0}
        said = await text_of(replica, "arm"), await running
        await settled(replica, {str(other_model): 0})
        # Calls take place one after another: behind this one the engine is closed.
        await asyncio.wrap_future(replica._places.worker.submit(gc.collect))
        gc.collect()
        assert old() is None, "and its memory is free"
        replica.check_health()
        after = await replica.health()
        assert after["generated_tokens"] > before["generated_tokens"] and after["running"] == 0
        return said

    said = asyncio.run(asyncio.wait_for(go(), 120))
    assert said == (alone(candidate(base=other_model)), alone(candidate(1), LONG))


def test_hosting_what_an_arm_has_does_nothing(replica_of, candidate):
    replica = replica_of(base=candidate(), tuned=candidate(1))
    before = replica._places.arms, replica._places.generated_tokens
    asyncio.run(host(replica, "tuned", candidate(1)))
    asyncio.run(host(replica, "base", replace(candidate(), model_id="another-name")))
    assert (replica._places.arms, replica._places.generated_tokens) == before


def test_arms_with_one_model_share_it_until_the_last_lets_go(replica_of, candidate, tiny_model):
    replica = replica_of(tuned=candidate(1), challenger=candidate(1))
    assert loaded(replica) == {str(tiny_model): 1}
    asyncio.run(host(replica, "tuned", candidate(2)))
    assert loaded(replica) == {str(tiny_model): 2}
    asyncio.run(host(replica, "challenger", candidate(2)))
    assert loaded(replica) == {str(tiny_model): 1}


def test_an_arm_that_goes_back_while_its_old_model_still_answers_finds_it_there(
    replica_of, candidate, alone, tiny_model
):
    replica = replica_of(tuned=candidate(1))
    first = replica._places.arms["tuned"]

    async def go():
        (running,) = await streams(replica, "tuned", 1)
        await host(replica, "tuned", candidate(2))
        await host(replica, "tuned", candidate(1))
        assert replica._places.arms["tuned"] is first
        await running
        await settled(replica, {str(tiny_model): 1})
        return await text_of(replica, "tuned")

    assert asyncio.run(asyncio.wait_for(go(), 120)) == alone(candidate(1))


def engines_running():
    return sum(thread.name == "engine" for thread in threading.enumerate())


def spoilt(folder, tmp_path):
    copied = tmp_path / "spoilt"
    shutil.copytree(folder, copied)
    path = copied / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    return str(copied)


def filled(folder, tmp_path, weight):
    """The adapter with this in place of each weight."""
    from safetensors.torch import load_file, save_file

    copied = tmp_path / "filled"
    shutil.copytree(folder, copied)
    path = copied / "adapter_model.safetensors"
    save_file({key: torch.full_like(value, weight) for key, value in load_file(path).items()}, path)
    return str(copied)


@pytest.mark.parametrize(
    "case", ["wrong base", "broken folder", "no folder", "no numbers", "huge numbers", "broken base"]
)
def test_what_cannot_be_hosted_is_refused_and_nothing_changes(
    case, replica_of, candidate, alone, tiny_model, other_model, tmp_path
):
    replica = replica_of(base=candidate(), tuned=candidate(1))
    good, elsewhere = candidate(2), tmp_path / "base"
    match case:
        case "wrong base":
            refused, error, reason = candidate(2, other_model), UserError, "belongs to another base"
            refused = replace(refused, base_folder=str(tiny_model), base_fingerprint=good.base_fingerprint)
        case "broken folder":
            folder = spoilt(good.adapter_folder, tmp_path)
            refused, error, reason = replace(good, adapter_folder=folder), UserError, "header promises"
        case "no folder":
            refused, error, reason = replace(good, adapter_folder="/nowhere"), UserError, "not on this machine"
        case "no numbers":
            folder = filled(good.adapter_folder, tmp_path, torch.nan)
            refused, error, reason = replace(good, adapter_folder=folder), UserError, "weights that are not numbers"
        case "huge numbers":
            folder = filled(good.adapter_folder, tmp_path, 1e30)
            refused, error, reason = replace(good, adapter_folder=folder), EngineFailed, "output is not a number"
        case _:
            shutil.copytree(tiny_model, elsewhere)
            (elsewhere / "model.safetensors").unlink()
            refused, error, reason = replace(candidate(), base_folder=str(elsewhere)), UserError, "cannot be loaded"
    before, before_engines = replica._places.arms, engines_running()

    async def go():
        said = await text_of(replica, "tuned", Options(120))
        (running,) = await streams(replica, "tuned", 1, Options(120))
        with pytest.raises(error, match=reason):
            await host(replica, "tuned", refused)
        assert await running == said

    asyncio.run(asyncio.wait_for(go(), 120))
    assert replica._places.arms == before and loaded(replica) == {str(tiny_model): 1}
    assert engines_running() == before_engines, "no engine is left behind"
    asyncio.run(host(replica, "tuned", good))
    assert asyncio.run(text_of(replica, "tuned")) == alone(good)


def test_an_arm_that_has_nothing_is_an_error_with_those_that_have(replica_of, candidate):
    replica = replica_of(base=candidate())
    with pytest.raises(KeyError, match=r"nothing is hosted for 'tuned'; there are \['base'\]"):
        asyncio.run(text_of(replica, "tuned"))


def test_what_is_no_longer_wanted_once_it_is_loaded_changes_nothing(replica_of, candidate, alone, tiny_model):
    replica = replica_of(tuned=candidate(1))
    seen = []

    def is_wanted():
        seen.append(loaded(replica))
        return False

    replica._places.switch({"tuned": candidate(2)}, "2", is_wanted)
    assert seen == [{str(tiny_model): 2}], "it is asked when it is there"
    assert loaded(replica) == {str(tiny_model): 1} and replica._places.version == ""
    assert asyncio.run(text_of(replica, "tuned")) == alone(candidate(1))


def test_of_two_arms_neither_changes_when_one_cannot_be_loaded(replica_of, candidate, other_model, alone, tiny_model):
    replica = replica_of(base=candidate(), tuned=candidate(1))
    gone = replace(candidate(2), adapter_folder="/nowhere")
    with pytest.raises(UserError, match="not on this machine"):
        replica._places.switch({"base": candidate(base=other_model), "tuned": gone}, "2")
    assert loaded(replica) == {str(tiny_model): 1}, "the one that was loaded is unloaded again"
    said = asyncio.run(text_of(replica, "base")), asyncio.run(text_of(replica, "tuned"))
    assert said == (alone(candidate()), alone(candidate(1)))


def test_a_stream_that_is_left_lets_its_model_go(replica_of, candidate, tiny_model):
    replica = replica_of(tuned=candidate(1))

    async def go():
        (running,) = await streams(replica, "tuned", 1)
        await host(replica, "tuned", candidate(2))
        running.cancel()
        await settled(replica, {str(tiny_model): 1})

    asyncio.run(asyncio.wait_for(go(), 60))
    (place,) = replica._places._loaded
    assert place.weights[1] == candidate(2).adapter_folder


def test_calls_at_once_take_place_one_after_another(replica_of, candidate, alone, tiny_model, other_model):
    replica = replica_of(base=candidate())

    async def go():
        changes = [
            host(replica, "tuned", candidate(1)),
            host(replica, "challenger", candidate(2)),
            host(replica, "tuned", candidate(2)),
            host(replica, "base", candidate(base=other_model)),
            host(replica, "tuned", candidate(1)),
            host(replica, "challenger", candidate(1)),
        ]
        await asyncio.gather(*changes)
        endless(replica)
        return await text_of(replica, "tuned"), await text_of(replica, "challenger")

    said = asyncio.run(asyncio.wait_for(go(), 120))
    assert loaded(replica) == {str(tiny_model): 1, str(other_model): 0}
    assert said == (alone(candidate(1)),) * 2


def test_answers_stream_while_a_model_is_loaded(replica_of, candidate, other_model):
    replica = replica_of(base=candidate())

    async def go():
        pieces = 0

        async def read():
            nonlocal pieces
            async with aclosing(replica.answer("base", HELLO, LONG)) as events:
                async for _ in events:
                    pieces += 1

        reading = asyncio.create_task(read())
        while pieces < 3:
            await asyncio.sleep(0.001)
        before = pieces
        await host(replica, "whole", candidate(base=other_model))
        heard, _ = pieces - before, await reading
        return heard

    assert asyncio.run(asyncio.wait_for(go(), 60)) > 0


def test_a_candidate_that_another_machine_recorded_is_found_here(replica_of, candidate, alone, tiny_model):
    from pipelines.models.load import LOCAL

    replica = replica_of(base=candidate())
    trained = candidate(1)
    elsewhere = replace(
        trained,
        base_folder="/elsewhere/base",
        adapter_folder="/elsewhere/adapter",
        model=trained.adapter_folder,
        base=str(tiny_model),
        base_revision=LOCAL,
        base_fingerprint=trained.base_fingerprint,
    )
    with pytest.raises(UserError, match="other weights"):
        asyncio.run(host(replica, "tuned", replace(elsewhere, base_fingerprint="another")))
    asyncio.run(host(replica, "tuned", elsewhere))
    assert loaded(replica) == {str(tiny_model): 1}, "it is an adapter over the base that is there"
    assert asyncio.run(text_of(replica, "tuned")) == alone(trained)
