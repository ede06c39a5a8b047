"""ONNX and .pt2 files of a network, compared with the network before they appear."""

import copy
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from irformer.core.files import write_atomically
from irformer.core.version import __version__
from irformer.errors import UserError
from irformer.graphs.agreement import DECIBELS, RELATIVE, SIZES, Agreement, Size, agreements, described, misses
from irformer.graphs.rewrites import REWRITES
from irformer.graphs.runtimes import GraphNetwork, required
from irformer.graphs.tracing import GraphPrecision, quiet, reason, trace
from irformer.models.interface import multiple_of

OPSET = 18
OPSETS = range(18, 24)
INPUT, OUTPUT = "input", "output"
_FACTS = "metadata.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Args:
        precision: `fp32`, `fp16`, or `fp16_safe` if float16 alone is not precise enough.
        agreements: how closely it agrees with the network, at each size.
    """

    precision: GraphPrecision
    agreements: tuple[Agreement, ...]

    def __str__(self) -> str:
        words = ", ".join(described(found, self.precision != "fp32") for found in self.agreements)
        return f"{self.precision}, {'PSNR against' if self.precision != 'fp32' else 'largest difference from'} the network: {words}"


def write_onnx(
    network: nn.Module, path: Path, facts: Mapping[str, str], half: bool = False, opset: int = OPSET, sizes: Sequence[Size] = SIZES
) -> Written:
    """Write a network as ONNX: one input `input` and one output `output`, for any number of images of any size.

    Padding and cropping are part of the graph. The metadata contains the facts, and scale, channels, size_multiple and precision.

    Args:
        network: see `irformer.models.interface.Network`.
        path: the file, ending in .onnx.
        facts: metadata to store in the file.
        half: weights, images and most operations in float16; statistics and softmax stay in float32, as does the residual stream if float16
            alone misses 50 dB.
        opset: version of ONNX's operators, one of `OPSETS`.
        sizes: the sizes of images at which the graph is compared with the network.

    Raises:
        UserError: a package is missing, the network cannot be traced, the graph differs too much from the network (more than 1e-4 relative
            in float32, less than 50 dB in float16), or the suffix is another one. Nothing is written.
    """
    _require_suffix(path, ".onnx")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        required(package)

    def save(program: ExportedProgram, precision: GraphPrecision, temporary: Path) -> None:
        exported = onnx_program(program, opset)
        _name_axes(exported.model, network)
        exported.model.metadata_props.update({**facts, **_own_facts(network, precision)})
        exported.save(temporary, external_data=False)

    return _write(network, path, half, sizes, save, lambda file: GraphNetwork(file, "onnxruntime"))


def write_program(network: nn.Module, path: Path, facts: Mapping[str, str], half: bool = False, sizes: Sequence[Size] = SIZES) -> Written:
    """Write a network as a program of torch.export, for any number of images of any size; `torch.export.load(path).module()` runs it.

    Args:
        network: see `irformer.models.interface.Network`.
        path: the file, ending in .pt2.
        facts: metadata to store in the file, as JSON under metadata.json.
        half: as in `write_onnx`.
        sizes: as in `write_onnx`.

    Raises:
        UserError: as in `write_onnx`.
    """
    _require_suffix(path, ".pt2")

    def save(program: ExportedProgram, precision: GraphPrecision, temporary: Path) -> None:
        for module in program.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, GraphModule) else ():
                node.meta.pop("stack_trace", None)  # names folders of this machine
        buffer = io.BytesIO()  # given a path, PyTorch insists on the suffix
        with quiet():
            torch.export.save(program, buffer, extra_files={_FACTS: json.dumps({**facts, **_own_facts(network, precision)})})
        temporary.write_bytes(buffer.getvalue())

    def reopen(file: Path) -> Callable[[Tensor], Tensor]:
        with quiet():
            module = torch.export.load(io.BytesIO(file.read_bytes())).module()
        return lambda images: module(images.half() if half else images).float()

    return _write(network, path, half, sizes, save, reopen)


def onnx_program(program: ExportedProgram, opset: int) -> Any:
    """Convert a program to ONNX.

    Returns:
        A torch.onnx.ONNXProgram.

    Raises:
        UserError: PyTorch cannot convert it to this version of the operators.
    """
    with quiet():
        rewritten = program.run_decompositions(REWRITES)
        try:
            exported: Any = torch.onnx.export(
                rewritten, input_names=[INPUT], output_names=[OUTPUT], opset_version=opset, dynamo=True, external_data=False, verbose=False
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise UserError(f"PyTorch cannot convert the network to ONNX ({reason(error)}); update torch and onnxscript") from error
    # What the exporter records about the source code names folders of this machine.
    required("onnx_ir.passes.common").ClearMetadataAndDocStringPass()(exported.model)
    found = exported.model.opset_imports.get("")
    if found != opset:
        raise UserError(f"--opset {opset}: PyTorch can write only opset {found} for this network; choose {found}")
    return exported


def _write(
    network: nn.Module,
    path: Path,
    half: bool,
    sizes: Sequence[Size],
    save: Callable[[ExportedProgram, GraphPrecision, Path], None],
    reopen: Callable[[Path], Callable[[Tensor], Tensor]],
) -> Written:
    """Write a file that agrees with the network, or nothing."""
    reference = copy.deepcopy(network).cpu().float().eval()
    channels: Any = network.in_channels
    written: list[Written] = []

    def write(temporary: Path) -> None:
        precisions: tuple[GraphPrecision, ...] = ("fp16", "fp16_safe") if half else ("fp32",)
        for precision in precisions:
            save(trace(reference, precision), precision, temporary)
            found = []
            for agreement in agreements(reopen(temporary), reference, channels, sizes):
                found.append(agreement)
                if misses(agreement, half):
                    break
            else:
                written.append(Written(precision, tuple(found)))
                return
            missed = described(found[-1], half)
            if precision == "fp16":
                _log.info("%s: float16 misses %.0f dB (%s); the residual stream stays in float32", path, DECIBELS, missed)
        expected = f"at least {DECIBELS:.0f} dB" if half else f"at most {RELATIVE:.0e} relative"
        raise UserError(f"{path}: not written: the graph differs from the network ({missed}), expected {expected}{_remedy(half)}")

    write_atomically(path, write)
    return written[0]


def _remedy(half: bool) -> str:
    return "; export without --fp16" if half else "; use another --opset, or another version of torch, onnxscript or onnxruntime"


def _own_facts(network: Any, precision: GraphPrecision) -> dict[str, str]:
    facts = {"scale": network.scale, "channels": network.in_channels, "size_multiple": multiple_of(network)}
    return {**{key: str(value) for key, value in facts.items()}, "precision": precision, "irformer": __version__}


def _name_axes(model: Any, network: Any) -> None:
    """Name the axes of input and output; sizes inside of the graph are left to the runtime."""
    ir = required("onnx_ir")
    graph = model.graph
    for node in graph:
        for value in node.outputs:
            value.shape = None
    names = ("height", "width") if network.scale == 1 else ("scaled_height", "scaled_width")
    graph.inputs[0].shape = ir.Shape(["batch", network.in_channels, "height", "width"])
    graph.outputs[0].shape = ir.Shape(["batch", network.in_channels, *names])


def _require_suffix(path: Path, suffix: str) -> None:
    if path.suffix != suffix:
        raise UserError(f"{path}: expected a file name ending in {suffix}")
