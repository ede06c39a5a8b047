"""Restoring an image file of any bit depth and kind: the steps that scripts/restore.py applies to each file."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from irformer.commands.restore_jobs import Job
from irformer.errors import UserError
from irformer.evaluation.restorers import NetworkRestorer
from irformer.evaluation.tiling import TiledRestorer, is_out_of_memory
from irformer.imaging.decoding import DecodedImage
from irformer.imaging.images import decode_image, encode_image, require_writable_format
from irformer.imaging.metadata import NO_METADATA, Metadata


@dataclass(frozen=True)
class Restored:
    """A restored image.

    Args:
        pixels: [H, W, 1 or 3], uint8 or uint16.
        alpha: [H, W], of the same type, or None.
        metadata: ICC profile and EXIF data for these pixels.
        tile: side of the tiles in pixels, or None if the image was restored as a whole.
        turned_gray: whether it was a color image.
        dropped: metadata of the input that the output lacks, in words.
    """

    pixels: NDArray
    alpha: NDArray | None
    metadata: Metadata
    tile: int | None
    turned_gray: bool
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class Encoded:
    """The file of a restored image, with what the final message says about it."""

    data: bytes
    tile: int | None
    turned_gray: bool
    dropped: tuple[str, ...]


class ImageRestorer:
    """Restores image files of any bit depth and kind with a network for gray or RGB images.

    Args:
        restorer: applies the network to a whole image, or in tiles.
        channels: its number of input channels, 1 or 3.
        quality: of JPEG and WebP files, 1 to 100; None for the defaults of `irformer.imaging.images.encode_image`.
    """

    def __init__(self, restorer: NetworkRestorer | TiledRestorer, channels: int, quality: int | None) -> None:
        self.restorer = restorer
        self.channels = channels
        self.quality = quality

    @staticmethod
    def read(job: Job) -> DecodedImage:
        """Decode the input of a job, and check that the format of its output can hold it.

        Raises:
            UserError: it cannot be decoded, or not be written in the output format.
        """
        image = decode_image(job.source)
        require_writable_format(job.target, image)
        return image

    def restore(self, job: Job, image: DecodedImage) -> Restored:
        """Restore a decoded image.

        Raises:
            UserError: the network fails on the image, or its output is not finite.
        """
        pixels: NDArray = image.pixels
        turned_gray = self.channels == 1 and pixels.shape[2] == 3
        if turned_gray:
            pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[..., None]
        try:
            restored, tile = self._apply(pixels)
            alpha = None if image.alpha is None else self._alpha(image.alpha, restored.shape[:2])
        except (RuntimeError, MemoryError) as error:
            size = f"{pixels.shape[1]}x{pixels.shape[0]} pixels"
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"{job.source}: the network fails on {size} ({reason}): {self._remedy(error)}") from None
        metadata, dropped = self._metadata(image.metadata, job.target.suffix.lower(), restored, alpha)
        return Restored(restored, alpha, metadata, tile, turned_gray, dropped)

    def encode(self, job: Job, restored: Restored) -> Encoded:
        """Encode a restored image in the format of a job's output.

        Raises:
            UserError: the format cannot hold the image.
        """
        data = encode_image(job.target, restored.pixels, restored.alpha, restored.metadata, self.quality)
        return Encoded(data, restored.tile, restored.turned_gray, restored.dropped)

    @staticmethod
    def write(job: Job, encoded: Encoded) -> Encoded:
        """Write the output of a job; it appears complete or not at all.

        Raises:
            OSError: it cannot be written.
        """
        job.target.parent.mkdir(parents=True, exist_ok=True)
        # In a hidden folder next to the target: a temporary name made from the target's could be too long.
        with tempfile.TemporaryDirectory(dir=job.target.parent, prefix=".restore-") as folder:
            temporary = Path(folder) / job.target.name
            temporary.write_bytes(encoded.data)
            temporary.replace(job.target)
        return encoded

    def _apply(self, pixels: NDArray) -> tuple[NDArray, int | None]:
        """Restore [h, w, 1 or 3]; an RGB network receives gray as three equal channels, and its output channels are averaged."""
        if pixels.shape[2] == self.channels:
            return self._restore(pixels)
        restored, tile = self._restore(np.repeat(pixels, 3, axis=2))
        return restored.mean(2, keepdims=True, dtype=np.float64).round().astype(restored.dtype), tile

    def _restore(self, pixels: NDArray) -> tuple[NDArray, int | None]:
        if isinstance(self.restorer, TiledRestorer):
            return self.restorer.restore(pixels)
        return self.restorer(pixels), None

    def _alpha(self, alpha: NDArray, size: tuple[int, ...]) -> NDArray:
        """Restore alpha, [h, w] to [H, W]; a constant value, such as fully opaque, is preserved exactly."""
        return np.full(size, alpha[0, 0]) if (alpha == alpha[0, 0]).all() else self._apply(alpha[..., None])[0][..., 0]

    @staticmethod
    def _metadata(found: Metadata, suffix: str, restored: NDArray, alpha: NDArray | None) -> tuple[Metadata, tuple[str, ...]]:
        """Return the metadata for the output, and what is dropped, in words."""
        dropped = [f"a damaged {name}" if name == "ICC profile" else f"damaged {name}" for name in found.damaged]
        if suffix == ".bmp":
            dropped += ["metadata that BMP files cannot hold"] if found.icc or found.exif else []
            return NO_METADATA, tuple(dropped)
        height, width, channels = restored.shape
        as_color = channels == 3 or alpha is not None or suffix == ".webp"
        kept = found.describing(height, width, 3 if as_color else 1)
        if found.icc and not kept.icc:
            dropped.append("an ICC profile for other colors")
        return kept, tuple(dropped)

    def _remedy(self, error: Exception) -> str:
        if is_out_of_memory(error) and not isinstance(self.restorer, TiledRestorer):
            return "too large for memory; restore it in tiles with --tile auto"
        if is_out_of_memory(error) and isinstance(self.restorer, TiledRestorer) and self.restorer.tile != "auto":
            return "too large for memory; use a smaller --tile, or --tile auto"
        return "too small for it, or too large for memory"
