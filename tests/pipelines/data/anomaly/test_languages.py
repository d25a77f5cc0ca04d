import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipelines.data.anomaly.languages import tell_languages

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG.",
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "Le renard brun saute par-dessus le chien paresseux.",
    "El zorro marrón salta sobre el perro perezoso.",
    "素早い茶色の狐がのろまな犬を飛び越える。",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "Dobar dan, kako ste danas, gospodine profesore?",
    "x",
    "",
    "12345 67890",
    "e\u0301te\u0301",
    "def main(argv): return [x for x in argv if x]",
]


def test_language_and_certainty_are_the_library_s_own():
    library = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    languages, certainty = tell_languages(TEXTS)
    for text, language, certain in zip(TEXTS, languages, certainty, strict=True):
        expected, value = library.classify(text)
        assert certain == pytest.approx(value, abs=1e-4)
        # Where every language is as likely, which one comes first says nothing.
        assert language == expected or certain < 0.02


def test_no_texts_have_no_languages():
    assert tell_languages([])[0] == []
