"""The LR files of the published test sets, byte by byte."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import picture, require_set5

from irformer.imaging.resize import imresize

NAMES = ["baby", "bird", "butterfly", "head", "woman"]


def _read(path):
    return cv2.imread(str(path), cv2.IMREAD_COLOR)


@pytest.mark.parametrize(("scale", "variant"), [(2, "matlab_uint8"), (3, "matlab_uint8"), (4, "matlab_uint8"), (8, "matlab_double")])
def test_set5_lr_files_are_reproduced_to_the_byte(data_root, scale, variant):
    require_set5(data_root, scale)
    for name in NAMES:
        expected = _read(data_root / "Set5" / "LR_bicubic" / f"X{scale}" / f"{name}x{scale}.png")
        hr = _read(data_root / "Set5" / "HR" / f"{name}.png")
        height, width = (side - side % scale for side in hr.shape[:2])
        found = imresize(hr[:height, :width], height // scale, width // scale, variant)
        assert np.count_nonzero(found != expected) == 0, name


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_double_variant_equals_antialiased_interpolation_in_float64(scale):
    """Torch's antialiased bicubic, on an image mirrored beyond its kernel, is MATLAB's double path."""
    image = picture(24 * scale, 31 * scale)
    pad = 4 * scale
    mirrored = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="symmetric")
    planes = torch.from_numpy(mirrored).permute(2, 0, 1)[None].double()
    shrunk = F.interpolate(planes, scale_factor=1 / scale, mode="bicubic", antialias=True)[0, :, 4:-4, 4:-4].permute(1, 2, 0).numpy()
    found = imresize(image, 24, 31, "matlab_double")
    assert np.abs(found - shrunk.clip(0, 255)).max() <= 0.5 + 1e-6


def test_enlarging_keeps_constant_images_and_matches_interpolation():
    assert (imresize(np.full((5, 7, 3), 201, np.uint8), 20, 28) == 201).all()
    image = picture(20, 24)
    planes = torch.from_numpy(np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="symmetric")).permute(2, 0, 1)[None].double()
    grown = F.interpolate(planes, scale_factor=3, mode="bicubic", antialias=True)[0, :, 12:-12, 12:-12].permute(1, 2, 0).numpy()
    assert np.abs(imresize(image, 60, 72, "matlab_double") - grown.clip(0, 255)).max() <= 0.5 + 1e-6


def test_gray_and_colour_planes_agree():
    image = picture(30, 40)
    assert (imresize(image, 15, 20)[..., 1] == imresize(image[..., 1], 15, 20)).all()


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="uint8 image, found float32"):
        imresize(np.zeros((4, 4), np.float32), 2, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'pil': expected matlab_uint8 or matlab_double"):
        imresize(np.zeros((4, 4), np.uint8), 2, 2, "pil")  # type: ignore[arg-type]
