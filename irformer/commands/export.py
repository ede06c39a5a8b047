"""Export a checkpoint for other tools: python scripts/export.py CHECKPOINT OUT [--format safetensors|official|hub|onnx|pt2]."""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from irformer.commands import command_line
from irformer.commands.common import reporting_user_errors, require_not_checkpoint
from irformer.config.saved import CONFIG, read_saved_config
from irformer.core.trust import Trust
from irformer.errors import UserError
from irformer.evaluation.results import read_results
from irformer.graphs.checkpoint_graphs import export_onnx, export_program
from irformer.graphs.graph_files import OPSET
from irformer.reporting.model_card import Training, model_card, write_model_folder
from irformer.schema.roles import described
from irformer.training.provenance import PROVENANCE
from irformer.weights.bundled import WEIGHTS
from irformer.weights.checkpoints import Checkpoint, load_checkpoint
from irformer.weights.exports import export_checkpoint

# The formats to which an option applies.
_APPLIES = {
    "results": ("hub",),
    "license": ("hub", "onnx", "pt2"),
    "license_file": ("hub",),
    "fp16": ("onnx", "pt2"),
    "opset": ("onnx",),
    "training_patch_size": ("official",),
}


def export() -> None:
    """Write a checkpoint for other tools: python scripts/export.py CHECKPOINT OUT [--format safetensors|official|hub|onnx|pt2]."""
    arguments = command_line.export().parse_args()
    with reporting_user_errors():
        out: Path = arguments.out
        format: Any = arguments.format or (out.suffix[1:] if out.suffix in (".onnx", ".pt2") else "safetensors")
        for option, formats in _APPLIES.items():
            if getattr(arguments, option) and format not in formats:
                only = ", ".join(formats)
                raise UserError(f"--{option.replace('_', '-')}: --format {format} does not use it, only {only}; omit it")
        checkpoint = load_checkpoint(arguments.checkpoint, trust=Trust(arguments.trust))
        require_not_checkpoint(out, checkpoint.path)
        if format == "hub":
            _export_folder(checkpoint, arguments)
        elif format == "onnx":
            print(export_onnx(checkpoint, out, arguments.fp16, arguments.opset or OPSET, arguments.license))
        elif format == "pt2":
            print(export_program(checkpoint, out, arguments.fp16, arguments.license))
        else:
            export_checkpoint(checkpoint, out, format, arguments.training_patch_size)
    print(f"wrote {out}")


def _export_folder(checkpoint: Checkpoint, arguments: argparse.Namespace) -> None:
    """Write model.safetensors, README.md and LICENSE to a new or empty folder.

    Raises:
        UserError: a file cannot be read, or the output is a file or a folder that is not empty.
    """
    out: Path = arguments.out
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; --format hub writes a folder")
    if out.is_dir() and (there := next(out.iterdir(), None)) is not None:
        raise UserError(f"{out}: contains {there.name}; --format hub overwrites nothing and expects a new or empty folder")
    run: Path | None = arguments.checkpoint if arguments.checkpoint.is_dir() else None
    results = arguments.results or ([run / "results.json"] if run is not None and (run / "results.json").exists() else [])
    records = [read_results(file) for file in results]
    license_text = None
    if arguments.license_file is not None:
        try:
            license_text = arguments.license_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--license-file {arguments.license_file}: cannot be read ({error}); expected a text file") from None
    card = model_card(checkpoint, records, None if run is None else _training(run), arguments.license)
    export_checkpoint(checkpoint, out / WEIGHTS, "safetensors", arguments.training_patch_size)
    write_model_folder(out, card, license_text)


def _training(run: Path) -> Training | None:
    """Return how a run was trained; None if it has no provenance, or a damaged one."""
    if not (run / PROVENANCE).exists():
        return None
    config = read_saved_config(run / CONFIG)
    select = OmegaConf.select
    try:
        start = json.loads((run / PROVENANCE).read_text(encoding="utf-8"))["starts"][0]
        script, *words = shlex.split(start["command"])
        words = [word for word in words if described(word.lstrip("+~").partition("=")[0]).result]
        packages = {"irformer": str(start["irformer"]), **{name: str(number) for name, number in start["packages"].items() if number}}
        return Training(
            data=str(select(config, "data.name")),
            batch=int(select(config, "batch_size")),
            patch=int(select(config, "patch_size")),
            steps=int(select(config, "trainer.max_steps")),
            command=shlex.join(["python", Path(script).name, *words]),  # without the folders of the machine
            packages=packages,
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
