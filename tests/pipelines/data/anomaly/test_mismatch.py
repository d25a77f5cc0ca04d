import random

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from pipelines.data.anomaly.folds import folds_by_cluster
from pipelines.data.anomaly.mismatch import FitModel
from pipelines.data.anomaly.word_ids import words_of

pytestmark = pytest.mark.slow


def swapped(answers, share, seed):
    """Answers of which that share stand at another's place, and for each whether it is one of these."""
    rows = random.Random(seed).sample(range(len(answers)), int(share * len(answers)))
    mixed = list(answers)
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        mixed[row] = answers[other]
    return mixed, np.array([mixed[row] != answers[row] for row in range(len(answers))])


def precision(prompts, answers, wrong):
    fold = folds_by_cluster(np.arange(len(answers)), 5, 1)
    asked, given = words_of(prompts), words_of(answers)
    return average_precision_score(wrong, -FitModel(asked, given, fold, 1).fit(asked, given, fold))


def test_swapped_answers_of_docstrings_are_found_with_an_average_precision_of_sixty_five_percent(docstrings):
    prompts, answers, _ = (part[:1500] for part in docstrings)
    found = [precision(prompts, *swapped(answers, 0.05, seed)) for seed in (1, 2)]
    assert np.mean(found) >= 0.65


def test_answers_that_have_nothing_to_do_with_any_prompt_are_not_told_apart(docstrings):
    prompts, answers, _ = (part[:600] for part in docstrings)
    answers = random.Random(1).sample(answers, len(answers))
    wrong = np.arange(600) < 30
    assert precision(prompts, answers, wrong) < 0.2


def test_an_answer_in_another_fold_is_not_learnt_from(docstrings):
    prompts, answers, _ = (part[:300] for part in docstrings)
    asked, fold = words_of(prompts), folds_by_cluster(np.arange(300), 5, 1)
    own = np.flatnonzero(fold == 2)
    changed = list(answers)
    for row in own:
        changed[row] = answers[own[0]]
    # The space of words is made of all texts; what is learnt in it about prompts and answers is not.
    models = [FitModel(asked, words_of(texts), fold, 1) for texts in (answers, changed)]
    sizes = [sum(len(part[0]) for part in model._folds[2].references) for model in models]
    assert sizes == [300 - len(own)] * 2


@pytest.mark.parametrize("texts", [["", ""], ["a", "b"], ["...", "x y z"]])
def test_texts_with_hardly_a_word_have_measures(texts):
    fold = np.array([0, 1], np.int8)
    words = words_of(texts)
    assert np.isfinite(FitModel(words, words, fold, 1).fit(words, words, fold)).all()
