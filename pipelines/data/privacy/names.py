"""Names of people in a text, by Presidio: only where the recipe asks for them, for a model reads every text."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from cluster.errors import UserError
from pipelines.data.privacy.lookalikes import Span

MODEL = "en_core_web_sm"
"""The spaCy model that recognises names; English."""
CERTAIN = 0.6
"""Presidio's score from which a name counts; its own rules for names give .85."""
WINDOW = 20_000
"""Characters that are read at a time: spaCy refuses more than a million, and its memory grows with each."""


def find_names(text: str) -> Iterator[Span]:
    """Names of people, in English. Raises UserError where Presidio or its model is not installed."""
    analyzer = load_names()
    for start in range(0, len(text), WINDOW):
        for found in analyzer.analyze(text[start : start + WINDOW], language="en", entities=["PERSON"]):
            if found.score >= CERTAIN:
                yield start + found.start, start + found.end


@cache
def load_names() -> Any:
    """Presidio's analyzer with the model, once a process. Raises UserError with what to install."""
    try:
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
        from spacy.util import is_package
    except ImportError:
        raise UserError(
            "audit.private.kinds: `name` needs Presidio, which is not installed.",
            f"pip install 'sluice[names]' && python -m spacy download {MODEL}; or leave `name` out.",
        ) from None
    if not is_package(MODEL):  # Presidio would download it by itself, without asking.
        raise UserError(
            f"audit.private.kinds: `name` needs the spaCy model {MODEL}, which is not installed.",
            f"python -m spacy download {MODEL}; or leave `name` out.",
        )
    nlp = NlpEngineProvider(
        nlp_configuration={"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": MODEL}]}
    ).create_engine()
    return AnalyzerEngine(nlp_engine=nlp, supported_languages=["en"])
