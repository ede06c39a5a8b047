"""What several test files use: where test images and reference outputs lie, and small pictures with structure."""

import os
from pathlib import Path

import numpy as np
import pytest

pytest_plugins = ["reliability"]


def _folder(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{what}: the variable {variable} is not set")
    folder = Path(value)
    assert folder.is_dir(), f"{variable}={value} is no folder"
    return folder


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of published test images (IRFORMER_DATA)."""
    return _folder("IRFORMER_DATA", "published test images")


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Folder of checkpoints in the official formats with their official outputs (IRFORMER_GOLDEN)."""
    return _folder("IRFORMER_GOLDEN", "official reference outputs")


@pytest.fixture(scope="session")
def weights_root() -> Path:
    """Folder of trained community networks (IRFORMER_WEIGHTS)."""
    return _folder("IRFORMER_WEIGHTS", "trained community networks")


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A uint8 picture [height, width, channels] with edges, gradients and texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [np.sin(x / (3 + c)) + np.cos(y / (5 + c)) + (x + y > (height + width) / 2) for c in range(channels)]
    image = np.stack(planes, -1) * 50 + 100 + rng.normal(0, 5, (height, width, channels))
    return image.round().clip(0, 255).astype(np.uint8)
