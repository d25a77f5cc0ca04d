"""Personal data: found in sentences, masked without a rest, and never given away by a sample."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.privacy.private import (
    RULED,
    Found,
    find_private,
    mask_private,
    masked_sample,
    masked_samples,
    private_column,
)
from tests.pipelines.data.planted_private import KINDS, plant

CLEAN = (
    "Return the number of items that the queue holds, or None when it is closed.",
    "Changed in version 3.11.4: on 2024-01-02 at 10:15:30 the default became 1048576 bytes.",
    "See RFC 5321 (section 4.5.3.1.1), ISBN 978-3-16-148410-0, ISBN 0-306-40615-2 and ISSN 0962-4929.",
    "Hosts 192.168.100.200 and 10.0.0.1:8080 answered; ::1 did not. Ticket 20240131123000, build 1699999999999.",
    "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709, id 550e8400-e29b-41d4-a716-446655440000, arXiv:0705.2626",
    "The matrix is 12 34 56 78 90 12 34 56 and the rate 0.4111111111111111 of 1,234,567,890,123.",
    "Clone git@github.com:owner/repo.git, load icon@2x.png, then A @ B and a.T@b.dot(c), pinned as numpy@2.1.0.",
    "The password is wrong when the token has expired; the key to it: patience. Secret: none.",
    "password = getpass.getpass(); token=os.environ['TOKEN']; api_key: str = settings.API_KEY; key=lambda row: row[0]",
    "Set OPENAI_API_KEY=your-api-key-goes-here-123 or password=<password> in postgresql://user:password@host/db.",
    "sk-learn-contrib-estimators and the flag --sk-this-is-a-very-long-option are no keys; ask-me-anything-2024.",
    "Dates 01/02/2024, 01.02.24 and 02-03-2024; 1-2-3; 100-200-3000; (555) 123-4567 belongs to films.",
)
WIDE = "joe@example.org".translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)})
ARABIC = "4111 1111 1111 1111".translate({0x30 + digit: 0x660 + digit for digit in range(10)})


@pytest.mark.parametrize("kind", KINDS)
def test_at_least_ninety_five_of_a_hundred_planted_pieces_are_found_with_their_kind_and_place(kind):
    rng = Random(11)
    planted = [plant(rng.choice(CLEAN), kind, rng) for _ in range(400)]

    found = [any(_covers(each, truth) for each in find_private(text)) for text, truth in planted]

    assert sum(found) >= 0.95 * len(planted)


def _covers(found, truth):
    return found.kind == truth.kind and found.start <= truth.start and truth.end <= found.end


@pytest.mark.parametrize("text", CLEAN)
def test_dates_versions_hashes_code_and_placeholders_are_nobodys(text):
    assert find_private(text) == []


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to Joe.Doe+news@mail.example.org.", "Write to <email>."),
        (WIDE + " is wide", "<email> is wide"),
        ("jo\u200be@exam\u00adple.org has invisible signs", "<email> has invisible signs"),
        ("请联系joe@example.org谢谢", "请联系<email>谢谢"),
        (f"card {ARABIC} in Arabic digits", "card <card> in Arabic digits"),
        (
            "card 4111\u20111111\u20111111\u20111111 with hyphens that do not break",
            "card <card> with hyphens that do not break",
        ),
        ("+1 (415) 555\u20112671 or 030 12345678", "<phone> or <phone>"),
        ("+1 415 555 2671 2024", "<phone> 2024"),
        ("Konto DE89 3704 0044 0532 0130 00.", "Konto <iban>."),
        ("postgres://scott:t1ger@db.example.org/x", "postgres://scott:<secret>@db.example.org/x"),
    ],
)
def test_a_piece_is_replaced_by_its_kind_and_nothing_else_changes(text, masked):
    assert mask_private(text) == masked


def test_only_the_kinds_asked_for_are_looked_for():
    text = "joe@example.org, 4111 1111 1111 1111"

    assert [found.kind for found in find_private(text, ("card",))] == ["card"]
    assert mask_private(text, ("email",)) == "<email>, 4111 1111 1111 1111"
    assert find_private(text, ()) == []


def test_pieces_that_overlap_are_one_of_the_longest_ones_kind():
    text = "password=joe2x@mail.org/Kx9"

    assert find_private(text, ("email",)) == [Found("email", 9, 23)]
    assert find_private(text, ("email", "secret")) == [Found("secret", 9, 27)]


_RNG = Random(3)
_VALUES = [text[t.start : t.end] for kind in KINDS for text, t in (plant("", kind, _RNG) for _ in range(12))]
_PIECES = st.sampled_from(
    [*_VALUES, *(value[: len(value) // 2] for value in _VALUES), "password=", "@", "://u:", " ", "<"]
)
TEXTS = st.lists(_PIECES | st.text(max_size=5), max_size=10).map("".join)


@given(TEXTS)
def test_masking_leaves_nothing_to_find_and_masking_again_changes_nothing(text):
    masked = mask_private(text)

    assert find_private(masked) == []
    assert mask_private(masked) == masked


@given(TEXTS)
def test_places_are_in_the_text_in_order_and_apart(text):
    last = 0
    for found in find_private(text):
        assert last <= found.start < found.end <= len(text)
        assert found.kind in RULED
        last = found.end


@given(TEXTS, st.sampled_from(KINDS))
def test_what_stands_between_the_pieces_stays_as_it_is(text, kind):
    founds, kept, last = find_private(text, (kind,)), [], 0
    for found in founds:
        kept.append(text[last : found.start])
        last = found.end
    once = f"<{kind}>".join([*kept, text[last:]])

    assert mask_private(text, (kind,)) == mask_private(once, (kind,))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_never_gives_five_characters_of_a_piece_away(kind):
    rng = Random(4)
    for _ in range(100):
        # Pieces beside each other, so that each stands in the other's surroundings or at their border.
        planted = [plant("...", each, rng) for each in (kind, rng.choice(KINDS), kind)]
        text = " ".join(text for text, _ in planted)
        samples = masked_samples(text, find_private(text))
        for part, truth in planted:
            value = part[truth.start : truth.end]
            assert not any(value[i : i + 5] in sample for i in range(len(value) - 4) for sample in samples)


@given(TEXTS)
def test_a_sample_is_one_line_that_is_not_longer_than_its_surroundings(text):
    for found in find_private(text):
        sample = masked_sample(text, found)
        assert sample.isprintable()
        assert f"<{found.kind} " in sample
        assert "***" in sample


def test_a_sample_shows_thirty_characters_on_each_side_and_the_shape():
    text = "a" * 40 + " write to maria@example.org\nsoon " + "z" * 40

    (sample,) = masked_samples(text, find_private(text))

    assert sample == "…" + "a" * 20 + " write to <email m***> soon " + "z" * 24 + "…"


def test_a_sample_of_one_kind_hides_the_other_kinds_too():
    text = "joe@example.org paid with 4111 1111 1111 1111"
    (email,) = find_private(text, ("email",))

    assert masked_sample(text, email) == "<email j***> paid with <card>"


def test_a_column_holds_the_pieces_of_all_of_a_rows_texts_and_null_where_there_are_none():
    column = private_column([["hello", "world"], ["joe@example.org", "call +1 415 555 2671"], []])

    assert column.to_pylist()[0] is None
    assert column.to_pylist()[2] is None
    assert json.loads(column.to_pylist()[1]) == [
        {"kind": "email", "masked": "<email j***>"},
        {"kind": "phone", "masked": "call <phone ***1>"},
    ]


HOSTILE = (
    "a@",
    "@a.a.",
    "1 ",
    "12 34 ",
    "+1 415 555 2671 ",
    "4111111111111111",
    "DE89 3704 ",
    "eyJabcdefghi.eyJ",
    "x@y.zz",
)
HOSTILE += (
    "-----BEGIN PRIVATE KEY-----\nabcd",
    "password=",
    "://a:",
    "\u200b@",
    "((((1",
    "A1b2C3d4E5f6 ",
    "call 1234567 ",
)


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.timeout(60)
def test_the_time_grows_no_faster_than_a_hostile_text(piece):
    text = piece * (200_000 // len(piece))

    # Quadratic work on as many characters would take hours.
    assert len(private_column([[text]])) == 1
