"""What stands beside weights: the template that trained, and where answers end."""

import json
import shutil

import pytest

from cluster.errors import UserError
from pipelines.models.candidate import candidates_of
from pipelines.models.companions import checked_tokenizer, generation_defaults, template_hash, write_companions
from pipelines.models.load import load_tokenizer


@pytest.fixture
def base(tiny_model, tmp_path):
    """A copy of the tiny model that a test may change."""
    return shutil.copytree(tiny_model, tmp_path / "base")


def change_one_byte(folder):
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    assert text.count("'\n' }}") == 1
    template.write_text(text.replace("'\n' }}", "' ' }}"), encoding="utf-8")


def test_one_other_byte_of_the_template_is_refused_with_both_hashes(base):
    trained = template_hash(load_tokenizer(base))
    assert checked_tokenizer(base, trained).chat_template
    change_one_byte(base)

    with pytest.raises(UserError, match="is not the one that the model was trained with") as refused:
        checked_tokenizer(base, trained)
    assert trained[:12] in refused.value.message


def test_a_template_that_nobody_recorded_is_not_compared(base):
    assert checked_tokenizer(base, "")


def test_of_several_templates_the_one_that_renders_is_hashed(base):
    tokenizer = load_tokenizer(base)
    alone = template_hash(tokenizer)
    tokenizer.chat_template = {"default": tokenizer.chat_template, "tool_use": "{{ messages }}"}
    assert template_hash(tokenizer) == alone
    tokenizer.chat_template = None
    assert template_hash(tokenizer) == ""


@pytest.mark.parametrize(("arm", "method"), [("base", "lora"), ("tuned", "lora"), ("tuned", "full")])
def test_a_candidate_whose_tokenizer_has_another_template_is_not_loaded(workspace, base, arm, method):
    write_companions(base, load_tokenizer(base), base, {"base_fingerprint": "b"})
    produced = {
        "model": str(base),
        "model_fingerprint": "m",
        "base": str(base),
        "base_fingerprint": "b",
        "base_folder": str(base),
        "method": method,
        "chat_template": template_hash(load_tokenizer(base)),
    }
    candidate = candidates_of(produced, "small", workspace)[arm]
    assert candidate.here(workspace) == candidate
    change_one_byte(base)

    with pytest.raises(UserError, match="chat template"):
        candidate.here(workspace)


def test_generation_ends_where_training_taught_it_and_where_the_base_ends(base):
    defaults = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps(defaults | {"eos_token_id": [0, 7]}))
    tokenizer = load_tokenizer(base)

    assert generation_defaults(base, tokenizer).eos_token_id == [0, 2, 7]


def test_a_base_without_defaults_gets_those_of_its_configuration(base):
    (base / "generation_config.json").unlink()
    found = generation_defaults(base, load_tokenizer(base))
    assert (found.eos_token_id, found.pad_token_id) == ([2], 2)


def test_defaults_that_transformers_would_not_write_are_kept_as_they_are(base, tmp_path):
    defaults = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps(defaults | {"do_sample": False, "temperature": 0.3}))

    write_companions(tmp_path, load_tokenizer(base), base, {"method": "lora"})

    written = json.loads((tmp_path / "generation_config.json").read_text())
    assert (written["temperature"], written["eos_token_id"]) == (0.3, [2])
    assert json.loads((tmp_path / "sluice.json").read_text()) == {
        "method": "lora",
        "chat_template": template_hash(load_tokenizer(base)),
    }
