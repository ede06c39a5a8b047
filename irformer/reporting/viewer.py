"""An image viewer for HTML pages: versions of the same image compared with a slider, flipped in place, zoomed and measured."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image

from irformer.errors import UserError
from irformer.reporting.html import Fragment, asset, data_uri, render
from irformer.reporting.tables import Number

MAX_BYTES = 10_000_000
_ERROR_LIMIT = 32  # levels of 255 at which the error map reaches its brightest color
_OVERVIEW = 160  # longest side of the reduced image that shows where a crop is, in pixels
_SMALLEST_CROP = 64
_FEWEST_BYTES = 1.5  # that a pixel of a detailed photo takes as lossless WebP in base64


@dataclass(frozen=True)
class Version:
    """One version of an image: the input, the output of a checkpoint, or the ground truth.

    Args:
        name: the name on its button.
        pixels: [H, W], [H, W, 1] or [H, W, 3], uint8. An input of lower resolution is shown enlarged, with visible pixels.
        metrics: metrics of the whole image by name.
    """

    name: str
    pixels: NDArray[np.uint8]
    metrics: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True)
class ViewedImage:
    """An image in all its versions.

    Args:
        name: the name in the list of images, such as `Set5/baby`.
        versions: the versions, in the order of the keys 1 to 9.
        reference: name of the version that errors refer to; None if there is no ground truth.
    """

    name: str
    versions: tuple[Version, ...]
    reference: str | None = None


def viewer(images: Sequence[ViewedImage], max_bytes: int = MAX_BYTES) -> Fragment:
    """Return a viewer of images as part of a page; a page can contain one.

    All pixels are embedded as lossless WebP, so that PSNR and error maps computed in the page are those of the files. If they take more
    than `max_bytes`, large images are cropped to the square in which the versions differ most, and a reduced image shows where it is.

    Args:
        images: at least one image. Versions that are smaller than the largest must be smaller by an integer factor.
        max_bytes: limit of the embedded images, in bytes of the page.

    Raises:
        UserError: there are no images, two versions of an image share a name, the reference is not among them, or sizes do not match.
    """
    if not images:
        raise UserError("viewer: found no images, expected at least one")
    for image in images:
        _check(image)
    data = {
        "images": _embedded(images, max_bytes),
        "error": {
            "limit": _ERROR_LIMIT,
            "colors": [to_hex(c) for c in matplotlib.colormaps["inferno"](np.linspace(0, 1, _ERROR_LIMIT + 1))],
        },
    }
    scripts = [asset(f"viewer/{name}") for name in ("pixels.js", "stage.js", "app.js")]
    html = render("viewer/viewer.html.j2", data=data, error_limit=_ERROR_LIMIT)
    return Fragment(html, asset("viewer/viewer.css"), Markup("\n").join(scripts))


def _check(image: ViewedImage) -> None:
    names = [version.name for version in image.versions]
    if not names or len(set(names)) < len(names):
        raise UserError(f"viewer: {image.name}: found versions {', '.join(names) or 'none'}, expected at least one, with different names")
    if image.reference is not None and image.reference not in names:
        raise UserError(f"viewer: {image.name}: found no version {image.reference}, the reference; expected one of {', '.join(names)}")
    height, width = _size(image)
    for version in image.versions:
        h, w = version.pixels.shape[:2]
        if height % h or width % w or height // h != width // w:
            raise UserError(
                f"viewer: {image.name}: {version.name} has {w}x{h} pixels, expected {width}x{height} as in the largest version, or smaller "
                "by an integer factor"
            )


def _size(image: ViewedImage) -> tuple[int, int]:
    """Return height and width of the largest version."""
    return max(version.pixels.shape[0] for version in image.versions), max(version.pixels.shape[1] for version in image.versions)


def _embedded(images: Sequence[ViewedImage], max_bytes: int) -> list[dict[str, Any]]:
    """Return the images for the page's script, with a common limit for the sides of crops that keeps them within `max_bytes`."""
    limit = max(max(_size(image)) for image in images)
    while limit > _SMALLEST_CROP and _FEWEST_BYTES * sum(_area(image, limit) for image in images) > max_bytes:
        limit = max(_SMALLEST_CROP, int(limit * 0.95))
    while True:
        embedded = [_embed(image, limit) for image in images]
        size = sum(len(version["source"]) for image in embedded for version in image["versions"])
        if size <= max_bytes or limit <= _SMALLEST_CROP:
            return embedded
        # Bytes grow with the area, but small images stay whole: the limit may have to shrink more than once.
        limit = max(_SMALLEST_CROP, int(limit * min(0.95, math.sqrt(max_bytes / size))))


