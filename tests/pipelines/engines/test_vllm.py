"""The engine over vLLM, beside the one over transformers: the same answers, the same probabilities and refusals."""

import json
import os
import queue
import shutil

import pytest
from jsonschema import validate

from cluster.errors import UserError
from pipelines.engines.protocol import (
    EngineFailed,
    EngineOptions,
    GenerationRequest,
    Overloaded,
    PromptTooLong,
    SchemaRefused,
    Token,
    open_engine,
)
from tests.waiting import until

pytestmark = pytest.mark.vllm

TEXTS = ("a", "Return the list of arguments.", "def", "path " * 40, "JSON is a format", "x y z")


@pytest.fixture(scope="module")
def adapters(tiny_model, save_adapter):
    return {"first": save_adapter(tiny_model, 31), "second": save_adapter(tiny_model, 32, use_rslora=True)}


@pytest.fixture(scope="module")
def engine(tiny_model, adapters):
    engine = open_engine(tiny_model, {"first": adapters["first"]}, EngineOptions("vllm", "float32", 4, 3))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def other(tiny_model, adapters):
    engine = open_engine(tiny_model, {"first": adapters["first"]}, EngineOptions("transformers", "float32", 4, 3))
    yield engine
    engine.close()


def tokens(engine, text):
    return tuple(engine.tokenizer(text)["input_ids"])


class Listener:
    """Collects the chunks of one request."""

    def __init__(self):
        self.chunks = queue.Queue()

    def __call__(self, chunk):
        self.chunks.put(chunk)

    def all(self):
        found = [self.chunks.get(timeout=60)]
        while found[-1].finish_reason is None:
            found.append(self.chunks.get(timeout=60))
        return found


def test_no_more_threads_are_counted_on_than_may_compute(monkeypatch):
    from pipelines.engines.vllm import threads

    cores = len(os.sched_getaffinity(0))
    for limit, expected in (("1", 1), (str(cores + 1), cores), ("", cores)):
        monkeypatch.setenv("OMP_THREAD_LIMIT", limit)
        assert threads() == expected


def test_answers_are_those_of_the_other_engine_whoever_shares_the_batch(engine, other):
    requests = [
        GenerationRequest(tokens(engine, text), adapter, most)
        for text, most in zip(TEXTS, (24, 3, 40, 17, 9, 30), strict=True)
        for adapter in (None, "first")
    ]
    answers = engine.generate(requests)
    assert answers == other.generate(requests)
    assert len({answer.text for answer in answers[:2]}) == 2, "the adapter must answer differently for this to prove"
    assert engine.load == (0, 0)


def test_probabilities_are_those_of_the_other_engine(engine, other):
    asked = GenerationRequest(tokens(engine, "JSON"), "first", 12, logprobs=3)

    def told(one):
        heard = Listener()
        one.submit(asked, heard)
        return [token for chunk in heard.all() for token in chunk.logprobs]

    ours, theirs = told(engine), told(other)
    assert len(ours) == 12 and [token.id for token in ours] == [token.id for token in theirs]
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.logprob == pytest.approx(its.logprob, abs=1e-3)
        assert [number for number, _ in mine.likeliest] == [number for number, _ in its.likeliest]
        assert [logprob for _, logprob in mine.likeliest] == pytest.approx(
            [logprob for _, logprob in its.likeliest], abs=1e-3
        )


def test_an_answer_follows_its_schema_as_in_the_other_engine(engine, other):
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["mood", "stars"],
        "additionalProperties": False,
    }
    asked = [
        GenerationRequest(tokens(engine, "JSON"), adapter, 200, json_schema=json.dumps(schema))
        for adapter in (None, "first")
    ]
    answers = engine.generate(asked)
    for answer in answers:
        validate(json.loads(answer.text), schema)
    assert [answer.finish_reason for answer in answers] == ["stop", "stop"]
    with pytest.raises(SchemaRefused, match="no probabilities beside a schema"):
        engine.submit(GenerationRequest(tokens(engine, "JSON"), json_schema="{}", logprobs=1), Listener())
    for one in (engine, other):
        for wrong in ('{"type": "objekt"}', '{"$ref": "#/$defs/nowhere"}'):
            with pytest.raises(SchemaRefused):
                one.submit(GenerationRequest(tokens(engine, "JSON"), json_schema=wrong), Listener())


