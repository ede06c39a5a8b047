"""An inspection as tables, for the terminal and for pages."""

import math

from irformer.inspection.checkpoint_report import Inspection
from irformer.inspection.evidence import RULE, Evidence, percent
from irformer.precision import LARGEST_HALF
from irformer.reporting.tables import Cell, Number, ResultTable


def facts(found: Inspection) -> dict[str, str]:
    """Return what the network is, in words."""
    told = found.description
    sizes = ", ".join(f"{name} {_shown(value)}" for name, value in told.sizes.items())
    flops = "unknown" if told.flops is None else f"{told.flops / 1e9:,.2f} G for {told.size}x{told.size} pixels"
    return {
        "file": found.path,
        "network": told.name,
        "sizes": sizes or "determined by its weights",
        "parts": f"{told.groups} groups, {told.blocks} blocks",
        "norm": told.norm,
        "scale": str(told.scale),
        "channels": str(told.channels),
        "parameters": f"{told.parameters:,}",
        "FLOPs": flops,
        "receptive field": "unknown" if told.receptive_field is None else str(told.receptive_field),
        "size multiple": str(told.size_multiple),
        "task": told.task or "not recorded",
        "steps": "not recorded" if told.step is None else f"{told.step:,}",
        "license": told.license or "not stated",
    }


def tables(found: Inspection) -> list[ResultTable]:
    """Return the tables of an inspection: layers, weights, and precisions with the rule of the verdict."""
    photos = ", ".join(found.photos)
    rows: list[list[Cell]] = [
        [layer.name, f"{layer.mean_square:.4g}", f"{layer.max_abs:.4g}", percent(layer.range_share), Number(100 * layer.top1_share, 1)]
        for layer in found.layers
    ]
    peak = f"Largest activation of any layer: {found.peak:.4g} in {found.peak_layer}, {percent(found.peak / LARGEST_HALF)} of the range."
    features = ResultTable(
        "Features after each group and block",
        ["layer", "mean square", "largest value", "share of fp16 range", "strongest channel, % of energy"],
        rows,
        [f"Photos: {found.description.size}x{found.description.size} pixels of {photos}.", peak],
    )
    precisions = ResultTable(
        "Precisions against fp32",
        ["precision", "PSNR, dB", "overflowing layers", "first", "values not finite"],
        [_precision_row(run) for run in found.evidence],
        [f"Measured on {found.device}.", *(f"{run.precision}: {run.fault or run.scheme}." for run in found.evidence), RULE],
    )
    return [features, *_weight_tables(found), precisions]


def _precision_row(run: Evidence) -> list[Cell]:
    if run.fault is not None:
        return [run.precision, "does not run", None, None, None]
    psnr: Cell = None if math.isnan(run.lowest_psnr) else Number(run.lowest_psnr, 1)
    return [run.precision, psnr, str(run.overflowed_layers), run.first_overflow, f"{run.non_finite:,} of {run.values:,}"]


def _weight_tables(found: Inspection) -> list[ResultTable]:
    made = []
    if found.final_norm is not None:
        rows: list[list[Cell]] = [[name.removesuffix("_correlation"), Number(value, 3)] for name, value in found.final_correlations.items()]
        made.append(
            ResultTable(
                f"Final affine map: {found.final_norm}",
                ["vector", "rank correlation with channel magnitude"],
                rows or [["weight and bias", "undefined: all entries are equal"]],
                ["Spearman's correlation of the absolute values with the energy of the channels that it reads, on the photos."],
            )
        )
    if found.bias_smoothness:
        made.append(
            ResultTable(
                "Relative position biases",
                ["attention layer", "smoothness"],
                [[name, Number(value, 3)] for name, value in found.bias_smoothness.items()],
                ["Correlation of neighboring biases: near 1 for a smooth surface, 0 for noise."],
            )
        )
    return made


def _shown(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