def _area(image: ViewedImage, limit: int) -> float:
    """Return the number of pixels of all versions, cropped to sides of at most `limit`."""
    height, width = _size(image)
    return min(height, limit) * min(width, limit) * sum((version.pixels.shape[0] / height) ** 2 for version in image.versions)


def _embed(image: ViewedImage, limit: int) -> dict[str, Any]:
    top, left, height, width = _window(image, limit)
    whole = _size(image)
    versions = []
    for version in image.versions:
        factor = whole[0] // version.pixels.shape[0]
        part = version.pixels[top // factor : (top + height) // factor, left // factor : (left + width) // factor]
        versions.append(
            {
                "name": version.name,
                "source": data_uri(_webp(_rgb(part), lossless=True), "image/webp"),
                "metrics": [[name, number.text] for name, number in version.metrics.items()],
            }
        )
    names = [version.name for version in image.versions]
    cropped = (height, width) != whole
    return {
        "name": image.name,
        "width": width,
        "height": height,
        "crop": {"left": left, "top": top, "width": whole[1], "height": whole[0], "source": _overview(image)} if cropped else None,
        "reference": names.index(image.reference) if image.reference is not None else None,
        "versions": versions,
    }


def _window(image: ViewedImage, limit: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the window, with sides up to `limit`, in which full-size versions differ most.

    The window is aligned to the pixels of smaller versions.
    """
    height, width = _size(image)
    grid = math.lcm(*(height // version.pixels.shape[0] for version in image.versions))
    rows, columns = (side if side <= limit else max(grid, limit // grid * grid) for side in (height, width))
    if (rows, columns) == (height, width):
        return 0, 0, height, width
    full = [_rgb(version.pixels).astype(np.int16) for version in image.versions if version.pixels.shape[:2] == (height, width)]
    spread = (np.max(full, 0) - np.min(full, 0)).sum(2).astype(np.float64)
    sums = cv2.integral(spread)
    tops, lefts = np.arange(0, height - rows + 1, grid), np.arange(0, width - columns + 1, grid)
    found = sums[np.ix_(tops + rows, lefts + columns)] - sums[np.ix_(tops, lefts + columns)] - sums[np.ix_(tops + rows, lefts)]
    found = found + sums[np.ix_(tops, lefts)]
    top, left = np.unravel_index(int(found.argmax()), found.shape)
    return int(tops[top]), int(lefts[left]), rows, columns


def _overview(image: ViewedImage) -> str:
    """Return the whole image at reduced size."""
    height, width = _size(image)
    names = [version.name for version in image.versions]
    shown = image.versions[names.index(image.reference) if image.reference is not None else -1].pixels
    scale = min(1.0, _OVERVIEW / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    reduced = np.asarray(cv2.resize(_rgb(shown), size, interpolation=cv2.INTER_AREA), np.uint8)
    return data_uri(_webp(reduced, lossless=False), "image/webp")


def _rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return [H, W, 3]."""
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.repeat(planes, 3, 2) if planes.shape[2] == 1 else planes


def _webp(pixels: NDArray[np.uint8], lossless: bool) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, "WEBP", lossless=lossless, quality=60, method=2)
    return content.getvalue()
