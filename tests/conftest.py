"""What several test files use: where test images and reference outputs are, and small pictures with structure."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from irformer.datasets.catalog import TEST_SETS

pytest_plugins = ["reliability"]

# A shell without job control starts background jobs with SIGINT ignored, and processes inherit that: those of the tests must hear Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _folder(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{what}: the variable {variable} is not set")
    folder = Path(value)
    assert folder.is_dir(), f"{variable}={value} is no folder"
    return folder


@pytest.fixture(scope="session")
def _published_images() -> Path:
    """Read once, before a test changes the variable."""
    return _folder("IRFORMER_DATA", "published test images")


@pytest.fixture
def data_root(_published_images: Path, request: pytest.FixtureRequest) -> Path:
    """Folder of published test images (IRFORMER_DATA). A test that is parametrized by a set that is not in it is skipped."""
    root = _published_images
    parameters = request.node.callspec.params.values() if hasattr(request.node, "callspec") else ()
    for name in parameters:
        if isinstance(name, str) and not any((root / folder).is_dir() for folder in TEST_SETS.get(name, [root])):
            pytest.skip(f"published test images: IRFORMER_DATA={root} has no {name}")
    return root


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Folder of checkpoints in the official formats with their official outputs; tests/golden/README.md describes them."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def weights_root() -> Path:
    """Folder of trained community networks (IRFORMER_WEIGHTS)."""
    return _folder("IRFORMER_WEIGHTS", "trained community networks")


def require_set5(root: Path, scale: int) -> None:
    """Skip a test that needs MATLAB's own LR files of Set5; benchmark.tar, which is downloaded, has none of x8."""
    if not (root / "Set5" / "LR_bicubic" / f"X{scale}").is_dir():
        pytest.skip(f"published test images: IRFORMER_DATA={root} has no Set5/LR_bicubic/X{scale}")


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A uint8 picture [height, width, channels] with edges, gradients and texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [np.sin(x / (3 + c)) + np.cos(y / (5 + c)) + (x + y > (height + width) / 2) for c in range(channels)]
    image = np.stack(planes, -1) * 50 + 100 + rng.normal(0, 5, (height, width, channels))
    return image.round().clip(0, 255).astype(np.uint8)
