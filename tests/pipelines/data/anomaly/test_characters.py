import numpy as np

from pipelines.data.anomaly.characters import CharacterModel

CLEAN = [f"Return the {one} of the {other}." for one in ("number", "name", "first line") for other in ("list", "file")]


def test_keyboard_noise_is_surprising_and_other_words_of_the_same_language_are_not():
    model = CharacterModel()
    fold = (np.arange(len(CLEAN)) % 3).astype(np.int8)
    model.add(CLEAN, fold)
    noise, other, empty = model.surprise(
        ["qpw zxk vbnq jkwx", "Return the file of the name.", ""], np.zeros(3, np.int8)
    )
    assert noise > 3 * other
    assert np.isnan(empty)


def test_what_stands_before_a_text_does_not_matter():
    model = CharacterModel()
    model.add(CLEAN, (np.arange(len(CLEAN)) % 3).astype(np.int8))
    alone = model.surprise(["Return it"], np.zeros(1, np.int8))
    after = model.surprise(["zzz", "Return it"], np.array([1, 0], np.int8))
    assert alone[0] == after[1]


def test_digits_are_alike():
    model = CharacterModel()
    model.add(["call 1234"], np.zeros(1, np.int8))
    one, other = model.surprise(["call 1234", "call 9876"], np.ones(2, np.int8))
    assert one == other
