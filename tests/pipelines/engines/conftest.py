import pytest


@pytest.fixture(scope="session")
def tiny_adapters(tiny_model, tmp_path_factory):
    """Two LoRA adapters over the tiny model whose answers differ from the base's and from each other's."""
    import torch
    from peft import LoraConfig, get_peft_model

    from pipelines.models.load import load_causal_lm

    folders = {}
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        model = get_peft_model(
            load_causal_lm(tiny_model, "float32"), LoraConfig(r=4, lora_alpha=64, target_modules="all-linear")
        )
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.3)
        folders[name] = tmp_path_factory.mktemp("adapters") / name
        model.save_pretrained(folders[name])
    return folders
