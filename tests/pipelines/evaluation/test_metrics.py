import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from pipelines.evaluation.metrics import Scorer, corpus_bleu, sentence_bleu

REFERENCES = [
    "Return the path of the file as a string.",
    "Open a connection to the server.",
    "A list of names",
    "Yes",
    "The quick brown fox jumps over the lazy dog and runs away from it.",
]
ANSWERS = [
    "Returns the path of a file as string.",
    "Close the connection to this server now.",
    "",
    "Yes",
    "The quick brown fox jumps over a lazy dog and runs away from it!",
]


@pytest.fixture(scope="module")
def scorer():
    return Scorer()


@pytest.fixture(scope="module")
def scores(scorer):
    return scorer.score(ANSWERS, REFERENCES)


def test_rouge_is_that_of_rouge_score(scores):
    official = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for index, (answer, reference) in enumerate(zip(ANSWERS, REFERENCES, strict=True)):
        for name, value in official.score(reference, answer).items():
            assert scores.rouge[name][index] == pytest.approx(value.fmeasure)


def test_corpus_bleu_from_counts_is_sacrebleus(scores):
    official = sacrebleu.corpus_bleu(ANSWERS, [REFERENCES]).score / 100
    assert float(corpus_bleu(scores.bleu_counts.sum(axis=0))) == pytest.approx(official)
    # On any subset too, also where long n-grams never match.
    for chosen in ([0, 1], [2], [3], [1, 2, 3], [4]):
        official = sacrebleu.corpus_bleu([ANSWERS[i] for i in chosen], [[REFERENCES[i] for i in chosen]]).score / 100
        assert float(corpus_bleu(scores.bleu_counts[chosen].sum(axis=0))) == pytest.approx(official, abs=1e-9)


def test_sentence_bleu_from_counts_is_sacrebleus(scores):
    for value, answer, reference in zip(sentence_bleu(scores.bleu_counts), ANSWERS, REFERENCES, strict=True):
        assert value == pytest.approx(sacrebleu.sentence_bleu(answer, [reference]).score / 100, abs=1e-9)


def test_the_signature_names_tokenizer_smoothing_and_version(scorer, scores):
    for part in ("tok:13a", "smooth:exp", "version:"):
        assert part in scorer.bleu_signature


def test_meteor_knows_stems_and_says_what_it_does_not_know(scorer):
    same, stem, other = scorer.score(["the files", "the file", "a cat"], ["the files"] * 3).meteor
    assert same >= stem > 0.9 > 0.1 > other
    assert "exact" in scorer.meteor_note


def test_scores_lie_between_zero_and_one_and_an_empty_answer_has_none(scores):
    for values in (*scores.rouge.values(), scores.meteor, sentence_bleu(scores.bleu_counts)):
        assert np.all((values >= 0) & (values <= 1))
        assert values[2] == 0


@pytest.mark.parametrize("text", ["これは本です", "Ёлки и ёжик", "déjà vu encore", "这是一本书"])
def test_a_perfect_answer_is_perfect_in_any_script(scorer, text):
    scores = scorer.score([text, "zzz"], [text, text])
    assert scores.rouge["rouge1"].tolist() == [1.0, 0.0]
