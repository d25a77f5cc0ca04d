"""Kinds of suspects that are so by comparison with the other rows."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.data.anomaly.robust import matched_z, robust_z
from pipelines.data.anomaly.scored_rows import BOILERPLATE_WORDS, NO_WORDS, Scores
from pipelines.data.anomaly.suspects import Kind, Population, above, farthest

COMMON_LANGUAGE = 0.8
"""Share of the answers that are in one language where others are suspect; below, several are meant to be there."""
LEAST_SHARING = 10
"""Fewer answers that share their words are chance."""
LENGTH_SCALE = 0.1
"""Least scale of logarithms of lengths: answers that are nearly all of one length may differ by two thirds."""
LOSS_SCALE = 0.5
"""Least scale of losses and surprises, in bits."""


def lengths(among: Population) -> Kind:
    """Answers that are far longer or shorter than the others, or for their prompts."""
    import numpy as np

    answer, prompt = among.corpus.array("answer_words"), among.corpus.array("prompt_words")
    words = np.log1p(answer)
    by_words = robust_z(words, among.representatives, LENGTH_SCALE)
    by_ratio = robust_z(words - np.log1p(prompt), among.representatives, LENGTH_SCALE)
    usual = float(np.median(answer[among.representatives]))

    def reason(place: int, row: int) -> str:
        if abs(by_words[row]) >= abs(by_ratio[row]):
            return f"The answer has {_words(answer[row])}; half of all have {usual:,.0f} or fewer."
        longer = "long" if by_ratio[row] > 0 else "short"
        return f"The answer has {_words(answer[row])}, which is unusually {longer} for a prompt of {prompt[row]:,}."

    return farthest("length", np.maximum(np.abs(by_words), np.abs(by_ratio)), among.settings.length, reason)


def languages(among: Population, figures: dict[str, Any]) -> Iterator[Kind]:
    """Answers that are certainly not in the language of most."""
    import numpy as np

    codes, names = among.corpus.codes("language")
    told = codes[among.representatives]
    counts = np.bincount(told[told >= 0], minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    figures["languages"] = {names[place]: int(counts[place]) for place in order[:20] if names[place] is not None}
    if not counts.sum():
        figures["not_run"]["language"] = "No answer is long enough to tell its language."
        return
    most = int(order[0])
    figures["language"] = names[most]
    if counts[most] < COMMON_LANGUAGE * counts.sum():
        share = counts[most] / counts.sum()
        figures["not_run"]["language"] = f"The commonest language ({names[most]}) is that of {share:.0%} only."
        return
    certainty = np.where(
        (codes >= 0) & (codes != most), among.corpus.column("score_language").fill_null(0).to_numpy(), 0.0
    )

    def reason(place: int, row: int) -> str:
        return f"The answer is in {names[codes[row]]} (certainty {certainty[row]:.0%}), most are in {names[most]}."

    threshold = among.settings.language
    assert threshold is not None
    rows = np.flatnonzero((certainty >= threshold) & (certainty > 0))
    yield Kind("language", threshold, rows, certainty[rows], reason, {})


def by_models(among: Population, scores: Scores, wanted: Sequence[str]) -> Iterator[Kind]:
    """What is so by models of the other folds."""
    import numpy as np

    settings, population = among.settings, among.representatives
    size = among.corpus.array("answer_words")
    if "gibberish" in wanted:
        z = matched_z(scores.surprise, size, population, LOSS_SCALE)
        yield farthest(
            "gibberish",
            z,
            settings.gibberish,
            lambda place, row: (
                f"Its characters follow each other as in no other text: {scores.surprise[row]:.1f} bits "
                f"each, {z[row]:.1f} deviations above answers of like length."
            ),
        )
    if "loss" in wanted:
        loss = matched_z(scores.loss, size, population, LOSS_SCALE)
        yield farthest(
            "loss",
            loss,
            settings.loss,
            lambda place, row: (
                f"A model of the other answers finds it strange: {scores.loss[row]:.1f} bits a word, "
                f"{loss[row]:.1f} deviations above answers of like length."
            ),
        )
    if settings.boilerplate is not None:
        yield _boilerplate(among, scores, settings.boilerplate)
    if settings.mismatch is not None:
        misfit = 1 / (1 + np.exp(scores.fit.astype(np.float64)))
        rows = np.argsort(-misfit, kind="stable")[: int(settings.mismatch * len(misfit))]
        yield Kind(
            "mismatch",
            settings.mismatch,
            rows,
            misfit[rows],
            lambda place, row: (
                "The answer fits its prompt as badly as another row's answer would: "
                f"{f'only {place:,}' if place else 'none'} of {len(misfit):,} fit worse."
            ),
            {},
        )


def _boilerplate(among: Population, scores: Scores, threshold: float) -> Kind:
    """Answers whose first or last words very many share; every cluster counts once."""
    import numpy as np

    population = among.representatives
    shares = []
    for ends in (scores.opening, scores.closing):
        keys, count = np.unique(ends[population], return_counts=True)
        count[(keys == NO_WORDS) | (count < LEAST_SHARING)] = 0
        place = np.minimum(np.searchsorted(keys, ends), len(keys) - 1)
        # An end that no representative has is a copy's with other punctuation: nobody shares it.
        shares.append(np.where(keys[place] == ends, count[place], 0) / len(population))
    share = np.maximum(*shares)

    def reason(score: float) -> str:
        return f"{score:.0%} of all answers open or close with the same {BOILERPLATE_WORDS} words."

    return above("boilerplate", share, threshold, reason)


def _words(count: int) -> str:
    return "1 word" if count == 1 else f"{count:,} words"
