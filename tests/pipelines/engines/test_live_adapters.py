"""Adapters that come and go while the engine answers: nobody else hears of it."""

import gc
import json
import shutil
import threading
import time
import weakref
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.errors import UserError
from pipelines.engines.lora import AdaptedLinear
from pipelines.engines.protocol import EngineFailed, GenerationRequest
from pipelines.engines.transformers import TransformersEngine
from tests.pipelines.engines.test_transformers import Listener
from tests.waiting import until

pytestmark = pytest.mark.slow

TEXTS = ("Return the list of arguments.", "def", "path " * 20)


@pytest.fixture(scope="module")
def open_engine():
    """`open_engine(base, adapters=None)`: an engine whose answers are as long as they may be; closed at the end."""
    opened = []

    def build(base, adapters=None):
        engine = TransformersEngine(base, adapters, "float32", max_batch_size=12)
        engine._end_tokens = frozenset()
        opened.append(engine)
        return engine

    yield build
    for engine in opened:
        engine.close()


def requests_of(engine, adapters, max_new_tokens):
    prompts = [tuple(engine.base.tokenizer(text)["input_ids"]) for text in TEXTS]
    return [GenerationRequest(prompt, adapter, max_new_tokens) for adapter in adapters for prompt in prompts]


class Answer(Listener):
    """The text of a request that runs; each step takes `pace` seconds, so that it runs long enough."""

    def __init__(self, engine, request, pace=0.0):
        super().__init__()
        self.pace, self.ticket = pace, engine.submit(request, self)
        self.first = self.chunks.get(timeout=30)

    def __call__(self, chunk):
        super().__call__(chunk)
        time.sleep(self.pace)

    def whole(self):
        """Text, tokens and why it ended."""
        chunks = [self.first]
        while not chunks[-1].finish_reason:
            chunks.append(self.chunks.get(timeout=60))
        return "".join(chunk.text for chunk in chunks), sum(chunk.tokens for chunk in chunks), chunks[-1].finish_reason


def gone(engine, name):
    """Wait until the engine has forgotten an adapter."""
    until(lambda: name not in engine.base.adapters, "the adapter's end", pause_s=0.01)


def held(engine):
    """Every parameter by name and place in memory, and every module's class: what an engine is made of."""
    model = engine.base.model
    return (
        {key: (value.data_ptr(), float(value.double().sum())) for key, value in model.named_parameters()},
        {path: type(module) for path, module in model.named_modules()},
        engine.base.adapters,
    )


def updates_in(engine):
    """The tensors of all adapters, also those that hold several."""
    layers = [layer for layer in engine.base.model.modules() if isinstance(layer, AdaptedLinear)]
    own = [tensor for layer in layers for update in layer._own.values() for tensor in (update.down, update.up)]
    return own + [tensor for layer in layers for tensor in (*(layer._all or ()), *(layer._mixed or ())[1:])]


@pytest.mark.parametrize("kind", ["decoder", "seq2seq"])
def test_answers_that_run_while_adapters_come_and_go_are_what_they_are_alone(
    kind, tiny_model, tiny_t5, save_adapter, open_engine
):
    base = tiny_model if kind == "decoder" else tiny_t5
    there = {name: save_adapter(base, seed) for seed, name in enumerate(("there", "too"), 11)}
    guests = {"plain": save_adapter(base, 13, r=6), "dora": save_adapter(base, 14, use_dora=True)}
    engine = open_engine(base, there)
    # The random T5 alone says nothing but padding.
    requests = requests_of(engine, (None, *there) if kind == "decoder" else there, 900)
    answers = [Answer(engine, request, pace=0.002) for request in requests]
    said = {}
    for name, folder in guests.items():
        engine.add_adapter(name, folder)
        said[name] = [one.text for one in engine.generate(requests_of(engine, (name,), 8))]
        assert engine.remove_adapter(name, 30)
        assert engine.load[0] == len(requests), "they must run all the while for this to prove"
    for answer in answers:
        answer.ticket.cancel()
    untouched = open_engine(base, there)
    for request, answer in zip(requests, answers, strict=True):
        text, tokens, reason = answer.whole()
        (alone,) = untouched.generate([replace(request, max_new_tokens=tokens)])
        # What is cancelled may end within a character.
        assert reason == "cancelled" and tokens > 20 and alone.text.startswith(text.rstrip("\ufffd"))
        assert len(alone.text) - len(text) < 5
    both = open_engine(base, guests)
    assert said == {name: [one.text for one in both.generate(requests_of(both, (name,), 8))] for name in said}
    assert said["plain"] != said["dora"], "they must differ for this to prove"


