"""Graphs of checkpoints: files with facts about the checkpoint, and a file beside a checkpoint that is written once."""

import logging
from pathlib import Path

from irformer.core.files import sha256
from irformer.core.version import __version__
from irformer.errors import UserError, naming
from irformer.graphs.graph_files import OPSET, Written, write_onnx, write_program
from irformer.graphs.runtimes import metadata
from irformer.weights.bundled import made_file
from irformer.weights.checkpoints import Checkpoint

_log = logging.getLogger(__name__)


def export_onnx(checkpoint: Checkpoint, path: Path, half: bool = False, opset: int = OPSET, license: str | None = None) -> Written:
    """Write the network of a checkpoint as ONNX; see `irformer.graphs.graph_files.write_onnx`.

    Args:
        checkpoint: the checkpoint.
        path: the file.
        half: write a graph in float16.
        opset: version of ONNX's operators.
        license: SPDX identifier of the license of the weights, stored in the metadata.

    Raises:
        UserError: the network cannot be exported, or its graph differs too much from it.
    """
    with naming(f"{checkpoint.path}: "):
        return write_onnx(checkpoint.network, path, facts(checkpoint, license), half, opset)


def export_program(checkpoint: Checkpoint, path: Path, half: bool = False, license: str | None = None) -> Written:
    """Write the network of a checkpoint as a program of torch.export; see `irformer.graphs.graph_files.write_program`.

    Args:
        checkpoint: the checkpoint.
        path: the file.
        half: write a program in float16.
        license: SPDX identifier of the license of the weights, stored in the metadata.

    Raises:
        UserError: the network cannot be exported, or its program differs too much from it.
    """
    with naming(f"{checkpoint.path}: "):
        return write_program(checkpoint.network, path, facts(checkpoint, license), half)


def facts(checkpoint: Checkpoint, license: str | None) -> dict[str, str]:
    """Return what the metadata of a graph says about its checkpoint: name, norm, task, license, and the file with its checksum."""
    norm = checkpoint.model.get("norm")
    return {
        "name": str(checkpoint.model["name"]),
        "norm": str(norm["name"]) if isinstance(norm, dict) else "",
        "task": checkpoint.task or "",
        "license": license or "",
        "source": checkpoint.path.name,
        "source_sha256": sha256(checkpoint.path),
    }


def graph_beside(checkpoint: Checkpoint) -> Path:
    """Return the ONNX file beside a checkpoint, `best.safetensors.onnx` for `best.safetensors`; it is written if it is not up to date.

    That of weights in the package is in the user's cache folder.

    Raises:
        UserError: the network cannot be exported, or the folder cannot be written to.
    """
    path = made_file(checkpoint.path, ".onnx")
    if _up_to_date(path, checkpoint):
        return path
    _log.info("%s: written once for this checkpoint", path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        export_onnx(checkpoint, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); copy the checkpoint to a folder that can") from None
    return path


def _up_to_date(path: Path, checkpoint: Checkpoint) -> bool:
    """Return whether a file was made from the checkpoint, by this version of irformer."""
    if not path.exists():
        return False
    try:
        found = metadata(path)
    except UserError:  # a damaged file is replaced
        return False
    return (found.get("source_sha256"), found.get("irformer")) == (sha256(checkpoint.path), __version__)
