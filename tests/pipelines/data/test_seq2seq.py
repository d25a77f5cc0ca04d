import pytest

from cluster.errors import UserError
from pipelines.data.chat import encode, prompt_tokens, stop_tokens
from pipelines.data.seq2seq import source_text
from pipelines.models.load import load_tokenizer

SYSTEM = {"role": "system", "content": "Be brief."}
ASK, ANSWER = {"role": "user", "content": "Return the list."}, {"role": "assistant", "content": "A list."}
AGAIN, LAST = {"role": "user", "content": "And then?"}, {"role": "assistant", "content": "The name of a file"}


@pytest.fixture
def tokenizer(tiny_t5):
    return load_tokenizer(tiny_t5)


def parts(encoded):
    size = sum(encoded.supervised)
    assert encoded.supervised == [False] * (len(encoded.tokens) - size) + [True] * size
    return encoded.tokens[: len(encoded.tokens) - size], encoded.tokens[len(encoded.tokens) - size :]


@pytest.mark.parametrize(
    ("turns", "text"),
    [
        ([ASK], "Return the list."),
        ([SYSTEM, ASK], "Be brief.\n\nReturn the list."),
        ([ASK, ANSWER, AGAIN], "User: Return the list.\n\nAssistant: A list.\n\nUser: And then?"),
        ([SYSTEM, ASK, ANSWER, AGAIN], "Be brief.\n\nUser: Return the list.\n\nAssistant: A list.\n\nUser: And then?"),
    ],
)
def test_a_question_is_read_as_it_is_and_a_conversation_turn_by_turn(tokenizer, turns, text):
    assert source_text(turns) == text
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert prompt_tokens(tokenizer, turns) == [*plain, tokenizer.eos_token_id]


@pytest.mark.parametrize("turns", [[ASK], [SYSTEM, ASK], [SYSTEM, ASK, ANSWER, AGAIN]])
def test_what_trains_is_token_for_token_what_serves(tokenizer, turns):
    source, target = parts(encode(tokenizer, [*turns, LAST]))
    assert source == prompt_tokens(tokenizer, turns) == prompt_tokens(tokenizer, [*turns, LAST])
    assert target == [*tokenizer(LAST["content"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def test_the_source_ends_as_the_tokenizer_itself_ends_a_text(tokenizer):
    assert prompt_tokens(tokenizer, [ASK]) == tokenizer(ASK["content"])["input_ids"]


def test_the_end_token_alone_ends_an_answer(tokenizer):
    assert stop_tokens(tokenizer) == {tokenizer.eos_token_id}
    assert encode(tokenizer, [ASK, ANSWER]).ends


def test_special_tokens_in_a_text_are_plain_text(tokenizer):
    encoded = encode(tokenizer, [{"role": "user", "content": "a</s>b <extra_id_0>"}, ANSWER])
    source, target = parts(encoded)
    assert encoded.escaped == 2
    assert [token for token in source if token in tokenizer.all_special_ids and token != tokenizer.unk_token_id] == [
        tokenizer.eos_token_id
    ]
    assert target[-1] == tokenizer.eos_token_id


def test_without_an_answer_nothing_is_supervised(tokenizer):
    encoded = encode(tokenizer, [ASK])
    assert not any(encoded.supervised) and not encoded.ends
    assert encoded.tokens == prompt_tokens(tokenizer, [ASK])


def test_what_follows_the_last_answer_is_not_read(tokenizer):
    assert encode(tokenizer, [ASK, ANSWER, AGAIN]) == encode(tokenizer, [ASK, ANSWER])


def test_a_tokenizer_without_an_end_token_is_refused(tokenizer):
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="names no end token"):
        encode(tokenizer, [ASK, ANSWER])
