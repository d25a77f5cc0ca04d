import json

import pytest

from cluster.errors import UserError
from pipelines.models.kind import check_kind, is_encoder_decoder
from pipelines.models.load import load_model, load_tokenizer


def folder_of(tmp_path, **config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_the_configuration_says_the_kind(tiny_model, tiny_t5, tmp_path):
    assert is_encoder_decoder(tiny_t5) and not is_encoder_decoder(tiny_model)
    assert not is_encoder_decoder(tmp_path)
    assert is_encoder_decoder(folder_of(tmp_path, model_type="mt5"))


def test_a_model_is_loaded_as_what_it_is(tiny_model, tiny_t5):
    assert type(load_model(tiny_model, "float32")).__name__ == "LlamaForCausalLM"
    assert type(load_model(tiny_t5, "float32")).__name__ == "T5ForConditionalGeneration"
    assert load_tokenizer(tiny_t5).is_encoder_decoder and not load_tokenizer(tiny_model).is_encoder_decoder


def test_an_encoder_decoder_that_cannot_be_served_is_refused(tmp_path):
    bart = folder_of(tmp_path, model_type="bart", is_encoder_decoder=True, decoder_start_token_id=2)
    with pytest.raises(UserError, match="type bart are not served") as refused:
        check_kind(bart)
    assert "t5" in refused.value.remedy
    with pytest.raises(UserError, match="type bart"):
        load_model(bart)


def test_a_model_that_does_not_say_how_an_answer_begins_is_refused(tmp_path):
    with pytest.raises(UserError, match="decoder_start_token_id"):
        check_kind(folder_of(tmp_path, model_type="t5", is_encoder_decoder=True))
