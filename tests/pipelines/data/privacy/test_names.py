"""Names of people, where Presidio is; without it a sentence that says what to install."""

import importlib.util

import pytest

from cluster.errors import UserError
from pipelines.data.privacy.names import MODEL, find_names
from pipelines.data.privacy.private import find_private, mask_private, require_kinds

HAS_PRESIDIO = importlib.util.find_spec("presidio_analyzer") is not None
HAS_MODEL = HAS_PRESIDIO and importlib.util.find_spec(MODEL) is not None


@pytest.mark.skipif(HAS_MODEL, reason="Presidio and its model are installed")
def test_without_presidio_or_its_model_asking_for_names_says_what_to_install():
    for ask in (
        lambda: require_kinds(("email", "name")),
        lambda: find_private("Ada", ("name",)),
        lambda: list(find_names("Ada")),
    ):
        with pytest.raises(UserError) as raised:
            ask()
        assert "name" in raised.value.message
        assert f"spacy download {MODEL}" in raised.value.remedy


def test_nothing_is_needed_for_the_other_kinds():
    require_kinds(("email", "phone", "card", "iban", "secret"))


@pytest.mark.skipif(not HAS_MODEL, reason="needs presidio-analyzer and its model")
def test_names_are_found_beside_the_other_kinds():
    text = "Angela Merkel wrote to joe@example.org."

    assert mask_private(text, ("name", "email")) == "<name> wrote to <email>."
