"""Suspects: rows that look unlike the others, each with a score, a reason for people, and a threshold."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.data.corpus import Corpus
from pipelines.data.folds import folds_by_cluster
from pipelines.data.mismatch import fit_ranks
from pipelines.data.robust import matched_z, robust_z
from pipelines.data.scored_rows import BOILERPLATE_WORDS, NO_WORDS, Scores, scored_rows
from pipelines.progress import Progress
from pipelines.recipe_data import Anomalies

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

LEAST_ROWS = 100
"""Fewer different texts are no population that a row could be unlike."""
COMMON_LANGUAGE = 0.8
"""Share of the answers that are in one language where others are suspect; below, several are meant to be there."""
LEAST_SHARING = 10
"""Fewer answers that share their words are chance."""
LENGTH_SCALE = 0.1
"""Least scale of logarithms of lengths: answers that are nearly all of one length may differ by two thirds."""
LOSS_SCALE = 0.5
"""Least scale of losses and surprises, in bits."""
NEED_OTHERS = ("length", "gibberish", "language", "boilerplate", "mismatch", "loss")
"""Kinds of suspects that are so by comparison."""


@dataclass(frozen=True)
class Suspects:
    """What was found."""

    table: "pa.Table"
    """row, kind, score (the higher, the worse), reason."""
    figures: dict[str, Any]
    """`rows`, `texts` (different ones), `language` (that of most) and `languages` (their counts), `not_run` (kind ->
    reason), `kinds` (kind -> threshold, count, and the score's quantiles where it is a distance)."""


@dataclass(frozen=True)
class _Kind:
    """The suspects of one kind."""

    name: str
    threshold: Any
    rows: "NDArray[np.int64]"
    scores: "NDArray[Any]"
    """Of these rows."""
    reason: Callable[[int, int], str]
    """From a suspect's place among `rows` and its row."""
    quantiles: dict[str, float]
    """Of the scores of all rows."""


@dataclass(frozen=True)
class _Population:
    """What rows are compared with."""

    corpus: Corpus
    settings: Anomalies
    representatives: "NDArray[np.int64]"
    """A row of each cluster, the first."""


def find_suspects(
    corpus: Corpus,
    cluster: "NDArray[np.int64]",
    settings: Anomalies,
    *,
    instruction: str,
    folds: int,
    seed: int,
    progress: Progress,
) -> Suspects:
    """The suspects of a corpus under these thresholds. Rows of a cluster count once in what is usual."""
    import numpy as np

    among = _Population(corpus, settings, np.unique(cluster, return_index=True)[1].astype(np.int64))
    kinds = list(_alone(among))
    figures: dict[str, Any] = {"rows": len(corpus), "texts": len(among.representatives), "not_run": {}}
    wanted = [kind for kind in NEED_OTHERS if getattr(settings, kind) is not None]
    if len(among.representatives) < LEAST_ROWS:
        few = f"{len(among.representatives):,} different texts are too few to tell what is usual ({LEAST_ROWS})."
        figures["not_run"] = dict.fromkeys(wanted, few)
    else:
        if "length" in wanted:
            kinds.append(_lengths(among))
        if "language" in wanted:
            kinds += _languages(among, figures)
        if set(wanted) - {"length", "language"}:
            fold = folds_by_cluster(cluster, folds, seed)
            scores = scored_rows(
                corpus, fold, among.representatives, wanted, instruction=instruction, seed=seed, progress=progress
            )
            kinds += _by_models(among, scores, wanted)
    figures["kinds"] = {
        kind.name: {"threshold": kind.threshold, "count": len(kind.rows)} | kind.quantiles for kind in kinds
    }
    return Suspects(_table(kinds), figures)


def _alone(among: _Population) -> Iterator[_Kind]:
    """What rows tell by themselves."""
    import numpy as np

    settings, corpus = among.settings, among.corpus
    if settings.repetition is not None:
        share = corpus.array("score_repetition")
        yield _above(
            "repetition", share, settings.repetition, lambda score: f"{score:.0%} of the answer repeats what it says."
        )
    if settings.encoding is not None:
        signs = corpus.array("score_encoding")
        yield _above(
            "encoding",
            signs,
            settings.encoding,
            lambda score: f"{score:.2g} signs of a damaged encoding in a hundred characters.",
        )
    if settings.refusal:
        rows = np.flatnonzero(corpus.column("score_refusal").to_numpy())
        yield _Kind("refusal", True, rows, np.ones(len(rows)), lambda *_: "The answer declines to answer.", {})


def _lengths(among: _Population) -> _Kind:
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

    return _farthest("length", np.maximum(np.abs(by_words), np.abs(by_ratio)), among.settings.length, reason)


def _languages(among: _Population, figures: dict[str, Any]) -> Iterator[_Kind]:
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
    yield _Kind("language", threshold, rows, certainty[rows], reason, {})


def _by_models(among: _Population, scores: Scores, wanted: Sequence[str]) -> Iterator[_Kind]:
    """What is so by models of the other folds."""
    import numpy as np

    settings, population = among.settings, among.representatives
    size = among.corpus.array("answer_words")
    if "gibberish" in wanted:
        z = matched_z(scores.surprise, size, population, LOSS_SCALE)
        yield _farthest(
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
        yield _farthest(
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
        misfit = 1 - fit_ranks(scores.measures)
        rows = np.argsort(-misfit, kind="stable")[: int(settings.mismatch * len(misfit))]
        yield _Kind(
            "mismatch",
            settings.mismatch,
            rows,
            misfit[rows],
            lambda place, row: (
                f"{place or 'None'} of {len(misfit):,} answers fit their prompts worse, by the rank sum."
            ),
            {},
        )


def _boilerplate(among: _Population, scores: Scores, threshold: float) -> _Kind:
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

    return _above("boilerplate", share, threshold, reason)


def _above(name: str, score: "NDArray[Any]", threshold: float, reason: Callable[[float], str]) -> _Kind:
    """Rows with a score above the threshold."""
    import numpy as np

    rows = np.flatnonzero(score > threshold)
    return _Kind(name, threshold, rows, score[rows], lambda place, row: reason(float(score[row])), {})


def _farthest(name: str, z: "NDArray[Any]", threshold: float | None, reason: Callable[[int, int], str]) -> _Kind:
    """Rows at least `threshold` away from what is usual."""
    import numpy as np

    assert threshold is not None
    rows = np.flatnonzero(z >= threshold)
    shown = {f"p{100 * share:g}": round(float(np.quantile(z, share)), 2) for share in (0.5, 0.9, 0.99, 0.999)}
    return _Kind(name, threshold, rows, z[rows], reason, shown)


def _table(kinds: Sequence[_Kind]) -> "pa.Table":
    import numpy as np
    import pyarrow as pa

    schema = pa.schema([("row", pa.int64()), ("kind", pa.string()), ("score", pa.float32()), ("reason", pa.string())])
    parts = [schema.empty_table()]
    for kind in kinds:
        reasons = [kind.reason(place, row) for place, row in enumerate(kind.rows.tolist())]
        names = pa.array([kind.name] * len(reasons), pa.string())
        columns = [kind.rows.astype(np.int64), names, kind.scores.astype(np.float32), pa.array(reasons, pa.string())]
        parts.append(pa.table(columns, schema=schema))
    return pa.concat_tables(parts)


def _words(count: int) -> str:
    return "1 word" if count == 1 else f"{count:,} words"
