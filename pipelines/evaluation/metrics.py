"""Scores of an answer against its reference; all but the loss lie between 0 and 1, higher is better."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ROUGE = ("rouge1", "rouge2", "rougeL")
NGRAMS = 4


@dataclass(frozen=True)
class Scores:
    """One candidate on all examples, in their order."""

    rouge: dict[str, np.ndarray]
    """F-measures: `rouge1`, `rouge2`, `rougeL`."""
    meteor: np.ndarray
    bleu_counts: np.ndarray
    """(examples, 10): hypothesis length, reference length, matching and possible n-grams for n = 1 to 4. Counts add up,
    so the corpus score of any resample is exact."""


class Scorer:
    """ROUGE by rouge-score, BLEU by sacrebleu, METEOR by nltk."""

    def __init__(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer
        from sacrebleu.metrics.bleu import BLEU

        self._rouge = RougeScorer(list(ROUGE), use_stemmer=True, tokenizer=_WordsOfAnyScript())
        self._bleu = BLEU()
        self._wordnet, self.meteor_note = _wordnet()
        self.bleu_signature = ""

    def score(self, answers: Sequence[str], references: Sequence[str]) -> Scores:
        """The scores of `answers`, an example each."""
        from nltk.translate.meteor_score import single_meteor_score

        rouge = [self._rouge.score(reference, answer) for answer, reference in zip(answers, references, strict=True)]
        meteor = [
            single_meteor_score(_words(reference), _words(answer), wordnet=self._wordnet)
            for answer, reference in zip(answers, references, strict=True)
        ]
        return Scores(
            rouge={name: np.array([row[name].fmeasure for row in rouge]) for name in ROUGE},
            meteor=np.array(meteor, dtype=float),
            bleu_counts=self._counts(answers, references),
        )

    def _counts(self, answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
        rows = []
        for answer, reference in zip(answers, references, strict=True):
            found = self._bleu.corpus_score([answer], [[reference]])
            rows.append([found.sys_len, found.ref_len, *found.counts, *found.totals])
        # Only known after a first score, when the number of references is.
        self.bleu_signature = str(self._bleu.get_signature())
        return np.array(rows, dtype=float).reshape(-1, 2 + 2 * NGRAMS)


def corpus_bleu(counts: np.ndarray) -> np.ndarray:
    """BLEU, 0 to 1, of summed counts (..., 10), smoothed exponentially where no n-gram matches.

    Papineni et al. 2002; smoothing method 3 of Chen and Cherry 2014, as sacrebleu has it.
    """
    return _bleu(counts, orders=np.full(counts.shape[:-1], NGRAMS))


def sentence_bleu(counts: np.ndarray) -> np.ndarray:
    """BLEU, 0 to 1, of single sentences: only orders that the answer is long enough for count."""
    return _bleu(counts, orders=np.clip((counts[..., 2 + NGRAMS :] > 0).sum(-1), 1, NGRAMS))


def _bleu(counts: np.ndarray, orders: np.ndarray) -> np.ndarray:
    length, reference = counts[..., 0], counts[..., 1]
    matching, possible = counts[..., 2 : 2 + NGRAMS], counts[..., 2 + NGRAMS :]
    logs = np.zeros(length.shape)
    smoothing = np.ones(length.shape)
    dead = matching.sum(-1) == 0
    for n in range(NGRAMS):
        used = n < orders
        unmatched = used & (matching[..., n] == 0) & (possible[..., n] > 0)
        smoothing = np.where(unmatched, smoothing * 2, smoothing)
        safe = np.maximum(possible[..., n], 1)
        precision = np.where(unmatched, 1 / (smoothing * safe), matching[..., n] / safe)
        # An order without any possible n-gram in the whole corpus makes the product zero.
        dead = dead | (used & (possible[..., n] == 0))
        logs = logs + np.where(used, np.log(np.maximum(precision, 1e-300)), 0.0)
    brevity = np.where(length < reference, np.exp(1 - reference / np.maximum(length, 1)), 1.0)
    return np.asarray(np.where(dead | (length == 0), 0.0, brevity * np.exp(logs / orders)))


class _WordsOfAnyScript:
    """rouge-score's own tokenizer where it sees words; it keeps a to z and digits only, so elsewhere ours."""

    def __init__(self) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        self._latin = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        """Words; single characters of scripts that write none."""
        import re

        if text.isascii():
            return [str(word) for word in self._latin.tokenize(text)]
        words = []
        for word in re.findall(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+", text.lower()):
            words += [str(stem) for stem in self._latin.tokenize(word)] if word.isascii() else [word]
        return words


def _words(text: str) -> list[str]:
    from nltk.tokenize import wordpunct_tokenize

    return [str(word) for word in wordpunct_tokenize(text)]


class _NoWordNet:
    """Stands for WordNet where it is not installed: nothing is a synonym of anything."""

    def synsets(self, word: str) -> list[Any]:
        return []


def _wordnet() -> tuple[Any, str]:
    try:
        from nltk.corpus import wordnet

        wordnet.ensure_loaded()
    except (LookupError, OSError):
        return _NoWordNet(), "exact and stem matches only: WordNet is not installed, so synonyms do not count"
    return wordnet, "exact, stem and synonym matches"