def test_an_adapter_for_which_there_is_no_room_leaves_nothing_and_the_engine_goes_on(
    tiny_model, tiny_adapters, open_engine, monkeypatch
):
    there, other = tiny_adapters
    engine = open_engine(tiny_model, {there: tiny_adapters[there]})
    requests = requests_of(engine, (None, there), 4)
    before, said = held(engine), engine.generate(requests)
    put, layers = AdaptedLinear.put, []

    def full(layer, name, update):
        layers.append(layer)
        if len(layers) > 3:
            raise RuntimeError("out of memory")
        put(layer, name, update)

    with monkeypatch.context() as patched, pytest.raises(EngineFailed, match=f"adapter {other}: .* no room"):
        patched.setattr(AdaptedLinear, "put", full)
        engine.add_adapter(other, tiny_adapters[other])
    assert held(engine) == before and not any(other in layer.adapters for layer in layers)
    assert engine.generate(requests) == said


def test_what_comes_to_a_bare_base_and_goes_leaves_nothing(tiny_model, tiny_adapters, open_engine):
    engine = open_engine(tiny_model)
    before = held(engine)
    for name, folder in tiny_adapters.items():
        engine.add_adapter(name, folder)
    engine.generate(requests_of(engine, (None, *tiny_adapters), 4))
    tensors = [weakref.ref(tensor) for tensor in updates_in(engine)]
    assert len(tensors) > 2 * 14 * 2, "two matrices a layer and adapter, and those of the mixture"
    assert engine.remove_adapter("first", 30)
    gc.collect()
    assert not any(tensor() is not None for tensor in tensors)
    # The second's are there, and in their memory nothing else.
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in updates_in(engine))
    tensors = [weakref.ref(tensor) for tensor in updates_in(engine)]
    assert engine.remove_adapter("second", 30)
    gc.collect()
    assert not any(tensor() is not None for tensor in tensors)
    assert held(engine) == before
    with pytest.raises(KeyError, match="first"):
        engine.remove_adapter("first")


def test_an_adapter_goes_when_its_last_request_has_ended_and_takes_no_new_one(tiny_model, tiny_adapters, open_engine):
    engine = open_engine(tiny_model, tiny_adapters)
    (request, *_) = requests_of(engine, ("first",), 200)
    whole = engine.generate([request])[0].text
    answer = Answer(engine, request, pace=0.005)
    assert engine.remove_adapter("first", 0.01) is False
    with pytest.raises(KeyError, match=r"no adapter 'first'; there are \['second'\]"):
        engine.submit(request, Listener())
    assert engine.generate(requests_of(engine, ("second",), 3))
    assert engine.base.adapters == ("first", "second")
    assert answer.whole() == (whole, 200, "length")
    gone(engine, "first")
    # The name is free for another.
    engine.add_adapter("first", tiny_adapters["second"])
    answers = engine.generate(requests_of(engine, ("first", "second"), 8))
    assert answers[: len(TEXTS)] == answers[len(TEXTS) :]


def test_a_cancelled_request_holds_no_adapter(tiny_model, tiny_adapters, open_engine):
    engine = open_engine(tiny_model, tiny_adapters)
    answer = Answer(engine, requests_of(engine, ("first",), 900)[0])
    answer.ticket.cancel()
    assert engine.remove_adapter("first", 30)


def weights(change):
    """What makes other tensors of an adapter's."""

    def spoil(folder):
        path = folder / "adapter_model.safetensors"
        save_file({key: value.contiguous() for key, value in change(load_file(path)).items()}, path)

    return spoil


