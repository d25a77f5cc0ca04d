"""Which arithmetic a machine is quick in."""

from typing import Literal

Arithmetic = Literal["bfloat16", "float32"]


def native_arithmetic(device: str) -> Arithmetic:
    """bfloat16 where `device` ("cuda" or "cpu") multiplies in it natively, else float32.

    A CPU without AVX-512 falls back to scalar loops: 1 GFLOP/s against 60 to 115 in float32 on two cores of an
    AVX2 machine, for the same matrices.
    """
    import torch

    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "float32"
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def arithmetic(wanted: str, device: str) -> Arithmetic:
    """`wanted` (a `train.dtype`) as one of the two: `auto` is what is native."""
    if wanted == "auto":
        return native_arithmetic(device)
    assert wanted in ("bfloat16", "float32"), wanted
    return "bfloat16" if wanted == "bfloat16" else "float32"
