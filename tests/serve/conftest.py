import contextlib
import json
import shutil

import httpx
import pytest

from pipelines.engines.protocol import EngineOptions
from pipelines.models.candidate import Candidate
from serve.gateway import build_gateway
from serve.hosting import EngineReplica
from serve.service import ChatService, Hosted


@pytest.fixture(scope="session")
def tiny_adapter(tiny_model, tmp_path_factory):
    """A LoRA over the tiny model that changes its answers."""
    import torch
    from peft import LoraConfig, get_peft_model

    from pipelines.fingerprint import folder_fingerprint
    from pipelines.models.files import RECORD
    from pipelines.models.load import load_causal_lm

    torch.manual_seed(3)
    model = get_peft_model(
        load_causal_lm(tiny_model, "float32"), LoraConfig(r=4, lora_alpha=64, target_modules="all-linear")
    )
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("adapters") / "tiny"
    model.save_pretrained(folder)
    # As training leaves it: an adapter names the base that it belongs to.
    (folder / RECORD).write_text(json.dumps({"base_fingerprint": folder_fingerprint(tiny_model)}))
    return folder


@pytest.fixture(scope="session")
def other_adapter(tiny_adapter, tmp_path_factory):
    """Another over the same model, which answers otherwise."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("adapters") / "other"
    shutil.copytree(tiny_adapter, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: -weight for name, weight in weights.items() if "lora_B" in name}
        | {name: weight for name, weight in weights.items() if "lora_B" not in name},
        folder / "adapter_model.safetensors",
    )
    return folder


@pytest.fixture(scope="session")
def engine(tiny_model, tiny_adapter):
    """The engine deployment's own class, in this process."""
    arms = {
        "base": Candidate("base", str(tiny_model), None, "", "small-base"),
        "tuned": Candidate("tuned", str(tiny_model), str(tiny_adapter), "", "small-tuned"),
    }
    replica = EngineReplica(arms, EngineOptions("transformers", "float32", 2, 2))
    yield replica
    for one in set(replica._engines.values()):
        one.close()


@pytest.fixture
def service_of(engine, workspace):
    """`service_of(**changes)`: a service in the fresh workspace over the real engine, or one that the test brings."""
    made = []

    def make(engine=engine, **changes):
        hosted = {
            "recipe_name": "small",
            "seed": "small:17",
            "models": {"base": "small-base", "tuned": "small-tuned"},
            "weights": {"base": 1.0, "tuned": 1.0},
            "max_new_tokens": 900,
            "log_prompts": True,
            "created": 1,
        } | changes
        made.append(ChatService(Hosted(**hosted), engine, workspace))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def http():
    """`async with http(service) as client`: an HTTP client of the gateway."""

    @contextlib.asynccontextmanager
    async def open_client(service):
        transport = httpx.ASGITransport(build_gateway(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://sluice") as client:
            yield client

    return open_client


@pytest.fixture
def rows(workspace):
    """`rows(Table)`: what is stored."""

    def read(table):
        from sqlalchemy import select

        with workspace.session() as session:
            return list(session.scalars(select(table)))

    return read
