"""The arithmetic of a run, by one word."""

import torch

from irformer.core.words import nearest
from irformer.errors import UserError

_FULL = "32-true"
_WORDS = {
    "32-true": _FULL,
    "fp32": _FULL,
    "tf32": _FULL,
    "16-mixed": "16-mixed",
    "fp16": "16-mixed",
    "bf16-mixed": "bf16-mixed",
    "bf16": "bf16-mixed",
}


def set_precision(word: str, accelerator: str) -> str:
    """Choose the arithmetic of this process.

    Args:
        word: `fp32` (or 32-true): float32 throughout. `tf32`: float32, but GPUs round the factors of matrix products and convolutions to
            TensorFloat-32 (10 bits of mantissa). `fp16` (16-mixed): float16 autocast with a loss scaler. `bf16` (bf16-mixed): bfloat16
            autocast. `auto`: bf16 on GPUs that have it, fp32 everywhere else.
        accelerator: of the Lightning trainer.

    Returns:
        Lightning's name of it.

    Raises:
        UserError: the word is unknown, or the device cannot do it.
    """
    word = str(word)
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    if word == "auto":
        word = "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if word not in _WORDS:
        known = ["auto", *_WORDS]
        raise UserError(f"trainer.precision={word}: unknown precision; known: {', '.join(known)}{nearest(word, known)}")
    if _WORDS[word] == "16-mixed" and not on_gpu:
        # Lightning would take bf16 in its place without a word.
        raise UserError(f"trainer.precision={word}: fp16 needs a GPU, there is none; bf16 or fp32 work on this device")
    # Both switches, whatever the word: PyTorch's own default lets convolutions round to TF32, and an earlier run of this process may
    # have asked for something else.
    torch.set_float32_matmul_precision("high" if word == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = word == "tf32"
    return _WORDS[word]
