"""What tests share: fresh workspaces, a recipe, a tiny real model, one embedded Ray."""

import importlib.metadata
import json
import os
import shutil
import tempfile
import time
from importlib.util import find_spec

import pytest
import yaml

from cluster.settings import Settings
from pipelines.engines.vllm_package import BESIDE

# Tests share few cores, and their models are tiny. The limit, as our code says how many threads it wants; set before
# torch is imported anywhere.
os.environ.setdefault("OMP_THREAD_LIMIT", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Ray reads it when it is imported, which any test may do before the one that starts it.
os.environ.setdefault("RAY_AUTH_MODE", "token")
# Ray lets its workers give way to all else: beside a browser, or a test that computes, they would hardly run at all.
os.environ.setdefault("RAY_worker_niceness", "0")

pytest_plugins = ("tests.ray_head", "tests.postgres")

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"

CHAT_TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>system\n' + tools | tojson + '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% for call in message.get('tool_calls') or [] %}"
    "{{ '<tool_call>' + call['function'] | tojson + '</tool_call>' }}"
    "{% endfor %}"
    "{{ '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def pytest_collection_modifyitems(config, items):
    """What needs neither Ray nor a browser, the drills, what starts Ray, and then the browser.

    Drills are few and long: begun last, one would keep a machine of several cores waiting.

    Where records are to be in PostgreSQL, only what keeps some.
    """
    if os.environ.get("SLUICE_TEST_DATABASE") == "postgresql":
        kept = [item for item in items if "workspace" in item.fixturenames and not item.get_closest_marker("sqlite")]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept

    with_vllm = find_spec("vllm") is not None or (BESIDE / "vllm").is_dir()
    for item in items:
        if item.get_closest_marker("vllm") and not with_vllm:
            item.add_marker(pytest.mark.skip(reason="vLLM is not installed: make vllm"))

    def weight(item):
        places = {"browser": 3, "drill": 1, "cluster": 2}
        return next((place for name, place in places.items() if item.get_closest_marker(name)), 0)

    items.sort(key=weight)


def pytest_configure(config):
    # Where tests are shared out, only the process that gathers their reports has a terminal.
    if "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(_FailuresAtOnce(config))


class _FailuresAtOnce:
    """Says what failed when it fails: a run that is ended from outside never comes to its summary."""

    def __init__(self, config):
        self.config = config

    def pytest_runtest_logreport(self, report):
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(f"{time.strftime('%H:%M:%S')} {report.nodeid}: {report.when}, {report.duration:.0f} s")
            for line in report.longreprtext.splitlines():
                if line.startswith("E  ") or line.startswith("tests/"):
                    terminal.write_line(f"  {line[:300]}")


@pytest.fixture(scope="session")
def models_folder():
    """The folder of base models: converted once on this machine, shared by every workspace of the tests."""
    return Settings.from_environment().models


