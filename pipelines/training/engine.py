"""The model, its optimiser and DeepSpeed around them; what goes out at the end."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cluster.connect import name_operators_folder
from pipelines.models.companions import write_companions
from pipelines.models.kind import is_encoder_decoder
from pipelines.models.load import load_model, quiet_transformers
from pipelines.models.quantised import quantising_options
from pipelines.recipe import Train
from pipelines.training.attention import attend_by_examples
from pipelines.training.compiling import compile_layers
from pipelines.training.losses import SupervisedLoss
from pipelines.training.low_rank import quicken
from pipelines.training.offload import offload_sections
from pipelines.training.preference import PreferenceLoss
from pipelines.training.seq2seq_loss import Seq2SeqLoss


def zero_stage(train: Train) -> int:
    """The ZeRO stage that runs.

    At stage 0 DeepSpeed sums bfloat16 gradients in bfloat16, and the small ones are lost; stage 1 sums them in
    32 bits, and with one worker it is otherwise the same.
    """
    return 1 if train.deepspeed.stage == 0 and train.dtype == "bfloat16" else train.deepspeed.stage


def accumulation(train: Train, world: int) -> int:
    """Forward passes of each worker in a step.

    Of a number of workers that does not divide the batch, the last ones are filled with bins that weigh nothing: a
    run may go on with fewer workers than it began with.
    """
    return -(-train.global_batch_size // (train.sequences_per_pass * world))


def deepspeed_config(train: Train, world: int, disk: Path | None = None) -> dict[str, Any]:
    """DeepSpeed's configuration for the recipe: accumulation follows from the global batch.

    `disk`: this worker's folder, see `offload.open_folder`.
    """
    zero: dict[str, Any] = {"stage": zero_stage(train), "overlap_comm": False, "contiguous_gradients": True}
    width, passes = train.sequences_per_pass, accumulation(train, world)
    return {
        "train_batch_size": passes * width * world,
        "train_micro_batch_size_per_gpu": width,
        "gradient_accumulation_steps": passes,
        "gradient_clipping": train.max_grad_norm,
        "zero_optimization": zero | offload_sections(train.deepspeed, disk),
        "bf16": {"enabled": train.dtype == "bfloat16"},
        # Gradients of many micro-batches are summed: in 16 bits the small ones would be lost.
        "data_types": {"grad_accum_dtype": "fp32"},
        # torch's AdamW, the same at every stage and on every device.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


def prepare_process(device: str, seed: int) -> None:
    """Device, threads, seeds and silence of a training process; before DeepSpeed is imported."""
    for name in ("DeepSpeed", "deepspeed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    if device == "cpu":
        # DeepSpeed would take a GPU that it finds, though the recipe said to leave it alone.
        os.environ["DS_ACCELERATOR"] = "cpu"
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // beside))
    # On a node that others started nobody has said where the operators stand that its set-up built.
    name_operators_folder()
    torch.manual_seed(seed)


def import_deepspeed() -> Any:
    """DeepSpeed, without what it imports for its autotuner, which nothing of ours runs: MLflow, a second's work."""
    if "deepspeed" not in sys.modules and "mlflow" not in sys.modules:
        # To Python a module that is None cannot be imported, and the autotuner does without.
        sys.modules["mlflow"] = None  # type: ignore[assignment]
        try:
            import deepspeed
        finally:
            del sys.modules["mlflow"]
    import deepspeed

    return deepspeed


