"""The engine over an encoder-decoder: plain `generate` is what it is measured by."""

import threading

import pytest
import torch

from pipelines.data.chat import encode, prompt_tokens
from pipelines.engines.batch import Row
from pipelines.engines.protocol import GenerationRequest, PromptTooLong
from pipelines.engines.sampling import Sampler
from pipelines.engines.scoring import answer_losses
from pipelines.engines.seq2seq_batch import Seq2SeqBatch
from pipelines.engines.shared_base import SharedBase
from pipelines.engines.transformers import TransformersEngine
from pipelines.models.load import load_model, load_tokenizer

pytestmark = pytest.mark.slow

PROMPTS = ("a", "Return the list of arguments.", "def", "path " * 40, "JSON is a format", "x y z")
GREEDY = Sampler.of(0, 1, None)


@pytest.fixture(scope="module")
def adapters(tiny_t5, tmp_path_factory):
    """Two LoRA adapters over the tiny T5 whose answers differ."""
    from peft import LoraConfig, get_peft_model

    folders = {}
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="SEQ_2_SEQ_LM")
        model = get_peft_model(load_model(tiny_t5, "float32"), config)
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.3)
        folders[name] = tmp_path_factory.mktemp("adapters") / name
        model.save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="module")
def models(tiny_t5, adapters):
    """Adapter (None: the base) -> transformers' and PEFT's own model."""
    from peft import PeftModel

    return {None: load_model(tiny_t5, "float32")} | {
        name: PeftModel.from_pretrained(load_model(tiny_t5, "float32"), folder).eval()
        for name, folder in adapters.items()
    }


@pytest.fixture(scope="module")
def plain(models):
    """Plain greedy `generate`, one prompt at a time: (prompt, adapter, max_new_tokens) -> its tokens."""

    def answer(prompt, adapter=None, max_new_tokens=24):
        tokens = models[adapter].generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        # The first one starts the decoder.
        return tokens[0, 1:].tolist()

    return answer


@pytest.fixture(scope="module")
def engine(tiny_t5, adapters):
    engine = TransformersEngine(tiny_t5, adapters, "float32", max_batch_size=4, max_queued_requests=3)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def tokens_of(tiny_t5):
    tokenizer = load_tokenizer(tiny_t5)
    return lambda text: tuple(prompt_tokens(tokenizer, [{"role": "user", "content": text}]))


def test_answers_are_those_of_plain_generate_whoever_shares_the_batch(engine, plain, tokens_of):
    # More requests than slots, of different lengths and adapters: rows join and leave all the time.
    requests = [
        GenerationRequest(tokens_of(text), adapter, max_new_tokens)
        for text, max_new_tokens in zip(PROMPTS, (24, 3, 40, 17, 9, 30), strict=True)
        for adapter in (None, "first", "second")
    ]
    answers = engine.generate(requests)
    for request, answer in zip(requests, answers, strict=True):
        tokens = plain(request.prompt, request.adapter, request.max_new_tokens)
        assert answer.completion_tokens == len(tokens), request
        assert answer.text == engine.tokenizer.decode(tokens, skip_special_tokens=True)
    assert len({answer.text for answer in answers[:3]}) == 3, "the adapters must answer differently for this to prove"


def test_rows_that_join_mid_way_and_outlive_others_say_token_for_token_what_generate_says(engine, plain, tokens_of):
    batch = Seq2SeqBatch(engine.base)
    asked = [("def", None), ("path " * 30, "first"), ("JSON is a format", "second"), ("x", "first")]
    said = {number: [] for number in range(len(asked))}

    def join(*numbers):
        rows = [Row(tokens_of(asked[number][0]), asked[number][1], GREEDY) for number in numbers]
        for number, token in zip(numbers, batch.join(rows), strict=True):
            said[number].append(token.id)
        running.extend(numbers)

    def steps(count):
        for _ in range(count):
            for number, token in zip(running, batch.step(), strict=True):
                said[number].append(token.id)

    running = []
    join(0)
    steps(5)
    join(1, 2)
    steps(4)
    batch.keep([0, 2])
    running[:] = [0, 2]
    steps(3)
    join(3)
    steps(6)
    # The row with the longest answer leaves: the columns that it alone filled go with it.
    batch.keep([1, 2])
    running[:] = [2, 3]
    steps(4)
    assert [len(said[number]) for number in range(4)] == [19, 5, 18, 11]
    for number, (text, adapter) in enumerate(asked):
        expected = plain(tokens_of(text), adapter, len(said[number]))
        assert said[number][: len(expected)] == expected
    assert batch._source_mask.shape[1] < len(tokens_of(asked[1][0]))


def test_pieces_stream_and_a_stop_string_ends_an_answer(engine, tokens_of):
    request = GenerationRequest(tokens_of("def"), "second", 30)
    whole = engine.generate([request])[0]
    pieces = []
    done = threading.Event()
    engine.submit(request, lambda chunk: (pieces.append(chunk), chunk.finish_reason and done.set()))
    assert done.wait(30)
    assert "".join(chunk.text for chunk in pieces) == whole.text
    assert len(pieces) > 3 and sum(chunk.tokens for chunk in pieces) == whole.completion_tokens
    stop = whole.text[6:8]
    stopped = engine.generate([GenerationRequest(request.prompt, "second", 30, stop=(stop,))])[0]
    assert stopped.text == whole.text[: whole.text.index(stop)] and stopped.finish_reason == "stop"


def test_the_end_token_ends_an_answer(engine, plain, tokens_of):
    request = GenerationRequest(tokens_of("def"), "first", 30)
    tokens = plain(request.prompt, "first", 30)
    ends = engine._end_tokens
    try:
        engine._end_tokens = frozenset({tokens[2]})
        ended = engine.generate([request])[0]
    finally:
        engine._end_tokens = ends
    assert ended.finish_reason == "stop" and ended.completion_tokens == tokens.index(tokens[2]) + 1


def test_a_prompt_beyond_what_is_trained_and_served_is_refused(engine):
    with pytest.raises(PromptTooLong, match="8192"):
        engine.submit(GenerationRequest((5,) * 8192), print)


@pytest.mark.parametrize("adapter", [None, "second"])
def test_losses_are_those_of_transformers_own_forward_pass(tiny_t5, adapters, models, adapter):
    base = SharedBase(tiny_t5, adapters, "float32")
    turns = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
        for text, answer in zip(PROMPTS, ("the list", "a", "JSON " * 20, "", "file name", "x"), strict=True)
    ]
    encoded = [encode(base.tokenizer, each) for each in turns]
    # Small batches too: padding and company change nothing.
    for batch_tokens in (64, 4096):
        found = answer_losses(base, adapter, [(one.tokens, one.supervised) for one in encoded], batch_tokens)
        for one, (loss, count) in zip(encoded, found, strict=True):
            assert count == sum(one.supervised)
            size = len(one.tokens) - count
            with torch.no_grad():
                output = models[adapter](
                    input_ids=torch.tensor([one.tokens[:size]]), labels=torch.tensor([one.tokens[size:]])
                )
            assert loss / count == pytest.approx(float(output.loss), abs=1e-4)
