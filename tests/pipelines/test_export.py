"""Export: what a folder must hold, what it must never hold, and what keeps it from being written."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from cluster.errors import GateClosed, UserError
from pipelines.export import export
from pipelines.fingerprint import file_fingerprint, folder_fingerprint
from pipelines.recipe_file import load_recipe

PROMPT = [1, 20, 30, 40, 50, 60]


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file())


@pytest.fixture
def trained(chain, tiny_model, make_adapter, monkeypatch):
    """The chain, with a real adapter over the tiny model for what training left; its folder."""
    from pipelines.models.companions import template_hash
    from pipelines.models.load import load_tokenizer

    folder = Path(chain.workspace.uri("models", "small", "trained"))
    shutil.copytree(make_adapter(tiny_model), folder)

    def produced():
        return {
            "model": str(folder),
            "model_fingerprint": folder_fingerprint(folder),
            "base": str(tiny_model),
            "base_revision": "local",
            "base_fingerprint": "b" * 64,
            "base_folder": str(tiny_model),
            "method": "lora",
            "chat_template": template_hash(load_tokenizer(tiny_model)),
            "generation_config": (folder / "generation_config.json").read_text(),
            "run_id": "",
        }

    monkeypatch.setattr(chain, "train_produced", produced)
    return folder


def test_without_an_evaluation_nothing_is_exported_and_the_evidence_is_named(chain, recipe, tmp_path):
    with pytest.raises(GateClosed, match="there is no audit report"):
        export(recipe, chain.workspace, target=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_closed_evaluation_keeps_the_model_in(chain, trained, recipe, tmp_path):
    chain.closed.add("evaluate")
    chain.perform(recipe)
    with pytest.raises(GateClosed, match=r"evaluate\.rule is closed"):
        export(recipe, chain.workspace, target=tmp_path / "out")


def test_weights_that_are_not_those_that_were_trained_are_not_exported(chain, trained, recipe, tmp_path):
    chain.perform(recipe)
    (trained / "adapter_config.json").write_text("{}")
    with pytest.raises(GateClosed, match="not those that were trained"):
        export(recipe, chain.workspace, target=tmp_path / "out")


def test_a_template_that_changed_since_training_is_not_exported(chain, trained, recipe, tmp_path, tiny_model):
    base = shutil.copytree(tiny_model, tmp_path / "base")
    produced = chain.train_produced() | {"base_folder": str(base)}
    chain.train_produced = lambda: produced
    chain.perform(recipe)
    template = base / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    with pytest.raises(UserError, match="chat template"):
        export(recipe, chain.workspace, "merged", tmp_path / "out")


def test_an_adapters_folder_is_whole_and_works_with_peft_alone(chain, trained, recipe, tmp_path):
    import torch
    from peft import AutoPeftModelForCausalLM
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, GenerationConfig

    chain.perform(recipe)
    done = export(recipe, chain.workspace, target=tmp_path / "out")

    folder = tmp_path / "out"
    assert (done.form, done.made, done.folder) == ("adapter", True, str(folder))
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "generation_config.json",
        "README.md",
        "sluice.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    record = json.loads((folder / "sluice.json").read_text())
    assert record["files"] == {name: file_fingerprint(folder / name) for name in names - {"sluice.json"}}
    assert record["base_fingerprint"] == "b" * 64 and record["model_fingerprint"] == folder_fingerprint(trained)
    model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lora = load_file(trained / "adapter_model.safetensors")
    assert all(
        torch.equal(value, lora[name]) for name, value in load_file(folder / "adapter_model.safetensors").items()
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], return_tensors="pt", return_dict=True)
    defaults = GenerationConfig.from_pretrained(folder)
    assert defaults.eos_token_id == [2]
    assert (
        model.generate(**prompt, generation_config=defaults, max_new_tokens=3).shape[1] > prompt["input_ids"].shape[1]
    )


def test_pickles_go_nowhere(chain, trained, recipe, tmp_path):
    (trained / "optimizer.pt").write_bytes(b"\x80\x04.")
    chain.perform(recipe)
    export(recipe, chain.workspace, target=tmp_path / "out")
    assert not (tmp_path / "out" / "optimizer.pt").exists()


def test_a_merged_folder_answers_by_itself_and_can_be_a_base_again(chain, trained, recipe, tmp_path):
    import torch
    from peft import PeftModel

    from cluster.settings import Settings
    from pipelines.models.load import find_base, load_causal_lm
    from pipelines.models.merging import logits
    from pipelines.recipe import BaseModelChoice

    [*_, train, _] = chain.perform(recipe)
    done = export(recipe, chain.workspace, "merged", tmp_path / "out")

    base = load_causal_lm(train.produced["base_folder"], "float32")
    expected = logits(PeftModel.from_pretrained(base, str(trained)).eval(), PROMPT)
    assert torch.allclose(logits(load_causal_lm(tmp_path / "out", "float32"), PROMPT), expected, atol=1e-4)
    assert "differ from those of base and adapter by" in done.check
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [2]
    assert not list((tmp_path / "out").glob("adapter*"))
    assert find_base(BaseModelChoice(base=str(tmp_path / "out")), Settings.from_environment()).revision == "local"
    assert (tmp_path / "out").stat().st_mode & 0o055 == 0o055 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_same_export_twice_is_written_once(chain, trained, recipe, tmp_path):
    chain.perform(recipe)
    first = export(recipe, chain.workspace, "adapter", tmp_path / "out")
    before = (tmp_path / "out").stat().st_ino
    again = export(recipe, chain.workspace, "adapter", tmp_path / "out")
    assert (first.made, again.made, again.bytes) == (True, False, first.bytes)
    assert (tmp_path / "out").stat().st_ino == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_what_stands_in_a_folder_is_left_as_it_is(chain, trained, recipe, tmp_path):
    chain.perform(recipe)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        export(recipe, chain.workspace, target=tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["mine.txt"]

    export(recipe, chain.workspace, "adapter", tmp_path / "out")
    with pytest.raises(UserError, match="holds something else"):
        export(recipe, chain.workspace, "merged", tmp_path / "out")
    (tmp_path / "out" / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"its tokenizer\.json is missing or changed"):
        export(recipe, chain.workspace, "adapter", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="holds something else"):
        export(recipe, chain.workspace, target=tmp_path / "file")


def test_what_breaks_on_the_way_leaves_nothing(chain, trained, recipe, tmp_path, monkeypatch):
    from pipelines.models import merging

    chain.perform(recipe)
    monkeypatch.setattr(merging, "merge_in_float32", lambda layer: layer.set_adapter([]))
    with pytest.raises(UserError, match="does not answer"):
        export(recipe, chain.workspace, "merged", tmp_path / "out" / "deeper")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_whole_model_has_no_adapter_and_goes_out_as_it_is(chain, trained, recipe, tmp_path, tiny_model):
    whole = shutil.copytree(tiny_model, tmp_path / "whole")
    produced = chain.train_produced() | {
        "model": str(whole),
        "model_fingerprint": folder_fingerprint(whole),
        "method": "full",
    }
    chain.train_produced = lambda: produced
    chain.perform(recipe)
    with pytest.raises(UserError, match="there is no adapter"):
        export(recipe, chain.workspace, "adapter", tmp_path / "out")
    assert export(recipe, chain.workspace, target=tmp_path / "out").form == "merged"
    assert file_fingerprint(tmp_path / "out" / "model.safetensors") == file_fingerprint(whole / "model.safetensors")


def test_gguf_without_the_converter_says_how_to_get_it_before_anything_is_merged(
    chain, trained, recipe, tmp_path, monkeypatch
):
    from pipelines.models import llama_cpp

    chain.perform(recipe)
    monkeypatch.setattr(llama_cpp, "BESIDE", tmp_path / "nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLUICE_LLAMA_CPP", raising=False)
    with pytest.raises(UserError, match=r"there is no convert_hf_to_gguf\.py on PATH") as refused:
        export(recipe, chain.workspace, "gguf", tmp_path / "out")
    assert "SLUICE_LLAMA_CPP" in refused.value.remedy
    assert not (tmp_path / "out").exists()


def test_the_card_tells_the_models_whole_story(chain, trained, recipe, tmp_path):
    chain.perform(recipe)
    export(recipe, chain.workspace, target=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["library_name"] == "peft" and head["tags"] == ["sluice", "lora", "adapter"]
    for told in ("train.rule", "train says so.", "0.264", "None: no gate was passed", "learning_rate: 0.001"):
        assert told in card


@pytest.mark.cluster
def test_a_real_base_in_bfloat16_is_merged_and_converted(
    chain, recipe, tmp_path, smollm2, make_adapter, trained, monkeypatch
):
    """SmolLM2-135M: the sum in 32 bits loses nothing that 16 bits can hold, and its GGUF file answers alike."""
    from pipelines.models.llama_cpp import find_converter

    try:
        find_converter()
    except UserError as error:
        pytest.skip(f"{error.message} {error.remedy}")
    adapter = make_adapter(smollm2, r=8, scale=0.02)
    produced = chain.train_produced() | {
        "model": str(adapter),
        "model_fingerprint": folder_fingerprint(adapter),
        "base": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "base_folder": str(smollm2),
        "chat_template": json.loads((adapter / "sluice.json").read_text())["chat_template"],
    }
    chain.train_produced = lambda: produced
    chain.perform(recipe)

    done = export(recipe, chain.workspace, "gguf", tmp_path / "out")

    print(done.check)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"small-q8_0.gguf", "README.md", "sluice.json"}
    assert "kept in bfloat16" in done.check and "As q8_0 in the GGUF file, read back" in done.check
    head = yaml.safe_load((tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert head["license"] == "apache-2.0" and head["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