def build_model(
    train: Train, base_folder: Path, seed: int, load: Callable[..., Any] = load_model
) -> SupervisedLoss | PreferenceLoss | Seq2SeqLoss:
    """The base with adapters over it, or all of it trainable, in training mode.

    `load(folder, dtype, **options)`: where the base comes from.
    """
    quantised, seq2seq = train.method == "qlora", is_encoder_decoder(base_folder)
    model: Any = load(base_folder, train.dtype, **(quantising_options(train.dtype) if quantised else {}))
    model.config.use_cache = False
    if not seq2seq:
        alone = not (train.packing or train.learns_from_pairs) and train.per_device_train_batch_size == 1
        attend_by_examples(model, packed=not alone)
    if train.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if train.trains_adapters:
            # Frozen embeddings give activations without gradients, and recomputing would stop there.
            model.enable_input_require_grads()
    if train.trains_adapters:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(seed)
        targets = train.target_modules if train.target_modules == "all-linear" else list(train.target_modules)
        config = LoraConfig(
            r=train.lora_r,
            lora_alpha=train.lora_alpha,  # type: ignore[arg-type]
            lora_dropout=train.lora_dropout,
            use_rslora=train.use_rslora,
            use_dora=train.use_dora,
            target_modules=targets,
            task_type="SEQ_2_SEQ_LM" if seq2seq else "CAUSAL_LM",
        )
        # DeepSpeed keeps the 32-bit masters: adapters in the model's own dtype need no casts in each layer.
        model = get_peft_model(model, config, autocast_adapter_dtype=False)
        if quantised:
            # PEFT gives adapters the dtype of the weights beneath, but for weights in 4 bits.
            for parameter in (each for each in model.parameters() if each.requires_grad):
                parameter.data = parameter.data.to(getattr(torch, train.dtype))
        if zero_stage(train) < 3:
            # At stage 3 the weights are gathered as PEFT's own layers are called, and gone otherwise.
            quicken(model)
    if train.torch_compile:
        compile_layers(model)
    model.train()
    same_calls = zero_stage(train) == 3
    if seq2seq:
        return Seq2SeqLoss(model)
    if train.objective == "sft":
        return SupervisedLoss(model, same_calls=same_calls)
    return PreferenceLoss(model, train.objective, train.beta, same_calls=same_calls)


def start_engine(module: torch.nn.Module, train: Train, world: int, disk: Path | None = None) -> Any:
    """DeepSpeed's engine around the module and torch's AdamW; the process group exists already.

    `disk`: this worker's folder where the recipe offloads to one.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable,
        lr=train.peak_learning_rate,
        betas=(train.adam_beta1, train.adam_beta2),
        eps=train.adam_epsilon,
        weight_decay=train.weight_decay,
    )
    engine, *_ = import_deepspeed().initialize(
        model=module, optimizer=optimizer, config=deepspeed_config(train, world, disk), dist_init_required=False
    )
    return engine


def export(
    engine: Any, train: Train, base_folder: Path, base: dict[str, str], target: Path, rank: int, tokenizer: Any
) -> None:
    """Write what was trained into `target`: a PEFT adapter, or the whole model; every rank must call it.

    Beside the weights stand the tokenizer that trained, its template and the generation defaults, so that an
    adapter's folder too can be used by itself. `base` names the base and its fingerprint: an adapter is refused
    over any other.
    """
    zero = import_deepspeed().zero
    model = engine.module.model
    state: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        if train.trains_adapters and not parameter.requires_grad:
            continue
        # One at a time: under ZeRO-3 a worker holds a part of each, and all of them may not fit.
        with zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            if rank == 0:
                state[name] = parameter.detach().to("cpu", copy=True)
    if rank != 0:
        return
    target.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        if train.trains_adapters:
            model.peft_config["default"].base_model_name_or_path = base["name"]
            model.save_pretrained(target, state_dict=state, safe_serialization=True, save_embedding_layers=False)
        else:
            model.config.use_cache = True
            kept = set(model.state_dict())
            state |= {name: value.cpu() for name, value in model.named_buffers() if name in kept}
            model.save_pretrained(target, state_dict=state)
    # PEFT's model card is a form that nobody has filled in.
    (target / "README.md").unlink(missing_ok=True)
    record = {"method": train.method, "base": base["name"], "base_fingerprint": base["fingerprint"]}
    write_companions(target, tokenizer, base_folder, record)
