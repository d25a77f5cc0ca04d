"""A base in 4 bits for QLoRA (Dettmers et al. 2023, arXiv 2305.14314): how transformers is asked for it."""

import importlib.util
from typing import Any

from cluster.errors import UserError


def quantising_options(dtype: str) -> dict[str, Any]:
    """What `load_causal_lm` is given so that the weights of linear layers become NF4, on this process's GPU.

    Their constants are quantised too, and products are computed in `dtype`. Raises UserError without bitsandbytes.
    """
    if not installed():
        raise UserError(
            "train.method qlora needs bitsandbytes, which is not installed.", 'Install it: `pip install ".[quantised]"`'
        )
    import torch
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    return {"quantization_config": config, "device_map": {"": device}}


def installed() -> bool:
    """Whether bitsandbytes is here; it is not imported."""
    return importlib.util.find_spec("bitsandbytes") is not None
