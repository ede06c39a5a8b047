"""The numeric precision of a run, selected by name."""

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
