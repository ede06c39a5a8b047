"""The picture of docs/restored.png: photos that the weights in the package restore."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from irformer.config.compose import compose, instantiate
from irformer.core.files import write_atomically
from irformer.datasets.catalog import sample_photos
from irformer.evaluation.restorers import NetworkRestorer, baseline
from irformer.experiments.result_figures import new_figure
from irformer.imaging.images import read_image
from irformer.metrics import psnr
from irformer.tasks.task import Task
from irformer.weights.checkpoints import load_checkpoint

# Task, weights, photo of scikit-image (none of them was used for training), rows and columns of the crop.
EXAMPLES = (
    ("sr_x2", "swinir_tiny_iln_x2", "astronaut.png", slice(56, 156), slice(150, 290)),
    ("denoise_color_25", "swinir_tiny_iln_denoise_color_25", "coffee.png", slice(150, 290), slice(260, 456)),
)
_HEIGHT = 5.1  # inches
_LQ = {"sr_x2": "bicubic x2", "denoise_color_25": "noise, sigma 25"}

Panel = tuple[str, NDArray[np.uint8], float | None]


def panels(task_name: str, checkpoint: str, photo: str, rows: slice, columns: slice) -> list[Panel]:
    """Return the degraded, the restored and the original crop, each with a title and its PSNR against the original."""
    task: Task = instantiate(compose("benchmark", [f"task={task_name}", "checkpoint=none"]).task)
    (file,) = sample_photos((photo,))
    original = read_image(file)[rows, columns]
    lq = task.degradation.test(original)
    network = load_checkpoint(checkpoint).network
    degraded, restored = baseline(task)[1](lq), NetworkRestorer(network, task.protocol.padding)(lq)
    return [
        (_LQ[task_name], degraded, psnr(degraded, original)),
        (checkpoint, restored, psnr(restored, original)),
        ("original", original, None),
    ]


def _draw(figure_rows: Sequence[Sequence[Panel]]) -> Figure:
    figure, axes = new_figure(_HEIGHT, len(figure_rows), 3)
    for line, row in zip(axes, figure_rows, strict=True):
        for place, (title, image, decibels) in zip(line, row, strict=True):
            place.imshow(image, interpolation="nearest")
            place.set_axis_off()
            place.set_title(title if decibels is None else f"{title}\n{decibels:.1f} dB", fontsize=10)
    return figure


def write_picture(file: Path) -> None:
    """Restore the examples and write the picture as PNG."""
    figure = _draw([panels(*example) for example in EXAMPLES])
    write_atomically(file, lambda temporary: figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None}))
