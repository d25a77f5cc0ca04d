import pytest


@pytest.fixture(scope="session")
def tiny_lora(tiny_model):
    """The tiny model with a LoRA that changes its answers."""
    import torch
    from peft import LoraConfig, get_peft_model

    from pipelines.models.load import load_causal_lm

    torch.manual_seed(3)
    model = get_peft_model(
        load_causal_lm(tiny_model, "float32"), LoraConfig(r=4, lora_alpha=64, target_modules="all-linear")
    )
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="session")
def tiny_adapter(tiny_lora, tmp_path_factory):
    """Folder of that adapter."""
    folder = tmp_path_factory.mktemp("adapters") / "tiny"
    tiny_lora.save_pretrained(folder)
    return folder