def test_a_stop_string_ends_an_answer_and_is_not_part_of_it(engine):
    whole = engine.generate([GenerationRequest(tokens(engine, "JSON"), max_new_tokens=30)])[0]
    stop = whole.text[6:8]
    cut = engine.generate([GenerationRequest(tokens(engine, "JSON"), max_new_tokens=30, stop=(stop,))])[0]
    assert cut.text == whole.text[: whole.text.index(stop)] and cut.finish_reason == "stop"


def test_the_end_token_ends_an_answer(engine, monkeypatch):
    heard = Listener()
    engine.submit(GenerationRequest(tokens(engine, "def"), max_new_tokens=30), heard)
    whole = "".join(chunk.text for chunk in heard.all())
    third = tokens(engine, whole)[2]
    monkeypatch.setattr(engine, "_end_tokens", frozenset({third}))
    cut = engine.generate([GenerationRequest(tokens(engine, "def"), max_new_tokens=30)])[0]
    assert cut.finish_reason == "stop" and whole.startswith(cut.text) and len(cut.text) < len(whole)


def test_the_same_seed_gives_the_same_sample_in_any_company(engine):
    request = GenerationRequest(tokens(engine, "JSON"), None, 12, temperature=1.0, top_p=0.9, seed=-7)
    alone = engine.generate([request])[0].text
    others = [GenerationRequest(tokens(engine, text), "first", 20, temperature=1.5) for text in TEXTS]
    assert engine.generate([*others[:2], request, *others[2:]])[2].text == alone
    assert engine.generate([GenerationRequest(request.prompt, None, 12, temperature=1.0, seed=8)])[0].text != alone


def test_a_cancelled_request_frees_its_slot(engine):
    heard = Listener()
    ticket = engine.submit(GenerationRequest(tokens(engine, "def"), max_new_tokens=900), heard)
    first = heard.chunks.get(timeout=60)
    assert first.finish_reason is None and engine.load == (1, 0)
    ticket.cancel()
    assert heard.all()[-1].finish_reason == "cancelled" and engine.load == (0, 0)


def test_one_that_is_cancelled_at_once_hears_so(engine):
    heard = Listener()
    engine.submit(GenerationRequest(tokens(engine, "def"), max_new_tokens=900), heard).cancel()
    assert [chunk.finish_reason for chunk in heard.all()] == ["cancelled"]


def test_more_than_batch_and_queue_hold_are_refused(engine):
    listeners = [Listener() for _ in range(7)]
    asked = GenerationRequest(tokens(engine, "def"), max_new_tokens=900)
    tickets = [engine.submit(asked, heard) for heard in listeners]
    assert engine.load == (4, 3)
    with pytest.raises(Overloaded, match="3 requests wait"):
        engine.submit(asked, Listener())
    for ticket in tickets:
        ticket.cancel()
    for heard in listeners:
        heard.all()


def test_what_has_no_room_and_what_is_not_there_is_refused(engine):
    with pytest.raises(PromptTooLong, match="1024 tokens"):
        engine.submit(GenerationRequest((1,) * 1024), Listener())
    with pytest.raises(PromptTooLong):
        engine.submit(GenerationRequest(()), Listener())
    with pytest.raises(KeyError, match="nobody"):
        engine.submit(GenerationRequest((1, 2), "nobody"), Listener())
    answer = engine.generate([GenerationRequest((5,) * 1020, max_new_tokens=50)])[0]
    assert answer.finish_reason == "length" and answer.completion_tokens == 4


def test_a_token_beyond_the_vocabulary_fails_its_request_and_the_engine_goes_on(engine):
    with pytest.raises(EngineFailed, match="Token 1000000 is beyond"):
        engine.generate([GenerationRequest((10**6,), max_new_tokens=3)])
    assert engine.alive
    assert engine.generate([GenerationRequest(tokens(engine, "def"), max_new_tokens=3)])[0].completion_tokens == 3


