"""What can be known to fail before any worker starts."""

from pathlib import Path

import torch

from cluster.errors import UserError
from pipelines.models.files import read_json
from pipelines.models.kind import MOST_SEQ2SEQ_TOKENS, auto_class, check_kind, is_encoder_decoder
from pipelines.models.load import BaseFiles, quiet_transformers
from pipelines.recipe import Cluster, Train
from pipelines.section import nearest


def check_recipe(train: Train, cluster: Cluster, base: BaseFiles) -> None:
    """Raise UserError when the base is not served, lacks a LoRA target or positions, or the batch does not divide."""
    per_step = train.sequences_per_pass * cluster.num_workers
    if train.global_batch_size % per_step:
        raise UserError(
            f"train.global_batch_size {train.global_batch_size} is not divisible by per_device_train_batch_size x "
            f"cluster.num_workers = {per_step}.",
            "Choose sizes that divide; a sweep's values count too.",
        )
    check_kind(base.folder)
    if cluster.engine == "vllm" and (train.use_dora or is_encoder_decoder(base.folder)):
        what = "adapters of train.use_dora" if train.use_dora else f"encoder-decoders, and {base.name} is one"
        raise UserError(f"cluster.engine vllm serves no {what}.", "Set cluster.engine: transformers.")
    limit = read_json(base.folder / "config.json").get("max_position_embeddings")
    if is_encoder_decoder(base.folder) and train.max_length > MOST_SEQ2SEQ_TOKENS:
        raise UserError(
            f"train.max_length {train.max_length} is beyond the {MOST_SEQ2SEQ_TOKENS} tokens of source and target that "
            "an encoder-decoder is trained and served with: its position biases take memory for each pair of tokens.",
            "Lower it.",
        )
    if is_encoder_decoder(base.folder) and train.learns_from_pairs:
        raise UserError(
            f"train.objective {train.objective} is not there for encoder-decoders, and {base.name} is one.",
            "Set train.objective: sft, or choose a decoder-only base.",
        )
    if isinstance(limit, int) and train.max_length > limit:
        raise UserError(
            f"train.max_length {train.max_length} is beyond the {limit} positions of {base.name}.", "Lower it."
        )
    if train.trains_adapters and train.target_modules != "all-linear":
        _check_targets(train.target_modules, base)


def check_device(train: Train, use_gpu: bool) -> None:
    """Raise UserError when the method does not run where the workers will."""
    if train.method == "qlora" and not use_gpu:
        raise UserError(
            "train.method qlora trains over weights in 4 bits, which needs GPUs, and these workers have none.",
            "Set cluster.use_gpu: true where nodes with GPUs can start, or train with method lora.",
        )


def _check_targets(targets: tuple[str, ...], base: BaseFiles) -> None:
    paths = module_paths(base.folder)
    known = sorted({path.rpartition(".")[2] for path in paths})
    missing = [name for name in targets if not any(path == name or path.endswith(f".{name}") for path in paths)]
    if missing:
        raise UserError(
            f"train.target_modules: {base.name} has no {', '.join(missing)}{nearest(missing[0], known)}",
            f"Its modules: {', '.join(known)}; or `all-linear`.",
        )


def module_paths(base_folder: Path) -> list[str]:
    """Paths of the modules that can carry adapters, from the model's configuration alone: no weights are read."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base_folder, trust_remote_code=False)
    with torch.device("meta"), quiet_transformers():
        model = auto_class(base_folder).from_config(config, trust_remote_code=False)
    # Linear layers alone: the engine that serves adapters applies them there.
    return sorted(path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear))
