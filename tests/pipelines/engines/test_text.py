import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engines.text import TextStream


def decode_bytes(tokens):
    """A tokenizer whose tokens are bytes."""
    return bytes(tokens).decode("utf-8", errors="replace")


def all_pieces(text, stop=()):
    stream = TextStream(decode_bytes, stop)
    pieces = []
    for token in text.encode():
        pieces.append(stream.push(token))
        if stream.stopped:
            return pieces, True
    return [*pieces, stream.flush()], stream.stopped


@given(st.text())
def test_the_pieces_are_the_text(text):
    pieces, stopped = all_pieces(text)
    assert "".join(pieces) == text and not stopped


def test_half_a_character_is_never_shown():
    pieces, _ = all_pieces("aé😀b")
    assert [piece for piece in pieces if piece] == ["a", "é", "😀", "b"]


@given(st.text(alphabet="abc", max_size=30), st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1))
def test_nothing_of_a_stop_string_gets_out(text, stop):
    pieces, stopped = all_pieces(text, tuple(stop))
    shown = "".join(pieces)
    assert text.startswith(shown)
    assert not any(s in shown for s in stop)
    assert stopped == any(s in text for s in stop)
    if not stopped:
        assert shown == text


def test_what_might_become_a_stop_string_is_held_back_and_released():
    stream = TextStream(decode_bytes, ("END",))
    assert [stream.push(ord(c)) for c in "xEN"] == ["x", "", ""]
    assert stream.push(ord("T")) == "ENT"


def test_bytes_that_never_become_a_character_do_not_stall_the_stream():
    stream = TextStream(decode_bytes)
    pieces = [stream.push(0xFF) for _ in range(12)]
    assert "".join(pieces)


def test_a_word_keeps_its_space_when_the_tokenizer_drops_the_first_one():
    words = {1: "Hello", 2: "world"}
    stream = TextStream(lambda tokens: " ".join(words[token] for token in tokens))
    assert stream.push(1) + stream.push(2) == "Hello world"


@pytest.mark.parametrize("stop", [("",), ()])
def test_an_empty_stop_string_stops_nothing(stop):
    pieces, stopped = all_pieces("abc", stop)
    assert "".join(pieces) == "abc" and not stopped


def test_a_blank_by_itself_is_kept_where_the_tokenizer_drops_it_at_the_start():
    """As SentencePiece: a blank is a piece, alone or before a word, and the first of a text goes."""
    pieces = ["2", ",", "▁", "provided", "▁", "▁", "provided", "▁there"]
    stream = TextStream(lambda tokens: "".join(pieces[token] for token in tokens).replace("▁", " ").lstrip(" "))
    shown = "".join(stream.push(token) for token in range(len(pieces))) + stream.flush()
    assert shown == "2, provided  provided there"


def test_a_text_that_goes_on_keeps_the_blank_before_its_first_word():
    pieces = ["▁Once", "▁upon", "▁a", "▁time"]

    def decode(tokens):
        return "".join(pieces[token] for token in tokens).replace("▁", " ").removeprefix(" ")

    alone, going_on = TextStream(decode), TextStream(decode, context=(0, 1))
    assert alone.push(2) + alone.push(3) == "a time"
    assert going_on.push(2) + going_on.push(3) + going_on.flush() == " a time"
