import queue
import threading
from collections import deque

import pytest
import torch

from cluster.errors import UserError
from pipelines.engines.batch import Batch, Row
from pipelines.engines.protocol import EngineFailed, GenerationRequest, Overloaded, PromptTooLong
from pipelines.engines.sampling import Sampler
from pipelines.engines.scoring import answer_losses
from pipelines.engines.transformers import TransformersEngine
from pipelines.models.load import load_causal_lm, load_tokenizer

pytestmark = pytest.mark.slow

PROMPTS = ("a", "Return the list of arguments.", "def", "path " * 40, "JSON is a format", "x y z")


@pytest.fixture(scope="module")
def engine(tiny_model, tiny_adapters):
    engine = TransformersEngine(tiny_model, tiny_adapters, "float32", max_batch_size=4, max_queued_requests=3)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def plain(tiny_model, tiny_adapters):
    """Plain greedy `generate`, one prompt at a time: (prompt tokens, adapter, max_new_tokens) -> answer."""
    from peft import PeftModel

    tokenizer = load_tokenizer(tiny_model)
    models = {None: load_causal_lm(tiny_model, "float32")} | {
        name: PeftModel.from_pretrained(load_causal_lm(tiny_model, "float32"), folder)
        for name, folder in tiny_adapters.items()
    }

    def answer(prompt, adapter=None, max_new_tokens=24):
        tokens = models[adapter].generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )[0, len(prompt) :]
        return tokenizer.decode(tokens, skip_special_tokens=True), len(tokens)

    return answer


