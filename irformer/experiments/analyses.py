"""What pages need from the weights of a finished run, computed once when the run ends and stored in its record under `analyses`.

An analysis takes the network of the best weights and the smallest test set of the run, and returns plain values.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor, nn

from irformer.config.compose import trust_of
from irformer.config.image_sets import find_test_sets
from irformer.config.tasks import build_task
from irformer.core.files import write_atomically
from irformer.data.test_sets import TestSet
from irformer.datasets.catalog import SAMPLE
from irformer.dynamics import parameters
from irformer.dynamics.parameters import final_vectors
from irformer.dynamics.statistics import channel_energy
from irformer.errors import UserError
from irformer.evaluation.evaluate import evaluate
from irformer.evaluation.restorers import NetworkRestorer, to_tensor
from irformer.models.interface import evaluation_mode, final_norm_of, groups_of, multiple_of, padding_of
from irformer.precision import LARGEST_HALF, Calibration, in_precision, scale_stream
from irformer.tasks.task import Task
from irformer.weights.checkpoints import BEST, load_checkpoint

EVALUATED = ("fp32", "bf16", "fp16", "int8", "int4")
_FILE = "analyses.json"  # in the folder of the run

Analysis = Callable[[nn.Module, Task, TestSet], dict[str, Any]]


def final_norm(network: nn.Module, task: Task, test_set: TestSet) -> dict[str, Any]:
    """Return weight and bias of the final norm, and the magnitude of each channel that it reads.

    Returns:
        `weight` and `bias` of each channel, and `magnitude`, the energy of each channel (`channel_energy`), averaged over the images.
        Empty vectors for a network without a final norm with an affine map.
    """
    norm, vectors = final_norm_of(network), final_vectors(network)
    if norm is None or not {"weight", "bias"} <= vectors.keys():
        return {"weight": [], "bias": [], "magnitude": []}
    energies: list[Tensor] = []
    hook = norm.register_forward_pre_hook(lambda _module, args: energies.append(channel_energy(args[0])))
    try:
        restorer = NetworkRestorer(network, task.protocol.padding)
        for pair in test_set:
            restorer(pair.lq)
    finally:
        hook.remove()
    magnitude = torch.stack(energies).mean(0).cpu().numpy()
    return {name: _rounded(values) for name, values in (*vectors.items(), ("magnitude", magnitude))}


def position_biases(network: nn.Module, task: Task, test_set: TestSet) -> dict[str, Any]:
    """Return the smoothness of the relative position biases, and those of the last attention as pictures.

    Returns:
        `smoothness`, the mean over all attentions, and `last`, the tables [heads, rows, columns] of the last attention. None and empty for
        a network without them.
    """
    tables = list(parameters.position_biases(network).values())
    if not tables:
        return {"smoothness": None, "last": []}
    mean = float(np.mean([parameters.smoothness(table) for table in tables]))
    return {"smoothness": float(f"{mean:.4g}"), "last": _rounded(tables[-1])}


def _rounded(values: NDArray[np.float64]) -> Any:
    """Return nested lists with four significant digits."""

    def rounded(value: Any) -> Any:
        return [rounded(inner) for inner in value] if isinstance(value, list) else float(f"{value:.4g}")

    return rounded(values.tolist())


def precision(network: nn.Module, task: Task, test_set: TestSet) -> dict[str, Any]:
    """Return the quality of a network in lower precisions, and of the same network with a residual stream that leaves float16's range.

    Returns:
        For each precision `psnr` (the first metric of the task), `non_finite` (values of the restored images), `peak` (the largest
        activation) with its `layer`, and `scheme`; `scaled` with the largest value of the residual `stream`, the `factor` that brings it
        out of float16's range, and the quality with the scaled stream in fp32 and fp16; `calibration` and `test_set`, names of images.
    """
    photos = find_test_sets([SAMPLE], Path(), task)[0]
    calibration = Calibration(tuple(pair.name for pair in photos), tuple(to_tensor(pair.lq) for pair in photos))
    found: dict[str, Any] = {"test_set": test_set.name, "calibration": list(calibration.names)}
    records = {}
    for name in EVALUATED:
        reduced = in_precision(network, name, calibration)
        quality = _quality(reduced.network, network, task, test_set)
        record = records[name] = reduced.record()
        layer, peak = record.peak
        found[name] = {
            "psnr": quality,
            "non_finite": record.non_finite,
            "peak": float(f"{peak:.4g}"),
            "layer": layer,
            "scheme": record.scheme,
        }
    stream = max(records["fp32"].largest[group] for group in groups_of(network))
    factor = 2.0 ** math.ceil(math.log2(2 * LARGEST_HALF / max(stream, 1e-6)))
    found["scaled"] = {"stream": float(f"{stream:.4g}"), "factor": factor}
    for name in ("fp32", "fp16"):
        found["scaled"][name] = _quality(in_precision(scale_stream(network, factor), name).network, network, task, test_set)
    return found


def _quality(reduced: nn.Module, original: nn.Module, task: Task, test_set: TestSet) -> float:
    """Return the first metric of the task; a value that is not finite counts as 0 (black)."""
    restorer = NetworkRestorer(_Finite(reduced, original), task.protocol.padding)
    return evaluate(restorer, test_set).metrics[next(iter(task.metrics))]


class _Finite(nn.Module):
    """A network whose output has 0 where it was NaN or infinite."""

    def __init__(self, network: nn.Module, original: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.scale, self.test_padding = original.scale, padding_of(original)
        self.size_multiple = multiple_of(original)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nan_to_num(self.network(x), nan=0.0, posinf=0.0, neginf=0.0)


ANALYSES: dict[str, Analysis] = {"final_norm": final_norm, "position_biases": position_biases, "precision": precision}


def analyze(folder: Path, config: DictConfig, names: Sequence[str]) -> dict[str, Any]:
    """Return analyses of a finished run by name, and keep them in its analyses.json, so that each is computed once.

    Args:
        folder: the run's folder.
        config: the run's configuration.
        names: names of analyses.

    Raises:
        UserError: an analysis must be computed, and the run's weights are missing.
    """
    file = folder / _FILE
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if lacking := [name for name in names if name not in known]:
        known |= _computed(folder, config, lacking)
        text = json.dumps(dict(sorted(known.items()))) + "\n"
        write_atomically(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return {name: known[name] for name in sorted(names)}


def _computed(folder: Path, config: DictConfig, names: Sequence[str]) -> dict[str, Any]:
    if not (folder / BEST).is_file():
        raise UserError(
            f"{folder / BEST}: missing, and {', '.join(names)} must be computed from it: train this run again after moving its record away"
        )
    network = load_checkpoint(folder / BEST, trust=trust_of(config)).network
    task = build_task(config.task)
    test_sets = find_test_sets(config.test_sets, Path(config.paths.data), task, config.data.max_megapixels)
    smallest = min(test_sets, key=len)
    with evaluation_mode(network), torch.no_grad():
        return {name: ANALYSES[name](network, task, smallest) for name in names}
