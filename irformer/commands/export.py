"""Export a checkpoint for other tools: python scripts/export.py CHECKPOINT OUT --format safetensors|official."""

from irformer.commands import command_line
from irformer.commands.common import reporting_user_errors
from irformer.core.trust import Trust
from irformer.weights.checkpoints import load_checkpoint
from irformer.weights.exports import export_checkpoint


def export() -> None:
    """Write a checkpoint for other tools: python scripts/export.py CHECKPOINT OUT --format safetensors|official."""
    arguments = command_line.export().parse_args()
    with reporting_user_errors():
        checkpoint = load_checkpoint(arguments.checkpoint, trust=Trust(arguments.trust))
        export_checkpoint(checkpoint, arguments.out, arguments.format, arguments.training_patch_size)
    print(f"wrote {arguments.out}")
