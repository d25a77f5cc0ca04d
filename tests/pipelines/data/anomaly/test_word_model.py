import numpy as np

from pipelines.data.anomaly.folds import folds_by_cluster
from pipelines.data.anomaly.word_ids import words_of
from pipelines.data.anomaly.word_model import WordModel

KINDS = ["Return the number of {} in the list.", "Open the file of {} and read every line.", "Remove all {} at once."]
THINGS = ["apples", "numbers", "readers", "threads", "writers", "names", "keys", "rows"]
ANSWERS = [kind.format(thing) for kind in KINDS for thing in THINGS]


def losses(prompts, answers, clusters=None):
    fold = folds_by_cluster(np.arange(len(answers)) if clusters is None else np.array(clusters), 5, 1)
    model = WordModel()
    words = words_of(answers)
    model.add(words, fold)
    return model.loss(words_of(prompts), words, fold)


def test_words_that_no_other_answer_has_cost_more():
    answers = [*ANSWERS, "Zebras quietly juggle velvet thunder near marmalade."]
    loss = losses([""] * len(answers), answers)
    assert loss.argmax() == len(ANSWERS)
    assert loss[-1] > 3 * np.median(loss)


def test_known_words_in_an_order_that_no_other_answer_has_cost_more():
    answers = [*ANSWERS, "List numbers the in of return the."]
    loss = losses([""] * len(answers), answers)
    assert loss[-1] > 2 * loss[1]


def test_words_of_the_prompt_cost_less():
    answers = [*ANSWERS, "Return the number of zebras in the list."]
    without = losses([""] * len(answers), answers)
    asked = losses([*[""] * len(ANSWERS), "How many zebras are there?"], answers)
    assert asked[-1] < without[-1]
    assert np.allclose(asked[:-1], without[:-1])


def test_an_answer_does_not_make_its_own_copies_cheap():
    strange = "Zebras quietly juggle velvet thunder near marmalade."
    once = losses([""] * 25, [*ANSWERS, strange])
    copied = losses([""] * 34, [*ANSWERS, *[strange] * 10], [*range(24), *[24] * 10])
    assert copied[24:].min() > 0.9 * once[-1]


def test_an_answer_without_words_has_no_loss():
    assert np.isnan(losses(["a", "b"], ["...", "yes it is"])).tolist() == [True, False]
