import pytest


@pytest.fixture(scope="session")
def save_adapter(tmp_path_factory):
    """`save_adapter(base, seed, **config) -> Path`: a LoRA over the base in that folder, which answers otherwise."""
    import torch
    from peft import LoraConfig, get_peft_model

    from pipelines.models.load import load_model

    def save(base, seed, **config):
        torch.manual_seed(seed)
        chosen = LoraConfig(**({"r": 4, "lora_alpha": 64, "target_modules": "all-linear"} | config))
        model = get_peft_model(load_model(base, "float32"), chosen)
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.3)
        folder = tmp_path_factory.mktemp("adapters") / f"seed-{seed}"
        model.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def tiny_adapters(tiny_model, save_adapter):
    """Two LoRA adapters over the tiny model whose answers differ from the base's and from each other's."""
    return {name: save_adapter(tiny_model, seed) for seed, name in enumerate(("first", "second"))}
