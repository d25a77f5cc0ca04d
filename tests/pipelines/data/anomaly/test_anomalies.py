# ruff: noqa: RUF001

import random

import numpy as np
import pytest

from pipelines.data.anomaly.anomalies import LEAST_ROWS, find_suspects
from pipelines.progress import Progress
from pipelines.recipe_data import Anomalies

pytestmark = pytest.mark.slow

OFF = dict.fromkeys(Anomalies.model_fields.keys() - {"refusal", "max_share"}) | {"refusal": False}
FOREIGN = [
    "Die Funktion liefert die Anzahl der Elemente in der Liste zurück.",
    "Cette méthode ouvre le fichier et lit toutes les lignes en mémoire.",
    "La función devuelve el número de elementos que contiene la lista.",
    "Questo metodo apre il file e legge tutte le righe in memoria.",
    "Функция возвращает количество элементов, которые содержатся в списке.",
]


def suspects(corpus, settings=None, cluster=None, **keys):
    cluster = np.arange(len(corpus)) if cluster is None else cluster
    keys = {"instruction": "", "folds": 5, "seed": 1, "progress": Progress(quiet=True)} | keys
    return find_suspects(corpus, cluster, settings or Anomalies(), **keys)


def rows_of(found, kind):
    return {row["row"] for row in found.table.to_pylist() if row["kind"] == kind}


def noise(answer, chance):
    return " ".join("".join(chance.choices("asdfghjkl;qweruiop", k=6)) for _ in answer.split())


def damaged(answer, chance):
    return f"{answer} It’s the {chance.choice(['naïve', 'größte', 'señor’s'])} one.".encode().decode(
        "cp1252", "replace"
    )


PLANTED = {
    "gibberish": (noise, 0.95),
    "repetition": (lambda answer, chance: " ".join([answer] * 10), 0.95),
    "language": (lambda answer, chance: chance.choice(FOREIGN), 0.8),
    "encoding": (damaged, 1.0),
    "refusal": (lambda answer, chance: "I'm sorry, but I can't help with that request.", 1.0),
    "length": (lambda answer, chance: " ".join(chance.sample(WORDS, 600)), 0.95),
    "boilerplate": (lambda answer, chance: f"Great question, let me happily explain it to you: {answer}", 1.0),
}
WORDS = [f"{first}{second}ing" for first in "abcdefghijklmnopqrstuvwxyz" for second in ("ear", "oad", "ump", "ist") * 6]


@pytest.fixture(scope="module")
def planted(docstrings):
    """(prompts, answers, kind -> rows): 20 rows of each defect among 1,500, 120 with boilerplate."""
    prompts, answers, _ = (part[:1500] for part in docstrings)
    chance, answers = random.Random(3), list(answers)
    free = list(range(1500))
    chance.shuffle(free)
    where = {}
    for kind, (defect, _) in PLANTED.items():
        where[kind] = [free.pop() for _ in range(120 if kind == "boilerplate" else 20)]
        for row in where[kind]:
            answers[row] = defect(answers[row], chance)
    return prompts, answers, where


def test_planted_defects_are_found_and_few_others(planted, corpus_of_pairs):
    prompts, answers, where = planted
    found = suspects(corpus_of_pairs(prompts, answers))
    for kind, (_, recall) in PLANTED.items():
        assert len(rows_of(found, kind) & set(where[kind])) >= recall * len(where[kind]), kind
    defective = {row for rows in where.values() for row in rows}
    false = set(found.table["row"].to_pylist()) - defective - rows_of(found, "mismatch")
    assert len(false) <= 0.01 * len(answers)
    assert found.figures["language"] == "en"
    assert all(row["reason"] and row["score"] > 0 for row in found.table.to_pylist())
    assert found.figures["kinds"]["refusal"]["count"] == len(rows_of(found, "refusal"))


