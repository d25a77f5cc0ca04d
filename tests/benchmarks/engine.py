"""Tokens per second of the engine beside plain batched `generate`, on the same prompts and the same cores.

`python -m tests.benchmarks.engine [--requests 16] [--tokens 48]` prints one line each as JSON.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))

PROMPT = "Write one sentence that says what number {} means to a reader of old clocks, and why."


def main() -> None:
    """Measure the best round of each, alternating; on a busy machine the share by CPU time is the fair one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    import torch
    from peft import LoraConfig, get_peft_model

    from cluster.settings import Settings
    from pipelines.engines.protocol import GenerationRequest
    from pipelines.engines.transformers import TransformersEngine
    from pipelines.models.load import find_base, load_causal_lm, load_tokenizer
    from pipelines.recipe import BaseModelChoice

    base = find_base(BaseModelChoice(base="HuggingFaceTB/SmolLM2-135M-Instruct"), Settings.from_environment())
    tokenizer = load_tokenizer(base.folder)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": PROMPT.format(number)}], add_generation_prompt=True, return_dict=False
        )
        for number in range(options.requests)
    ]
    with tempfile.TemporaryDirectory() as folder:
        adapter = Path(folder) / "adapter"
        torch.manual_seed(0)
        get_peft_model(load_causal_lm(base.folder), LoraConfig(r=16, target_modules="all-linear")).save_pretrained(
            adapter
        )
        engine = TransformersEngine(base.folder, {"tuned": adapter}, max_batch_size=options.requests)
        bare = TransformersEngine(base.folder, max_batch_size=options.requests)
    plain: Any = load_causal_lm(base.folder)
    # No end token, on either side: each answer has exactly the tokens that are counted.
    plain.generation_config.eos_token_id = None
    engine._end_tokens = bare._end_tokens = frozenset()

    def by_generate() -> int:
        batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            output = plain.generate(
                **batch, max_new_tokens=options.tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        return int(output.shape[0] * (output.shape[1] - batch["input_ids"].shape[1]))

    def by_engine(one: TransformersEngine, adapters: list[str | None], prompts: list[list[int]] = prompts) -> int:
        requests = [
            GenerationRequest(tuple(prompt), adapters[index % len(adapters)], options.tokens)
            for index, prompt in enumerate(prompts)
        ]
        return sum(answer.completion_tokens for answer in one.generate(requests))

    cases = {
        "plain generate": by_generate,
        "engine, no adapter loaded": lambda: by_engine(bare, [None]),
        "engine, base rows": lambda: by_engine(engine, [None]),
        "engine, tuned rows": lambda: by_engine(engine, ["tuned"]),
        "engine, base and tuned rows": lambda: by_engine(engine, [None, "tuned"]),
        "engine, one request": lambda: by_engine(bare, [None], prompts[:1]),
    }
    best = {name: (0.0, 0.0) for name in cases}
    for case in cases.values():
        case()
    for _ in range(options.rounds):
        for name, case in cases.items():
            started, cpu = time.monotonic(), time.process_time()
            tokens = case()
            rates = tokens / (time.monotonic() - started), tokens / (time.process_time() - cpu)
            best[name] = max(best[name][0], rates[0]), max(best[name][1], rates[1])
    plain_rate, plain_cpu_rate = best["plain generate"]
    for name, (rate, cpu_rate) in best.items():
        figures = {"tokens_per_second": round(rate, 1), "tokens_per_cpu_second": round(cpu_rate, 1)}
        shares = {"of_plain": round(rate / plain_rate, 2), "of_plain_by_cpu": round(cpu_rate / plain_cpu_rate, 2)}
        print(json.dumps({"case": name} | figures | shares))


if __name__ == "__main__":
    main()
