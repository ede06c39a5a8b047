"""Write a checkpoint for other tools: python scripts/export.py CHECKPOINT OUT --format safetensors|official."""

import argparse
from pathlib import Path

from irformer.commands.common import telling_mistakes
from irformer.core.trust import Trust, add_trust_option
from irformer.weights.checkpoints import load_checkpoint
from irformer.weights.exports import export_checkpoint


def export() -> None:
    """Write a checkpoint for other tools: python scripts/export.py CHECKPOINT OUT --format safetensors|official."""
    parser = argparse.ArgumentParser(description="Write the network of a checkpoint into one file.")
    parser.add_argument("checkpoint", type=Path, help="a run's folder or a file of weights")
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument(
        "--format",
        choices=("safetensors", "official"),
        default="safetensors",
        help="safetensors: ours, with the configuration inside; official: as the official code, .pth or .safetensors by the name of OUT",
    )
    parser.add_argument(
        "--training-patch-size",
        type=int,
        metavar="PIXELS",
        help="official SwinIR and DRCT: size of the attention masks in the file, as SwinIR's test script takes it: 48 or 64 for classical "
        "super-resolution; without it 64, for denoising 128, for JPEG artifacts 126",
    )
    add_trust_option(parser)
    arguments = parser.parse_args()
    with telling_mistakes():
        checkpoint = load_checkpoint(arguments.checkpoint, trust=Trust(arguments.trust))
        export_checkpoint(checkpoint, arguments.out, arguments.format, arguments.training_patch_size)
    print(f"wrote {arguments.out}")