def test_the_same_corpus_gives_the_same_suspects(docstrings, corpus_of_pairs):
    corpus = corpus_of_pairs(*(part[:300] for part in docstrings[:2]))
    assert suspects(corpus).table == suspects(corpus).table


def test_each_kind_is_switched_off_by_itself(planted, corpus_of_pairs):
    prompts, answers, _ = planted
    corpus = corpus_of_pairs(prompts[:300], answers[:300])
    assert len(suspects(corpus, Anomalies(**OFF)).table) == 0
    for kind in ("length", "repetition", "language", "encoding", "boilerplate"):
        only = Anomalies(**OFF | {kind: Anomalies().model_dump()[kind]})
        assert set(suspects(corpus, only).figures["kinds"]) == {kind}


def test_thresholds_are_obeyed(planted, corpus_of_pairs):
    prompts, answers = (part[:300] for part in planted[:2])
    corpus = corpus_of_pairs(prompts, answers)
    strict = suspects(corpus, Anomalies(**OFF | {"gibberish": 20.0, "mismatch": 0.02}))
    loose = suspects(corpus, Anomalies(**OFF | {"gibberish": 2.0, "mismatch": 0.1}))
    assert rows_of(strict, "gibberish") < rows_of(loose, "gibberish")
    assert (len(rows_of(strict, "mismatch")), len(rows_of(loose, "mismatch"))) == (6, 30)
    assert min(row["score"] for row in loose.table.to_pylist() if row["kind"] == "gibberish") >= 2


def test_too_few_rows_are_judged_by_themselves_alone_and_the_figures_say_so(corpus_of_pairs):
    answers = [f"It is number {number} of them all." for number in range(LEAST_ROWS - 2)]
    corpus = corpus_of_pairs(["Which?"] * LEAST_ROWS, [*answers, "I cannot help with that.", "A caf\ufffd."])
    found = suspects(corpus, cluster=np.minimum(np.arange(LEAST_ROWS), LEAST_ROWS - 2))
    assert [(row["row"], row["kind"]) for row in found.table.to_pylist()] == [(99, "encoding"), (98, "refusal")]
    assert set(found.figures["not_run"]) == {"length", "gibberish", "language", "boilerplate", "mismatch", "loss"}
    assert "too few" in found.figures["not_run"]["loss"]


def test_an_opening_of_one_cluster_is_no_boilerplate(docstrings, corpus_of_pairs):
    prompts, answers, _ = (part[:400] for part in docstrings)
    answers = [*answers[:300], *[f"Great question, let me happily explain it to you: {answers[300]}"] * 100]
    cluster = np.minimum(np.arange(400), 300)
    corpus, only = corpus_of_pairs(prompts, answers), Anomalies(**OFF | {"boilerplate": 0.05})
    assert not rows_of(suspects(corpus, only, cluster), "boilerplate")
    assert len(rows_of(suspects(corpus, only), "boilerplate")) == 100


def test_where_several_languages_are_common_none_is_suspect(docstrings, corpus_of_pairs):
    prompts, answers, _ = (part[:200] for part in docstrings)
    corpus = corpus_of_pairs(prompts, [*answers[:140], *FOREIGN * 12])
    found = suspects(corpus, Anomalies(**OFF | {"language": 0.5}))
    assert not rows_of(found, "language")
    assert "en" in found.figures["not_run"]["language"]


def test_the_recipe_s_instruction_is_not_looked_at(docstrings, corpus_of_pairs):
    prompts, answers, _ = (part[:300] for part in docstrings)
    plain = suspects(corpus_of_pairs(prompts, answers))
    told = suspects(corpus_of_pairs([f"Be brief.\n\n{prompt}" for prompt in prompts], answers), instruction="Be brief.")
    assert rows_of(plain, "mismatch") == rows_of(told, "mismatch")


def test_no_rows_have_no_suspects(corpus_of_pairs):
    assert len(suspects(corpus_of_pairs([], [])).table) == 0
