"""Metrics computed by libraries: multi-scale SSIM, LPIPS, DISTS, SSIMULACRA2 and FLIP, which are imported when one is built.

LPIPS and DISTS need weights of a classification network in the format of torchvision. irformer downloads nothing: the file is looked for
in a given folder, or in torch's hub folder, and without it the metric cannot be built.
"""

import importlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from irformer.errors import UserError
from irformer.metrics.metric import Metric


class MetricUnavailableError(UserError):
    """A metric cannot be computed on this machine, because a package or a weights file is missing."""


class MSSSIM(Metric):
    """Multi-scale structural similarity (Wang et al. 2003) over five scales, by torchmetrics: 11x11 Gaussian window, mean over channels."""

    higher_is_better = True
    digits = 4
    smallest_side = 176  # at the fifth scale, an image must be larger than the window

    def __call__(self, restored: NDArray[Any], truth: NDArray[Any]) -> float:
        """Compute the mean over the channels."""
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

        first, second = _batches(restored, truth)
        return float(multiscale_structural_similarity_index_measure(first, second, data_range=1.0))


class _OfNetwork(Metric):
    """A metric of torchmetrics that compares the features of a classification network.

    Args:
        network: name of the network's weights in torchvision, such as `AlexNet_Weights`.
        weights: folder of the weights file; None means torch's hub folder.
    """

    higher_is_better = False
    digits = 4
    channels = (3,)
    smallest_side = 64  # the deepest features of smaller images have no extent

    def __init__(self, network: str, weights: str | None) -> None:
        folder, file = _weights_file(network, weights)
        with _hub_of(folder, file):
            self._metric = self._build()
        self._metric.eval()

    def _build(self) -> Any:
        raise NotImplementedError

    def __call__(self, restored: NDArray[Any], truth: NDArray[Any]) -> float:
        """Compute the distance of two RGB images."""
        import torch

        with torch.no_grad():
            self._metric.reset()  # forward would otherwise average over all images
            return float(self._metric(*_batches(restored, truth)))


class LPIPS(_OfNetwork):
    """Learned perceptual image patch similarity (Zhang et al. 2018), version 0.1, by torchmetrics. Lower is better.

    Args:
        net: network whose features are compared: `alex` (most papers) or `vgg`.
        weights: folder of the weights of the network, as torchvision distributes them; None means torch's hub folder.

    Raises:
        MetricUnavailableError: the weights file is missing.
        UserError: it is damaged.
    """

    def __init__(self, net: Literal["alex", "vgg"] = "alex", weights: str | None = None) -> None:
        if net not in _NETWORKS:
            raise UserError(f"net={net}: expected {' or '.join(_NETWORKS)}")
        self.net = net
        super().__init__(_NETWORKS[net], weights)

    def _build(self) -> Any:
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity(net_type=self.net, normalize=True)


class DISTS(_OfNetwork):
    """Deep image structure and texture similarity (Ding et al. 2020), by torchmetrics, on images of their full size. Lower is better.

    Args:
        weights: folder of the weights of VGG16, as torchvision distributes them; None means torch's hub folder.

    Raises:
        MetricUnavailableError: the weights file is missing.
        UserError: it is damaged.
    """

    def __init__(self, weights: str | None = None) -> None:
        super().__init__(_NETWORKS["vgg"], weights)

    def _build(self) -> Any:
        from torchmetrics.functional.image.dists import DISTSNetwork

        return _Distance(DISTSNetwork())


class _Distance:
    """Gives a network that compares two images the interface of a metric object; torchmetrics would build the network for each image."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def eval(self) -> None:
        self.network.eval()

    def reset(self) -> None:
        pass

    def __call__(self, restored: Any, truth: Any) -> Any:
        return self.network(restored, truth)


class SSIMULACRA2(Metric):
    """SSIMULACRA2 (Sneyers 2023), by the package ssimulacra2: 100 for equal images, 90 visually lossless, below 0 very distorted.

    Raises:
        MetricUnavailableError: the package is not installed.
    """

    higher_is_better = True
    digits = 2
    channels = (3,)
    smallest_side = 8

    def __init__(self) -> None:
        _package("ssimulacra2")

    def __call__(self, restored: NDArray[Any], truth: NDArray[Any]) -> float:
        """Compare two RGB images."""
        return float(_package("ssimulacra2").compute_ssimulacra2(_as_file(truth), _as_file(restored)))


class FLIP(Metric):
    """Mean of the FLIP error map (Andersson et al. 2020), by NVIDIA's package flip-evaluator: 0 for equal images. Lower is better.

    Args:
        pixels_per_degree: pixels per degree of visual angle; 67 is a 0.7 m wide 4K display at a distance of 0.7 m.

    Raises:
        MetricUnavailableError: the package is not installed.
    """

    higher_is_better = False
    digits = 4
    channels = (3,)

    def __init__(self, pixels_per_degree: float = 67.0) -> None:
        self.pixels_per_degree = pixels_per_degree
        _package("flip_evaluator")

    def __call__(self, restored: NDArray[Any], truth: NDArray[Any]) -> float:
        """Compare two RGB images, as sRGB."""
        images = [np.ascontiguousarray(image, dtype=np.float32) / 255 for image in (truth, restored)]
        parameters = {"ppd": self.pixels_per_degree}
        _, mean, _ = _package("flip_evaluator").evaluate(*images, "LDR", applyMagma=False, parameters=parameters)
        return float(mean)


_NETWORKS = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights"}


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MetricUnavailableError(f"the package {name.replace('_', '-')} is not installed: pip install 'irformer[metrics]'") from None


def _batches(*images: NDArray[Any]) -> list[Any]:
    """Convert uint8 images [H, W, C] to tensors [1, C, H, W] in [0, 1]."""
    import torch

    return [torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255 for image in images]


def _as_file(image: NDArray[Any]) -> io.BytesIO:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "bmp")
    file.seek(0)
    return file


def _weights_file(network: str, folder: str | None) -> tuple[Path, str]:
    """Return the folder and the name of a weights file, after checking that it contains nothing but tensors.

    Raises:
        MetricUnavailableError: the file is missing.
        UserError: it is damaged.
    """
    import torch
    import torchvision

    url = getattr(torchvision.models, network).DEFAULT.url
    name = url.rpartition("/")[2]
    place = Path(torch.hub.get_dir()) / "checkpoints" if folder is None else Path(folder)
    file = place / name
    if not file.is_file():
        raise MetricUnavailableError(
            f"{file} is missing: download it from {url}, or name the folder that contains it by metrics.weights=FOLDER"
        )
    try:
        torch.load(file, weights_only=True)  # torchvision would run code in the file
    except Exception as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{file}: cannot be read ({line[:200]}); expected the weights file from {url}") from None
    return place, name


@contextmanager
def _hub_of(folder: Path, name: str) -> Iterator[None]:
    """Let torchvision find a weights file in a folder, within a block."""
    import torch

    before = torch.hub.get_dir()
    with tempfile.TemporaryDirectory(prefix="irformer-") as hub:
        (Path(hub) / "checkpoints").mkdir()
        try:
            (Path(hub) / "checkpoints" / name).symlink_to((folder / name).resolve())
        except OSError:  # Windows allows links only to some users
            (Path(hub) / "checkpoints" / name).write_bytes((folder / name).read_bytes())
        torch.hub.set_dir(hub)
        try:
            yield
        finally:
            torch.hub.set_dir(before)