def test_adapters_come_and_go_while_others_answer(engine, other, adapters):
    long = Listener()
    ticket = engine.submit(GenerationRequest(tokens(engine, "def"), "first", 900), long)
    long.chunks.get(timeout=60)
    for one in (engine, other):
        one.add_adapter("second", adapters["second"])
    assert engine.load == (1, 0), "it must answer all the while for this to prove"
    asked = [GenerationRequest(tokens(engine, text), "second", 12) for text in TEXTS]
    assert engine.generate(asked) == other.generate(asked)
    with pytest.raises(UserError, match="second already"):
        engine.add_adapter("second", adapters["second"])
    assert engine.remove_adapter("second", 60)
    with pytest.raises(KeyError, match="second"):
        engine.submit(asked[0], Listener())
    # Another one under its name meets nothing of it.
    for one in (engine, other):
        if one is other:
            other.remove_adapter("second", 60)
        one.add_adapter("second", adapters["first"])
    assert engine.generate(asked) == other.generate(asked)
    for one in (engine, other):
        assert one.remove_adapter("second", 60)
    ticket.cancel()
    long.all()


def test_an_adapter_that_answers_goes_after_its_answer(engine, adapters):
    long = Listener()
    ticket = engine.submit(GenerationRequest(tokens(engine, "def"), "first", 900), long)
    long.chunks.get(timeout=60)
    assert not engine.remove_adapter("first", 0)
    with pytest.raises(KeyError):
        engine.submit(GenerationRequest((1, 2), "first"), Listener())
    assert engine.load == (1, 0)
    ticket.cancel()
    long.all()
    engine.add_adapter("first", adapters["first"])


def test_adapters_that_it_cannot_serve_are_refused_with_a_sentence(
    engine, tiny_model, save_adapter, adapters, tmp_path
):
    with pytest.raises(UserError, match=r"rank 64 at most, and this has 80"):
        engine.add_adapter("wide", save_adapter(tiny_model, 33, r=80))
    with pytest.raises(UserError, match="no DoRA"):
        engine.add_adapter("dora", save_adapter(tiny_model, 34, use_dora=True))
    with pytest.raises(UserError, match="adapter_model"):
        engine.add_adapter("none", tmp_path)
    import torch
    from safetensors.torch import load_file, save_file

    wrong = tmp_path / "wrong"
    shutil.copytree(adapters["first"], wrong)
    weights = load_file(wrong / "adapter_model.safetensors")
    save_file(
        {k: torch.zeros(v.shape[0], v.shape[1] + 1) for k, v in weights.items()}, wrong / "adapter_model.safetensors"
    )
    with pytest.raises(UserError, match="does not fit this base"):
        engine.add_adapter("wrong", wrong)
    assert engine.generate([GenerationRequest(tokens(engine, "def"), "first", 5)])[0].completion_tokens == 5


def test_encoder_decoders_are_refused_with_a_sentence(tiny_t5):
    with pytest.raises(UserError, match="no encoder-decoders") as refused:
        open_engine(tiny_t5, {}, EngineOptions("vllm", "float32"))
    assert "cluster.engine: transformers" in refused.value.remedy


def test_what_is_not_a_number_is_an_error_whether_or_not_probabilities_are_asked_for():
    from pipelines.engines.vllm import read_tokens
    from pipelines.engines.vllm_package import make_importable

    make_importable()
    from vllm.logprobs import Logprob
    from vllm.outputs import CompletionOutput

    def output(logprob):
        return CompletionOutput(0, "", [5], None, [{5: Logprob(logprob, 1), 7: Logprob(-2.0, 2)}])

    assert read_tokens(output(-0.5), None) == [Token(5)]
    assert read_tokens(output(-0.5), 2) == [Token(5, -0.5, ((5, -0.5), (7, -2.0)))]
    for asked in (None, 2):
        with pytest.raises(EngineFailed, match="not a number"):
            read_tokens(output(float("nan")), asked)


def test_a_process_that_dies_fails_its_requests_and_is_noticed(engine):
    """The last test of the file: it ends the engine."""
    import psutil

    heard = Listener()
    engine.submit(GenerationRequest(tokens(engine, "def"), max_new_tokens=900), heard)
    heard.chunks.get(timeout=60)
    children = psutil.Process().children(recursive=True)
    workers = [child for child in children if any("VLLM" in part for part in [child.name(), *child.cmdline()])]
    assert workers
    for worker in workers:
        worker.kill()
    last = heard.all()[-1]
    assert last.finish_reason == "error" and last.error
    until(lambda: not engine.alive, "the engine to notice that its process has ended")
    with pytest.raises(EngineFailed):
        engine.generate([GenerationRequest((1, 2), max_new_tokens=2)])
