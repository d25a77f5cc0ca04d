"""An encoder-decoder behind the gateway: the one that a decoder-only model has."""

import pytest
import yaml

from pipelines.recipe_file import load_recipe
from tests.serve.test_app import HELLO, free_port, promote


@pytest.fixture(scope="module")
def adapter(tiny_t5, tmp_path_factory):
    """A LoRA over the tiny T5 that changes its answers, as training leaves it."""
    import json

    import torch
    from peft import LoraConfig, get_peft_model

    from pipelines.fingerprint import folder_fingerprint
    from pipelines.models.files import RECORD
    from pipelines.models.load import load_model

    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="SEQ_2_SEQ_LM")
    model = get_peft_model(load_model(tiny_t5, "float32"), config)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("adapters") / "tiny-t5"
    model.save_pretrained(folder)
    (folder / RECORD).write_text(json.dumps({"base_fingerprint": folder_fingerprint(tiny_t5)}))
    return folder


def generated(tiny_t5, adapter, messages, count):
    """What transformers itself answers, with an adapter or without one."""
    import torch
    from peft import PeftModel

    from pipelines.data.chat import prompt_tokens
    from pipelines.models.load import load_model, load_tokenizer

    tokenizer = load_tokenizer(tiny_t5)
    model = load_model(tiny_t5, "float32")
    if adapter:
        model = PeftModel.from_pretrained(model, adapter).eval()
    prompt = torch.tensor([prompt_tokens(tokenizer, messages)])
    tokens = model.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, do_sample=False
    )[0]
    return tokenizer.decode(tokens, skip_special_tokens=True)


@pytest.mark.cluster
def test_base_and_tuned_answer_whole_and_in_pieces_through_the_gateway(ray_cluster, tmp_path, tiny_t5, adapter):
    from serve.app import start
    from serve.client import Client
    from serve.listening import Address

    path = tmp_path / "recipe.yaml"
    content = {"name": "seq2seq", "dataset": {"source": "none.jsonl"}, "models": [{"base": str(tiny_t5)}]}
    path.write_text(yaml.safe_dump(content | {"train": {"dtype": "float32"}}))
    recipe = load_recipe(path)
    promote(ray_cluster, recipe, tiny_t5, adapter)
    server = start(recipe, ray_cluster, Address(port=free_port()))
    try:
        with Client(server.url) as client:
            conversation = [*HELLO, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "A list?"}]
            for messages in (HELLO, conversation):
                whole = client.chat(messages, model="tuned", max_tokens=12)
                assert whole.text == generated(tiny_t5, adapter, messages, 12)
                with client.stream(messages, model="tuned", max_tokens=12) as stream:
                    pieces = list(stream)
                assert "".join(pieces) == whole.text and len(pieces) > 3
                assert stream.usage == whole.usage
            base = client.chat(HELLO, model="base", max_tokens=12)
            assert base.arm == "base" and base.text == generated(tiny_t5, None, HELLO, 12)
            assert base.text != client.chat(HELLO, model="tuned", max_tokens=12).text
    finally:
        server.stop()
