"""TRL's SFTTrainer on prompts and completions; runs in the peers' environment and knows nothing of ours.

`PEERS/bin/python supervised_training.py SETTINGS.json` prints one line of JSON: seconds of the training steps, the
validation loss (nats per supervised token, the completion with its end) and the peak memory.
"""

import json
import os
import resource
import sys
import time

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


def main() -> None:
    """Train, measure, print."""
    with open(sys.argv[1], encoding="utf-8") as stream:
        wanted = json.load(stream)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tokenizer = AutoTokenizer.from_pretrained(wanted["base"])
    model = AutoModelForCausalLM.from_pretrained(wanted["base"], dtype=getattr(torch, wanted["dtype"]))
    torch.manual_seed(wanted["seed"])
    adapter = LoraConfig(
        r=wanted["lora_r"], lora_alpha=wanted["lora_alpha"], target_modules="all-linear", task_type="CAUSAL_LM"
    )
    options = wanted["options"]
    if options.pop("bf16_adapters", False):
        model = get_peft_model(model, adapter, autocast_adapter_dtype=False)
        adapter = None
    arguments = SFTConfig(
        output_dir=wanted["folder"],
        learning_rate=wanted["learning_rate"],
        max_steps=wanted["steps"],
        max_length=wanted["max_length"],
        lr_scheduler_type="constant",
        warmup_steps=0,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        use_cpu=True,
        seed=wanted["seed"],
        bf16=wanted["dtype"] == "bfloat16",
        **options,
    )
    clock = Clock()
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(wanted["train"]),
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[clock],
    )
    trainer.train()
    print(
        json.dumps(
            {
                "seconds": clock.ended - clock.began,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "validation_loss": validation_loss(trainer.model, tokenizer, wanted["validation"]),
            }
        )
    )


class Clock(TrainerCallback):
    """Of the steps after the first, which warms up."""

    began = ended = 0.0

    def on_step_end(self, args: object, state: object, control: object, **_: object) -> None:
        """Note the time."""
        self.ended = time.perf_counter()
        self.began = self.began or self.ended


@torch.no_grad()
def validation_loss(model: torch.nn.Module, tokenizer: object, rows: list[dict[str, list[int]]]) -> float:
    """Mean loss over supervised tokens, one example at a time, of token ids and masks that the caller made."""
    model.eval()
    summed, count = 0.0, 0
    for row in rows:
        tokens, wanted = torch.tensor([row["tokens"]]), torch.tensor(row["supervised"], dtype=torch.bool)[1:]
        logits = model(input_ids=tokens).logits[0, :-1][wanted].float()
        summed += float(torch.nn.functional.cross_entropy(logits, tokens[0, 1:][wanted], reduction="sum"))
        count += int(wanted.sum())
    return summed / count


if __name__ == "__main__":
    main()
