"""What a row tells by itself: its answer's language, repetition, a refusal, damaged characters.

These columns are computed while the rows stream by; what needs to know the other rows is in `anomalies`.
"""

import re
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from pipelines.data.anomaly.languages import NO_LANGUAGE, tell_languages
from pipelines.data.anomaly.refusals import declines

if TYPE_CHECKING:
    import pyarrow as pa

LOOKED_AT = 300
"""Characters of an answer that its language is told from."""
LEAST_LETTERS = 20
"""Of fewer letters among them no language is told."""
LEAST_WORDS = 20
"""Of fewer words no repetition is told: a short list may well repeat itself."""
WORDS_IN_A_ROW = 4
"""So many words in a row are repeated when they come again."""
CHARACTERS_IN_A_ROW = 12
"""The same for scripts that put no spaces between words."""

# U+FFFD stands where a decoder gave up; C1 control characters are in no text but in one that was decoded wrongly.
_SURELY_DAMAGED = re.compile("[\x80-\x9f\ufffd]")


def row_scores(prompts: Sequence[str], answers: Sequence[str]) -> "dict[str, pa.Array]":
    """Columns for rows with these prompts and (joined) answers.

    `language`: ISO 639 code of the answer's language, null where it has too few letters or is none;
    `score_language`: its certainty, 0 to 1, null with it; `score_repetition`: share of the answer's characters in
    lines and word sequences that have come before in it; `score_refusal`: whether it declines;
    `score_encoding`: signs of damage in a hundred characters, of prompt or answer, the greater.
    """
    import pyarrow as pa

    languages, certainty = _languages(answers)
    return {
        "language": pa.array(languages, pa.string()),
        "score_language": pa.array(certainty, pa.float32()),
        "score_repetition": pa.array([repetition(answer) for answer in answers], pa.float32()),
        "score_refusal": declines(answers),
        "score_encoding": pa.array(
            [max(damage(prompt), damage(answer)) for prompt, answer in zip(prompts, answers, strict=True)],
            pa.float32(),
        ),
    }


def repetition(text: str) -> float:
    """Share of `text`'s characters in lines, or in sequences of words, that stand earlier in it already; 0 to 1."""
    words = text.split()
    # Chinese or Japanese: few spaces, long "words".
    by_character = len(text) > 10 * CHARACTERS_IN_A_ROW and len(words) * 15 < len(text)
    tokens: Sequence[str] = "".join(words) if by_character else words
    if len(tokens) < LEAST_WORDS:
        return 0.0
    length = CHARACTERS_IN_A_ROW if by_character else WORDS_IN_A_ROW
    repeated = _repeated_sequences(tokens, length)
    if "\n" in text:
        lines = [line for line in map(str.strip, text.split("\n")) if line]
        if len(set(lines)) < len(lines):
            repeated = max(repeated, _share_of_later(lines))
    return repeated


def damage(text: str) -> float:
    """Signs in a hundred characters that `text` was decoded wrongly: UTF-8 read as Latin-1, lost characters."""
    if text.isascii():
        return 0.0
    from ftfy.badness import badness

    # ftfy counts some of the sure characters, in some contexts.
    return 100 * max(badness(text), len(_SURELY_DAMAGED.findall(text))) / len(text)


def _repeated_sequences(tokens: Sequence[str], length: int) -> float:
    """Share of the tokens' characters in sequences of `length` that stand earlier already."""
    windows: list[Hashable] = list(zip(*(tokens[start:] for start in range(length)), strict=False))
    if len(set(windows)) == len(windows):
        return 0.0
    seen: set[Hashable] = set()
    covered = bytearray(len(tokens))
    for place, window in enumerate(windows):
        if window in seen:
            covered[place : place + length] = b"\x01" * length
        seen.add(window)
    sizes = list(map(len, tokens))
    return sum(size for size, repeats in zip(sizes, covered, strict=True) if repeats) / sum(sizes)


def _share_of_later(lines: Sequence[str]) -> float:
    seen: set[str] = set()
    later = 0
    for line in lines:
        if line in seen:
            later += len(line)
        seen.add(line)
    return later / sum(map(len, lines))


def _languages(answers: Sequence[str]) -> tuple[list[str | None], list[float | None]]:
    """For each answer its language and how certain that is; None for those too short, or of none."""
    beginnings = [answer[:LOOKED_AT] for answer in answers]
    told = [row for row, text in enumerate(beginnings) if _has_letters(text)]
    found, certain = tell_languages([beginnings[row] for row in told])
    languages: list[str | None] = [None] * len(answers)
    certainty: list[float | None] = [None] * len(answers)
    for row, language, value in zip(told, found, certain.tolist(), strict=True):
        if language != NO_LANGUAGE:
            languages[row], certainty[row] = language, value
    return languages, certainty


def _has_letters(text: str) -> bool:
    return len(text) >= LEAST_LETTERS and sum(map(str.isalpha, text)) >= LEAST_LETTERS
