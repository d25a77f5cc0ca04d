"""A row's own columns: keys, lengths, roles, tokens, marks."""

import hashlib
import json

import pyarrow as pa
import pytest

from pipelines.data.example import BadRow, make_example
from pipelines.data.profile import ProfileSettings, answer_hash, profile
from pipelines.data.reading.read import table_of
from pipelines.data.similarity.duplicates import normalise
from pipelines.recipe_data import Provenance

PLAIN = ProfileSettings(0.7, "", ("email",), None)


def turn(role, content):
    return {"role": role, "content": content}


def row(*turns, instruction="", rejected=None):
    return make_example(list(turns), {"rejected": rejected}, Provenance(), instruction, ("f", 1))


def profiled(*rows, wanted=PLAIN):
    return profile(table_of(list(rows)), wanted).to_pylist()


def digest(text):
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def test_keys_are_of_the_normalised_text_and_of_the_answers_as_they_are():
    found = profiled(row(turn("system", "Be kind."), turn("user", "HOW many?"), turn("assistant", "Two, I think")))[0]
    assert found["text_key"] == digest(normalise("how many two i think"))
    assert found["answer_key"] == digest("Two, I think")
    assert found["answer_hashes"] == [answer_hash("Two, I think")]


def test_lengths_turns_and_roles_are_counted_without_the_recipes_instruction():
    conversation = (
        turn("user", "one two three"),
        turn("assistant", "a b"),
        turn("user", "go on"),
        turn("assistant", "c"),
    )
    told = row(*conversation, instruction="Say it in a sentence of five words.")
    settings = ProfileSettings(0.7, "Say it in a sentence of five words.", ("email",), None)
    found, plain = profiled(told, wanted=settings)[0], profiled(row(*conversation))[0]
    assert (found["prompt_words"], found["answer_words"], found["turns"]) == (3, 3, 4)
    assert found["roles"] == "user,assistant,user,assistant"
    assert {name: found[name] for name in found if name != "messages"} == {
        name: plain[name] for name in plain if name != "messages"
    }


def test_a_bad_row_has_no_columns_and_changes_none_of_the_others():
    good = row(turn("user", "a b"), turn("assistant", "c"))
    bad = BadRow("f", 2, "type", "no text", "5")
    alone, beside = profiled(good)[0], profiled(bad, good)
    assert beside[0] == alone
    assert beside[1]["bad_kind"] == "type" and beside[1]["text_key"] is None and beside[1]["turns"] is None


def test_good_and_bad_rows_of_joined_tables_may_alternate():
    rows = [row(turn("user", f"number {n}"), turn("assistant", "c")) for n in range(3)]
    tables = [table_of([rows[0], BadRow("f", 2, "type", "no text", "5")]), table_of(rows[1:])]
    found = profile(pa.concat_tables(tables), PLAIN).to_pylist()
    assert found[:3] == profiled(*rows) and [each["id"] is None for each in found] == [False, False, False, True]


def test_tables_of_bad_rows_alone_have_the_same_columns():
    good = profile(table_of([row(turn("user", "a"), turn("assistant", "b"))]), PLAIN)
    assert profile(table_of([BadRow("f", 2, "type", "no text", "5")]), PLAIN).schema == good.schema
    assert profile(table_of([]), PLAIN).schema == good.schema


def test_private_data_are_looked_for_in_every_turn_and_in_the_rejected_answer():
    mail = "write to jane.doe@example.org"
    found = profiled(
        row(turn("user", mail), turn("assistant", "b")),
        row(turn("user", "a"), turn("assistant", "b"), rejected=mail),
        row(turn("user", "a"), turn("assistant", "b")),
    )
    assert [each["private"] is not None for each in found] == [True, True, False]
    assert "jane.doe" not in json.dumps([each["private"] for each in found])


@pytest.mark.parametrize("text", ["end <|im_end|> here", "[INST] do it [/INST]", "<start_of_turn>user"])
def test_chat_marks_inside_a_text_are_flagged_without_a_tokenizer_too(text):
    found = profiled(
        row(turn("user", text), turn("assistant", "b")), row(turn("user", "a < b | c"), turn("assistant", "b"))
    )
    assert [each["special"] for each in found] == [True, False]


def test_tokens_are_those_of_training_special_ones_in_the_text_taken_as_plain(tiny_model):
    from pipelines.data.chat import encode
    from pipelines.models.load import load_tokenizer

    conversations = [
        [turn("user", "what is it"), turn("assistant", "a plain answer")],
        [turn("system", "be kind"), turn("user", "say <|im_end|> twice <|im_end|>"), turn("assistant", "no")],
    ]
    found = profiled(
        *(row(*turns) for turns in conversations), wanted=ProfileSettings(0.7, "", ("email",), str(tiny_model))
    )
    tokenizer = load_tokenizer(tiny_model)
    assert [each["tokens"] for each in found] == [len(encode(tokenizer, turns).tokens) for turns in conversations]
    assert [each["special"] for each in found] == [False, True]


def test_columns_are_of_the_types_that_a_corpus_promises():
    schema = profile(table_of([row(turn("user", "a"), turn("assistant", "b"))]), PLAIN).schema
    assert schema.field("text_key").type == pa.binary(16) == schema.field("answer_key").type
    assert schema.field("prompt_words").type == pa.int32() == schema.field("tokens").type
    assert (schema.field("turns").type, schema.field("special").type) == (pa.int16(), pa.bool_())


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{% for message in messages %}{{ message['content'] | trim }}|{% endfor %}",
        "{% for turn in messages %}{{ turn['role'] }}:{{ turn['content'].split('</think>')[-1] }};{% endfor %}",
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for message in messages %}[{{ message['content'] }}]{% endfor %}",
    ],
)
def test_what_is_counted_is_what_the_template_writes_whatever_it_does_to_contents(tiny_model, template):
    from pipelines.data.profile import _rendered
    from pipelines.models.load import load_tokenizer

    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = template or tokenizer.chat_template
    contents = ["  spaces ", "<think>why</think>because", "plain\n", "{{ braces }} \ue0000\ue001"]
    conversations = [
        [{"role": "user", "content": one}, {"role": "assistant", "content": other}]
        for one in contents
        for other in contents
    ]
    conversations.append([{"role": "system", "content": "be brief"}, *conversations[0]])

    def plainly(turns):
        try:
            return tokenizer.apply_chat_template(turns, tokenize=False)
        except Exception as error:
            assert "no system" in str(error)
            return None

    assert _rendered(tokenizer, conversations) == [plainly(turns) for turns in conversations]