@pytest.fixture(scope="module")
def tokens_of(tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    return lambda text: tuple(tokenizer(text)["input_ids"])


class Listener:
    """Collects the chunks of one request, and can hold up the engine's thread after a chunk."""

    def __init__(self):
        self.chunks = queue.Queue()
        self.hold = threading.Event()
        self.hold.set()

    def __call__(self, chunk):
        self.chunks.put(chunk)
        assert self.hold.wait(30)

    def last(self):
        while True:
            chunk = self.chunks.get(timeout=30)
            if chunk.finish_reason:
                return chunk


def test_answers_are_those_of_plain_generate_whoever_shares_the_batch(engine, plain, tokens_of):
    # More requests than slots, of different lengths and adapters: rows join and leave all the time.
    requests = [
        GenerationRequest(tokens_of(text), adapter, max_new_tokens)
        for text, max_new_tokens in zip(PROMPTS, (24, 3, 40, 17, 9, 30), strict=True)
        for adapter in (None, "first", "second")
    ]
    answers = engine.generate(requests)
    for request, answer in zip(requests, answers, strict=True):
        text, count = plain(request.prompt, request.adapter, request.max_new_tokens)
        assert (answer.text, answer.completion_tokens) == (text, count), request
    assert len({answer.text for answer in answers[:3]}) == 3, "the adapters must answer differently for this to prove"


def test_a_newcomer_with_a_longer_prompt_joins_rows_that_run(engine, plain, tokens_of):
    short, long = tokens_of("def"), tokens_of("path " * 60)
    first, second = Listener(), Listener()
    first.hold.clear()
    engine.submit(GenerationRequest(short, max_new_tokens=30), first)
    first.chunks.get(timeout=30)
    engine.submit(GenerationRequest(long, "first", max_new_tokens=10), second)
    first.hold.set()
    second.last()
    first.last()
    assert engine.generate([GenerationRequest(long, "first", 10)])[0].text == plain(long, "first", 10)[0]


def whole_tokens(engine, request):
    """The tokens of an answer, step by step."""
    batch = Batch(engine.base)
    tokens = batch.join([Row(request.prompt, request.adapter, Sampler.of(0, 1, None))])
    while len(tokens) < request.max_new_tokens:
        tokens += batch.step()
    return [token.id for token in tokens]


def test_the_end_token_ends_an_answer(engine, tokens_of):
    request = GenerationRequest(tokens_of("def"), max_new_tokens=30)
    whole = engine.generate([request])[0]
    assert whole.finish_reason == "length" and whole.completion_tokens == 30
    tokens = whole_tokens(engine, request)
    ends = engine._end_tokens
    try:
        # The third token of this very answer is declared an end.
        engine._end_tokens = frozenset({tokens[2]})
        cut = engine.generate([request])[0]
    finally:
        engine._end_tokens = ends
    assert cut.finish_reason == "stop"
    assert cut.completion_tokens == tokens.index(tokens[2]) + 1
    assert whole.text.startswith(cut.text) and len(cut.text) < len(whole.text)


def test_a_stop_string_ends_an_answer_and_is_not_part_of_it(engine, tokens_of):
    whole = engine.generate([GenerationRequest(tokens_of("JSON"), max_new_tokens=30)])[0]
    stop = whole.text[6:8]
    cut = engine.generate([GenerationRequest(tokens_of("JSON"), max_new_tokens=30, stop=(stop,))])[0]
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"


def test_probabilities_of_an_answer_are_those_that_scoring_finds(engine, tokens_of):
    asked = GenerationRequest(tokens_of("JSON"), "first", 12, logprobs=3)
    chunks, done = [], threading.Event()
    engine.submit(asked, lambda chunk: (chunks.append(chunk), chunk.finish_reason and done.set()))
    assert done.wait(60)
    told = [token for chunk in chunks for token in chunk.logprobs]
    answer = [token.id for token in told]
    assert len(told) == 12 and engine.tokenizer.decode(answer) == "".join(chunk.text for chunk in chunks)
    wanted = [False] * len(asked.prompt) + [True] * 12
    ((loss, count),) = answer_losses(engine.base, "first", [((*asked.prompt, *answer), wanted)])
    assert count == 12 and -sum(token.logprob for token in told) == pytest.approx(loss, rel=1e-4)
    for token in told:
        assert len(token.likeliest) == 3 and token.likeliest[0] == (token.id, pytest.approx(token.logprob, abs=1e-5))


def test_the_same_seed_gives_the_same_sample_in_any_company(engine, tokens_of):
    request = GenerationRequest(tokens_of("JSON"), None, 12, temperature=1.0, top_p=0.9, seed=7)
    alone = engine.generate([request])[0].text
    others = [GenerationRequest(tokens_of(text), "second", 20, temperature=1.5) for text in PROMPTS]
    assert engine.generate([*others[:2], request, *others[2:]])[2].text == alone
    different = GenerationRequest(tokens_of("JSON"), None, 12, temperature=1.0, top_p=0.9, seed=8)
    assert engine.generate([different])[0].text != alone


def test_chunks_arrive_one_by_one_and_count_every_token(engine, tokens_of):
    listener = Listener()
    engine.submit(GenerationRequest(tokens_of("def"), max_new_tokens=12), listener)
    chunks = [listener.chunks.get(timeout=30)]
    while chunks[-1].finish_reason is None:
        chunks.append(listener.chunks.get(timeout=30))
    assert len(chunks) > 4
    assert sum(chunk.tokens for chunk in chunks) == 12


def test_beyond_the_queue_a_request_is_refused_and_capacity_comes_back(engine, tokens_of):
    held = Listener()
    held.hold.clear()
    running = [engine.submit(GenerationRequest(tokens_of("def"), max_new_tokens=60), held)]
    held.chunks.get(timeout=30)
    others = [Listener() for _ in range(6)]
    for listener in others:
        running.append(engine.submit(GenerationRequest(tokens_of("x"), max_new_tokens=2), listener))
    with pytest.raises(Overloaded):
        engine.submit(GenerationRequest(tokens_of("x"), max_new_tokens=2), Listener())
    held.hold.set()
    assert {listener.last().finish_reason for listener in [held, *others]} == {"length"}
    last = Listener()
    engine.submit(GenerationRequest(tokens_of("x"), max_new_tokens=2), last)
    assert last.last().finish_reason == "length"


def test_a_cancelled_request_frees_its_slot(engine, tokens_of):
    listener = Listener()
    ticket = engine.submit(GenerationRequest(tokens_of("def"), max_new_tokens=900), listener)
    listener.chunks.get(timeout=30)
    ticket.cancel()
    assert listener.last().finish_reason == "cancelled"
    assert engine.load == (0, 0)


def test_a_listener_that_fails_loses_its_slot_and_harms_no_other(engine, tokens_of):
    def gone(chunk):
        raise ConnectionError

    engine.submit(GenerationRequest(tokens_of("def"), max_new_tokens=900), gone)
    assert engine.generate([GenerationRequest(tokens_of("def"), max_new_tokens=9)])[0].completion_tokens == 9
    assert engine.load == (0, 0)


def test_a_prompt_without_room_for_an_answer_is_refused(engine):
    with pytest.raises(PromptTooLong, match="1024 tokens"):
        engine.submit(GenerationRequest((1,) * 1024), Listener())
    with pytest.raises(PromptTooLong):
        engine.submit(GenerationRequest(()), Listener())


def test_an_answer_ends_at_the_end_of_the_context(engine):
    answer = engine.generate([GenerationRequest((5,) * 1020, max_new_tokens=50)])[0]
    assert answer.finish_reason == "length" and answer.completion_tokens == 4


def test_a_broken_forward_pass_fails_its_requests_and_the_engine_goes_on(engine, tokens_of):
    # A token beyond the vocabulary breaks the embedding.
    with pytest.raises(EngineFailed, match="IndexError"):
        engine.generate([GenerationRequest((10**6,), max_new_tokens=3)])
    assert engine.generate([GenerationRequest(tokens_of("def"), max_new_tokens=3)])[0].completion_tokens == 3


def test_an_adapter_of_another_shape_or_of_no_numbers_is_refused_with_a_sentence(tiny_model, tiny_adapters, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    wrong = tmp_path / "wrong"
    shutil.copytree(tiny_adapters["first"], wrong)
    weights = load_file(wrong / "adapter_model.safetensors")
    save_file(
        {k: torch.zeros(v.shape[0], v.shape[1] + 1) for k, v in weights.items()}, wrong / "adapter_model.safetensors"
    )
    with pytest.raises(UserError, match="does not fit"):
        TransformersEngine(tiny_model, {"wrong": wrong}, "float32")
    (key, *_) = weights
    save_file(weights | {key: torch.full_like(weights[key], torch.nan)}, wrong / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"not numbers") as refused:
        TransformersEngine(tiny_model, {"wrong": wrong}, "float32")
    assert key in str(refused.value) and "diverged" in refused.value.remedy


def test_closing_tells_the_ones_that_wait(tiny_model, tokens_of):
    engine = TransformersEngine(tiny_model, None, "float32", max_batch_size=1)
    listeners = [Listener(), Listener()]
    for listener in listeners:
        engine.submit(GenerationRequest(tokens_of("def"), max_new_tokens=1000), listener)
    listeners[0].chunks.get(timeout=30)
    engine.close()
    assert {listener.last().finish_reason for listener in listeners} == {"cancelled"}
    with pytest.raises(EngineFailed):
        engine.submit(GenerationRequest(tokens_of("def")), Listener())


def test_a_request_that_is_cancelled_while_others_leave_still_hears_its_last_chunk():
    class Request:
        """Cancelled from the `after`th look on."""

        def __init__(self, after):
            self.after, self.heard = after, []

        @property
        def cancelled(self):
            self.after -= 1
            return self.after < 0

        def tell(self, text, finish_reason=None, error=""):
            self.heard.append(finish_reason)

    class Rows:
        def keep(self, kept):
            pass

    engine = object.__new__(TransformersEngine)
    engine._changed, engine._batch = threading.Condition(), Rows()
    running, waiting = [Request(0), Request(1)], [Request(0), Request(1)]
    engine._running, engine._waiting = list(running), deque(waiting)
    for _ in range(2):
        engine._drop_cancelled()
    assert [request.heard for request in (*running, *waiting)] == [["cancelled"]] * 4
