"""The numeric precision of a run, selected by name, and settings of cuDNN."""

import platform

import torch

from irformer.core.words import nearest
from irformer.errors import UserError

_FULL = "32-true"
_PRECISIONS = {
    "32-true": _FULL,
    "fp32": _FULL,
    "tf32": _FULL,
    "16-mixed": "16-mixed",
    "fp16": "16-mixed",
    "bf16-mixed": "bf16-mixed",
    "bf16": "bf16-mixed",
}


def set_precision(word: str, accelerator: str) -> str:
    """Set the precision of this process.

    Args:
        word: `fp32` (or 32-true): float32 throughout. `tf32`: float32, but GPUs round the inputs of matrix products and convolutions to
            TensorFloat-32 (10-bit mantissa). `fp16` (16-mixed): float16 autocast with a loss scaler. `bf16` (bf16-mixed): bfloat16
            autocast. `auto`: bf16 on GPUs that support it, otherwise fp32.
        accelerator: accelerator of the Lightning trainer.

    Returns:
        Lightning's name of the precision.

    Raises:
        UserError: the precision is unknown, or the device does not support it.
    """
    word = str(word)
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    if word == "auto":
        word = "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if word not in _PRECISIONS:
        known = ["auto", *_PRECISIONS]
        raise UserError(f"trainer.precision={word}: unknown precision; known: {', '.join(known)}{nearest(word, known)}")
    if _PRECISIONS[word] == "16-mixed" and not on_gpu:
        # Lightning would silently use bf16 instead.
        raise UserError(f"trainer.precision={word}: fp16 needs a GPU, and none was found; use bf16 or fp32 on this device")
    # Always set both flags: PyTorch's default allows TF32 in convolutions, and an earlier run in this process may have changed them.
    torch.set_float32_matmul_precision("high" if word == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = word == "tf32"
    return _PRECISIONS[word]


def precision_note(precision: str, device: torch.device) -> dict[str, str]:
    """Return a line, by name, if this device computes in a precision only by emulating it; otherwise nothing.

    Args:
        precision: Lightning's name of the precision.
        device: device that trains.
    """
    if precision != "bf16-mixed" or device.type != "cpu" or _cpu_has_bf16():
        return {}
    return {"bf16": "this CPU has no instructions for bfloat16 and emulates it: fp32 is faster"}


def _cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bfloat16 numbers itself. PyTorch can tell for x86 only; others get the benefit of the doubt."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def benchmark_note(benchmark: bool | None, device: torch.device) -> dict[str, str]:
    """Return a line, by name, if `trainer.benchmark` has no effect on a device; otherwise nothing."""
    if benchmark is None or device.type == "cuda":
        return {}
    return {"benchmark": f"trainer.benchmark={str(benchmark).lower()} has no effect on {device.type}: cuDNN is for NVIDIA GPUs"}
