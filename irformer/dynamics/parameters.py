"""Statistics of a network's weights: the final norm, tables of position biases, scale-invariant weights, gradients and updates."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from irformer.dynamics.invariance import scale_invariant_weights
from irformer.dynamics.selection import Layer
from irformer.models.interface import final_norm_of

FINAL_NORM, POSITION_BIAS, SCALE_INVARIANT = "final_norm", "position_bias", "scale_invariant"

Vector = NDArray[np.float64]


class MeasuredWeights(NamedTuple):
    """Statistics of the weights of one module.

    Args:
        kind: `final_norm`, `position_bias` or `scale_invariant`.
        place: place among those of this kind, from 0, in order of depth.
        name: name of the module, `final_norm`, or the name of a set of scale-invariant weights.
        values: the value of each statistic.
    """

    kind: str
    place: int
    name: str
    values: dict[str, float]


def measure_weights(network: nn.Module, energy: Vector | None) -> list[MeasuredWeights]:
    """Measure a network's weights.

    - `final_norm`: weight_correlation and bias_correlation, the rank correlation (`rank_correlation`) over the channels of the |weight| and
      the |bias| of the final norm with the magnitude of the channels that it reads. Paper: arXiv 2504.06629, Fig. 8.
    - `position_bias`: smoothness (`smoothness`) of the learned biases of relative positions in each attention layer. Paper: Fig. 9.
    - `scale_invariant`: weight_norm, the L2 norm of each set of weights on whose scale the output does not depend
      (`irformer.dynamics.invariance`).

    Args:
        network: see `irformer.models.interface.Network`.
        energy: `channel_energy` of the last group's output [C]; None leaves out the final norm.
    """
    measured = []
    vectors = final_vectors(network)
    if energy is not None and vectors:
        measured.append(MeasuredWeights(FINAL_NORM, 0, FINAL_NORM, magnitude_correlations(vectors, energy)))
    for index, (name, table) in enumerate(position_biases(network).items()):
        measured.append(MeasuredWeights(POSITION_BIAS, index, name, {"smoothness": smoothness(table)}))
    sets = scale_invariant_weights(network)
    norms = torch.stack([l2_norm(weights) for weights in sets.values()]).tolist() if sets else []
    for index, (name, norm) in enumerate(zip(sets, norms, strict=True)):
        measured.append(MeasuredWeights(SCALE_INVARIANT, index, name, {"weight_norm": norm}))
    return measured


def magnitude_correlations(vectors: Mapping[str, Vector], energy: Vector) -> dict[str, float]:
    """Return the rank correlation of |weight| and |bias| of a norm with the magnitude of the channels that it reads.

    Args:
        vectors: the vectors [C] by name, see `norm_vectors`.
        energy: `channel_energy` [C] of what the norm reads.

    Returns:
        weight_correlation and bias_correlation; a vector with equal entries, as at initialization, has none.
    """
    correlations = {f"{name}_correlation": rank_correlation(np.abs(vector), energy) for name, vector in vectors.items()}
    return {name: value for name, value in correlations.items() if not math.isnan(value)}


def final_vectors(network: nn.Module) -> dict[str, Vector]:
    """Return the weight and the bias [C] of a network's final norm, as far as it has them."""
    return norm_vectors(final_norm_of(network))


def norm_vectors(norm: nn.Module | None) -> dict[str, Vector]:
    """Return the weight and the bias [C] of a norm, as far as it has them."""
    found = {name: getattr(norm, name, None) for name in ("weight", "bias")}
    return {name: to_array(vector) for name, vector in found.items() if isinstance(vector, Tensor) and vector.dim() == 1}


def position_biases(network: nn.Module) -> dict[str, Vector]:
    """Return the learned biases of relative positions by the name of the attention layer: [heads, rows, columns], the middle is offset 0.

    Attention layers provide them by a method `position_biases`. In networks of other projects, they are the parameters named
    `relative_position_bias_table` [n^2, heads] of Swin Transformer, in rows of n.
    """
    tables = {}
    for name, module in network.named_modules():
        if hasattr(module, "position_biases"):
            tables[name] = to_array(module.position_biases())
            continue
        table = getattr(module, "relative_position_bias_table", None)
        side = round(len(table) ** 0.5) if isinstance(table, Tensor) and table.dim() == 2 else 0
        if isinstance(table, Tensor) and side > 0 and side**2 == len(table):
            tables[name] = to_array(table.T.unflatten(1, (side, side)))
    return tables


def smoothness(table: Vector) -> float:
    """Smoothness of tables [heads, rows, columns]: 1 minus the mean of (a - b)^2 / 2 over adjacent entries a, b, divided by the variance.

    The correlation of neighbors, averaged over the heads: 0 for independent entries, near 1 for a smooth surface, negative for a
    checkerboard. nan for a table of one value.
    """
    across, down = np.diff(table, axis=2), np.diff(table, axis=1)
    count = across[0].size + down[0].size
    mean = (np.square(across).sum((1, 2)) + np.square(down).sum((1, 2))) / max(count, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float((1 - mean / (2 * table.var((1, 2)))).mean())


def rank_correlation(a: Vector, b: Vector) -> float:
    """Spearman's correlation of two vectors: from -1 to 1, that of their ranks, in which equal values share a mean rank.

    Ranks, because in a diverged network a single channel would decide Pearson's correlation. nan if one vector has only one value.
    """
    x, y = (_ranks(vector) for vector in (a, b))
    x, y = x - x.mean(), y - y.mean()
    spread = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / spread if spread > 0 else float("nan")


def _ranks(vector: Vector) -> Vector:
    _, inverse, counts = np.unique(vector, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Vector = (last - (counts - 1) / 2)[inverse]
    return ranks


def gradient_norms(layers: Sequence[Layer]) -> Tensor:
    """Return the L2 norm of the gradient of each layer's weights; nan for a layer without a gradient."""
    return torch.stack([l2_norm([weight.grad for weight in layer.module.parameters() if weight.grad is not None]) for layer in layers])


def copy_weights(layers: Sequence[Layer]) -> dict[nn.Parameter, Tensor]:
    """Return a copy of each weight of the layers, for `update_ratios` after an optimizer step."""
    return {weight: weight.detach().clone() for layer in layers for weight in layer.module.parameters()}


def update_ratios(layers: Sequence[Layer], before: Mapping[nn.Parameter, Tensor]) -> Tensor:
    """Return |w - w_before| / |w_before| of each layer, the L2 norms over all of its weights; nan for a layer without weights.

    Args:
        layers: the layers.
        before: the weights before an optimizer step.
    """
    ratios = []
    for layer in layers:
        weights = list(layer.module.parameters())
        ratios.append(l2_norm([weight.detach() - before[weight] for weight in weights]) / l2_norm([before[weight] for weight in weights]))
    return torch.stack(ratios)


def l2_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the L2 norm of all values, in at least float32; nan if there are no tensors."""
    if not tensors:
        return torch.tensor(float("nan"))
    return torch.nn.utils.get_total_norm([tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors])


def to_array(tensor: Tensor) -> Vector:
    """Copy a tensor to the host, in float64."""
    return tensor.detach().double().cpu().numpy()
