"""A chain of small stages with real reports, for what comes after training without training."""

import sys
from types import ModuleType

import pytest

from pipelines import stages
from pipelines.fingerprint import fingerprint, folder_fingerprint
from pipelines.gates import Gate, Verdict
from pipelines.stage import Outcome, Stage, require


class Chain:
    """Stages that leave real reports about a folder of weights, each requiring the one before."""

    def __init__(self, workspace, monkeypatch):
        self.workspace = workspace
        self.data = "data 1"
        self.weights = "weights 1"
        self.closed = set()
        self.performed = []
        self.failing = {}
        previous = None
        for name in ("audit", "split", "sweep", "train", "evaluate"):
            module = ModuleType(f"chain_{name}")
            module.STAGE = self.stage(name, previous)
            monkeypatch.setitem(sys.modules, module.__name__, module)
            monkeypatch.setitem(stages.STAGES, name, module.__name__)
            # A sweep stands beside the chain unless the recipe has one.
            previous = previous if name == "sweep" else name

    def stage(self, name, previous):
        def reads(recipe, workspace):
            if previous is None:
                return {"data": fingerprint(self.data)}
            before = require(stages.load_stage(previous), recipe, workspace).key
            return {previous: before} | ({"weights": fingerprint(self.weights)} if name == "train" else {})

        def work(recipe, workspace, progress, fresh):
            self.performed.append(name)
            if name in self.failing:
                raise self.failing[name]
            verdict = Verdict.CLOSED if name in self.closed else Verdict.OPEN
            return Outcome(
                gates=(Gate(gate=f"{name}.rule", verdict=verdict, evidence=f"{name} says so."),),
                produced=getattr(self, f"{name}_produced", dict)(),
                figures=getattr(self, f"{name}_figures", dict)(),
            )

        return Stage(name=name, summary=name, gates=(f"{name}.rule",), reads=reads, work=work)

    def audit_figures(self):
        return {
            "origins": [{"source": "tickets", "collector": "ops", "annotator": "jane", "rows": 100}],
            "origin_combinations": 1,
        }

    def split_figures(self):
        return {"rows": {"train": 80, "validation": 10, "test": 10}}

    def split_produced(self):
        return {
            "table": self.workspace.uri("tables", "split"),
            "version": "0",
            "split": fingerprint(self.data, "split"),
        }

    def train_produced(self):
        folder = self.model_folder()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_model.safetensors").write_text(self.weights)
        return {
            "model": str(folder),
            "model_fingerprint": folder_fingerprint(folder),
            "base": "owner/base",
            "base_fingerprint": "b" * 64,
            "base_folder": "/models/owner--base",
            "method": "lora",
            "run_id": "",
        }

    def train_figures(self):
        return {"resolved_train": {"method": "lora", "learning_rate": 1e-3, "dtype": "float32"}, "winner": {}}

    def evaluate_figures(self):
        return {
            "candidates": {
                "base": {"loss": 3.38, "perplexity": 29.4, "rougeL": 0.173},
                "tuned": {"loss": 2.49, "perplexity": 12.1, "rougeL": 0.264},
            },
            "comparisons": {
                "loss": {"difference": -0.89, "low": -1.01, "high": -0.77, "n": 64},
                "rougeL": {"difference": 0.091, "low": 0.051, "high": 0.131, "n": 64},
            },
        }

    def model_folder(self):
        from pathlib import Path

        return Path(self.workspace.uri("models", fingerprint(self.weights)[:12]))

    def perform(self, recipe):
        """Audit to evaluate."""
        return [
            stages.load_stage(name).perform(recipe, self.workspace) for name in ("audit", "split", "train", "evaluate")
        ]


@pytest.fixture
def chain(workspace, monkeypatch):
    """Small stages from audit to evaluate in a fresh workspace."""
    monkeypatch.setenv("SLUICE_BY", "jane")
    return Chain(workspace, monkeypatch)


@pytest.fixture(scope="session")
def make_adapter(tmp_path_factory):
    """`make_adapter(base_folder, **LoraConfig options) -> Path`: a seeded adapter as training leaves one."""
    import torch
    from peft import LoraConfig, get_peft_model

    from pipelines.models.companions import write_companions
    from pipelines.models.load import load_causal_lm, load_tokenizer

    def make(base_folder, scale=0.05, **options):
        folder = tmp_path_factory.mktemp("adapter")
        torch.manual_seed(5)
        config = LoraConfig(**({"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options))
        model = get_peft_model(load_causal_lm(base_folder, "float32"), config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=scale)
        model.peft_config["default"].base_model_name_or_path = str(base_folder)
        model.save_pretrained(folder)
        (folder / "README.md").unlink()
        record = {"method": "lora", "base": str(base_folder), "base_fingerprint": "b" * 64}
        write_companions(folder, load_tokenizer(base_folder), base_folder, record)
        return folder

    return make