def _point_environment_at(folder, models, monkeypatch):
    monkeypatch.setenv("SLUICE_STORAGE", str(folder))
    monkeypatch.setenv("SLUICE_MODELS", str(models))
    for name in ("SLUICE_DATABASE", "SLUICE_TRACKING", "SLUICE_SUBMISSION_ID", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database with its tables and nothing in them: all migrations again take longer than most tests."""
    from pipelines.database import open_database

    path = tmp_path_factory.mktemp("database") / "sluice.db"
    # The last connection that is closed leaves all in one file.
    open_database(f"sqlite:///{path}").dispose()
    return path


@pytest.fixture(scope="session")
def empty_tracking(request, tmp_path_factory):
    """MLflow's database with its tables: making them takes seconds, so they outlive the session."""
    path = request.config.cache.mkdir("tracking") / f"mlflow-{importlib.metadata.version('mlflow')}.db"
    if not path.exists():
        from mlflow import MlflowClient

        made = tmp_path_factory.mktemp("tracking") / "mlflow.db"
        MlflowClient(f"sqlite:///{made}").search_experiments()
        # Whole or not at all: another process may be at the same.
        os.replace(shutil.copy(made, path.with_suffix(f".{os.getpid()}")), path)
    return path


@pytest.fixture
def workspace(tmp_path, models_folder, monkeypatch, empty_database, empty_tracking, postgres):
    """A fresh workspace, named by the environment too; its records in SQLite, or in PostgreSQL where that is asked."""
    from pipelines.workspace import Workspace

    folder = tmp_path / "workspace"
    folder.mkdir()
    shutil.copy(empty_database, folder)
    shutil.copy(empty_tracking, folder / "mlflow.db")
    _point_environment_at(folder, models_folder, monkeypatch)
    if postgres is not None:
        postgres.empty()
        monkeypatch.setenv("SLUICE_DATABASE", postgres.url)
    return Workspace()


@pytest.fixture
def recipe_file(tmp_path):
    """`recipe_file(name=..., train={...}, ...) -> Path`: a small valid recipe with these sections over it.

    It learns from `examples.jsonl` beside it, which the test writes if it is to be read.
    """

    def write(path="recipe.yaml", **sections):
        content = {
            "name": "small",
            "dataset": {"source": "examples.jsonl"},
            "models": [{"base": SMOLLM2}],
            # Tests bring few examples: sides of two or three are enough for them.
            "split": {"min_validation": 1, "min_test": 1},
        } | sections
        target = tmp_path / path
        target.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return target

    return write


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Folder of a random two-layer Llama with a trained BPE tokenizer and a ChatML template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny"
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator(_some_english(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        model_max_length=1024,
        chat_template=CHAT_TEMPLATE,
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        # 32 wide: the narrowest that vLLM has a kernel for.
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).to(torch.float32)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory):
    """Folder of a random two-layer T5 with a trained Unigram tokenizer and no chat template."""
    import torch
    from tokenizers import SentencePieceUnigramTokenizer
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny-t5"
    unigram = SentencePieceUnigramTokenizer()
    unigram.train_from_iterator(
        _some_english(),
        vocab_size=500,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;'"),
    )
    pieces = json.loads(unigram.to_str())["model"]["vocab"]
    tokenizer = T5Tokenizer(vocab=[tuple(piece) for piece in pieces], extra_ids=4)
    torch.manual_seed(0)
    config = T5Config(
        # As T5's own: more rows than the tokenizer has tokens.
        vocab_size=len(tokenizer) + 12,
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    T5ForConditionalGeneration(config).to(torch.float32).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


def _some_english():
    """Words to learn pieces from: descriptions in the standard library."""
    import argparse
    import json
    import pathlib
    import statistics

    for module in (argparse, json, pathlib, statistics):
        yield module.__doc__ or ""
        yield from (value.__doc__ or "" for value in vars(module).values() if isinstance(value, type))


@pytest.fixture(scope="session")
def smollm2(models_folder):
    """Folder of SmolLM2-135M-Instruct as safetensors."""
    from pipelines.models.load import find_base
    from pipelines.recipe import BaseModelChoice

    return find_base(BaseModelChoice(base=SMOLLM2), Settings.from_environment()).folder


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory, models_folder, empty_tracking):
    """The embedded Ray of this test session, shut down at its end; the value is its workspace.

    Workers see this session's workspace in their environment: hand other addresses over as arguments.
    """
    from cluster.connect import connect, preload_workers
    from pipelines.workspace import Workspace

    # Unix sockets allow 107 characters: the folder must be short.
    scratch = tempfile.mkdtemp(prefix="sl", dir="/tmp")
    storage = tmp_path_factory.mktemp("cluster")
    shutil.copy(empty_tracking, storage / "mlflow.db")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _point_environment_at(storage, models_folder, monkeypatch)
        if "RAY_TMPDIR" not in os.environ:
            monkeypatch.setenv("RAY_TMPDIR", scratch)
        workspace = Workspace()
        connect(workspace.settings)
        # As training does; here once for all tests.
        preload_workers("pipelines.training.preloaded")
        # Only now: Ray reads its authentication mode when it is imported.
        import ray

        yield workspace
        ray.shutdown()
    shutil.rmtree(scratch, ignore_errors=True)