def config(**changes):
    """What makes another configuration of an adapter's."""

    def spoil(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def another_layer(tensors):
    return tensors | {key.replace("layers.1", "layers.2"): value.clone() for key, value in tensors.items()}


def cut(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


EMBEDDING = "base_model.model.model.embed_tokens.weight"

BROKEN = {
    "no folder": (shutil.rmtree, "no adapter_model.safetensors"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors"),
    "a file cut off": (cut, "header promises"),
    "no configuration": (lambda folder: (folder / "adapter_config.json").unlink(), "cannot be read as JSON"),
    "a broken configuration": (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be read as"),
    "another width": (weights(lambda all: {k: torch.zeros(v.shape[0], 7) for k, v in all.items()}), "does not fit"),
    "fewer layers": (weights(lambda all: {k: v for k, v in all.items() if "layers.0" in k}), "it has no weights for"),
    "more layers": (weights(another_layer), "the base has no place for"),
    "layers of other names": (config(target_modules=["query"]), "does not fit this base"),
    "an embedding of its own": (weights(lambda all: all | {EMBEDDING: torch.zeros(640, 64)}), "embed_tokens"),
    "a beginning that changes the base": (config(init_lora_weights="pissa"), "pissa"),
    "another method": (config(peft_type="IA3", feedforward_modules=[]), "only LoRA"),
    "copies of layers": (config(layer_replication=[[0, 2], [1, 2]]), "only LoRA"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_used_is_refused_and_leaves_the_engine_as_it_was(
    case, tiny_model, tiny_adapters, open_engine, tmp_path
):
    spoil, reason = BROKEN[case]
    folder = tmp_path / "spoilt"
    shutil.copytree(tiny_adapters["second"], folder)
    spoil(folder)
    engine = open_engine(tiny_model, {"first": tiny_adapters["first"]})
    before, requests = held(engine), requests_of(engine, (None, "first"), 6)
    said = engine.generate(requests)
    with pytest.raises(UserError, match=reason) as refused:
        engine.add_adapter("spoilt", folder)
    assert str(folder) in refused.value.message and refused.value.remedy
    assert held(engine) == before and engine.generate(requests) == said
    engine.add_adapter("spoilt", tiny_adapters["second"])


def test_an_adapter_of_another_base_is_refused(tiny_model, tiny_t5, save_adapter, open_engine):
    engine = open_engine(tiny_model)
    before = held(engine)
    with pytest.raises(UserError, match="does not fit this base"):
        engine.add_adapter("foreign", save_adapter(tiny_t5, 5))
    assert held(engine) == before


def test_a_name_is_given_once_and_a_closed_engine_takes_nothing(tiny_model, tiny_adapters, open_engine):
    engine = open_engine(tiny_model, tiny_adapters)
    with pytest.raises(UserError, match="first already"):
        engine.add_adapter("first", tiny_adapters["second"])
    engine.close()
    with pytest.raises(EngineFailed, match="third"):
        engine.add_adapter("third", tiny_adapters["second"])
    assert engine.base.adapters == ("first", "second")


def test_threads_that_add_and_remove_at_once_disturb_nobody(tiny_model, tiny_adapters, open_engine):
    engine = open_engine(tiny_model, {"first": tiny_adapters["first"]})
    requests = requests_of(engine, (None, "first"), 200)
    alone = engine.generate(requests)
    expected = open_engine(tiny_model, tiny_adapters).generate(requests_of(engine, ("second",), 5))
    wrong = []

    def come_and_go(name):
        for _ in range(3):
            engine.add_adapter(name, tiny_adapters["second"])
            if engine.generate(requests_of(engine, (name,), 5)) != expected:
                wrong.append(name)
            engine.remove_adapter(name, 30)

    threads = [threading.Thread(target=come_and_go, args=(f"guest-{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    assert engine.generate(requests) == alone
    for thread in threads:
        thread.join(60)
    assert wrong == [] and engine.base.adapters == ("first",)
