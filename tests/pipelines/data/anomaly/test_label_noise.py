import random

import numpy as np
import pytest

from pipelines.data.anomaly.label_noise import label_noise
from pipelines.progress import Progress

pytestmark = pytest.mark.slow


def found_in(corpus, cluster=None, folds=5):
    cluster = np.arange(len(corpus)) if cluster is None else cluster
    return label_noise(corpus, cluster, folds=folds, seed=1, progress=Progress(quiet=True))


@pytest.fixture(scope="module")
def labelled(docstrings):
    """(prompts, answers, labels): docstrings of three packages of the standard library that are easily told apart."""
    rows = [
        (prompt, answer, name)
        for prompt, answer, module in zip(*docstrings, strict=True)
        if (name := module.split(".")[0]) in ("asyncio", "email", "_pydecimal")
    ]
    return [list(part) for part in zip(*rows, strict=True)]


def test_planted_wrong_labels_are_found_with_the_given_and_the_proposed_one(labelled, corpus_of_pairs):
    prompts, answers, truth = labelled
    chance, labels = random.Random(1), list(truth)
    wrong = set(chance.sample(range(len(labels)), len(labels) // 12))
    for row in wrong:
        labels[row] = chance.choice(sorted(set(truth) - {truth[row]}))
    found = found_in(corpus_of_pairs(prompts, answers, labels))
    suspects = set(found.table["row"].to_pylist())
    assert len(suspects & wrong) >= 0.7 * len(wrong)
    assert len(suspects & wrong) >= 0.75 * len(suspects)
    assert abs(found.figures["share"] - 1 / 12) < 0.03
    assert found.figures["looked_at"] == len(labels)
    for row in found.table.to_pylist():
        assert row["kind"] == "label"
        assert repr(labels[row["row"]]) in row["reason"]
        assert 0 <= row["score"] <= 1
    proposed = [repr(truth[row["row"]]) in row["reason"] for row in found.table.to_pylist() if row["row"] in wrong]
    assert np.mean(proposed) > 0.9


def test_copies_of_a_wrong_label_do_not_vouch_for_each_other(labelled, corpus_of_pairs):
    prompts, answers, labels = labelled
    copied = labels.index("email")
    prompts, answers, labels = (
        prompts + [prompts[copied]] * 4,
        answers + [answers[copied]] * 4,
        labels + ["asyncio"] * 4,
    )
    cluster = np.append(np.arange(len(labels) - 4), [copied] * 4)
    suspects = found_in(corpus_of_pairs(prompts, answers, labels), cluster).table["row"].to_pylist()
    assert set(range(len(labels) - 4, len(labels))) <= set(suspects)


def test_rows_without_a_label_and_with_a_rare_one_are_left_out_and_counted(labelled, corpus_of_pairs):
    prompts, answers, labels = labelled
    labels = [*labels[:-7], None, None, None, None, "rare", "rare", "rare"]
    found = found_in(corpus_of_pairs(prompts, answers, labels))
    assert found.figures["left_out"] == 3
    assert found.figures["looked_at"] == len(labels) - 7
    assert not set(found.table["row"].to_pylist()) & set(range(len(labels) - 7, len(labels)))
    assert found.figures["labels"]["rare"] == 3


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([None] * 20, "No row has a label"),
        (["one"] * 20, "Only 1 of 1 labels"),
        (["one"] * 17 + ["two"] * 3, "Only 1 of 2 labels"),
        ([f"label {number}" for number in range(1001)], "1,001 different labels are no categories"),
    ],
)
def test_what_cannot_be_looked_for_is_said(labels, reason, corpus_of_pairs):
    found = found_in(corpus_of_pairs(["a prompt"] * len(labels), ["an answer"] * len(labels), labels))
    assert found.figures["share"] is None
    assert reason in found.figures["reason"]
    assert len(found.table) == 0


def test_prompts_that_share_no_word_are_not_looked_at_and_the_reason_is_told(corpus_of_pairs):
    labels = ["odd", "even"] * 15
    found = found_in(corpus_of_pairs([f"{number:03}word" for number in range(30)], labels, labels))
    assert found.figures["share"] is None and "share a word" in found.figures["reason"]
    assert len(found.table) == 0 and found.figures["labels"] == {"odd": 15, "even": 15}


def test_labels_that_stand_in_one_cluster_alone_do_not_crash(corpus_of_pairs):
    prompts = [f"please turn the light {way}" for way in ("on", "off") for _ in range(6)]
    labels = ["on"] * 6 + ["off"] * 6
    found = found_in(corpus_of_pairs(prompts, labels, labels), cluster=np.array([0] * 6 + [6] * 6))
    assert found.figures["looked_at"] == 12
