"""What an image file says about its pixels: the ICC profile and EXIF data."""

import io
import warnings
import zlib
from dataclasses import dataclass, replace

from PIL.TiffImagePlugin import TiffImageFile

from irformer.imaging.exif import exif_of_tiff, upright_exif
from irformer.imaging.headers import FileHeader

_LARGEST_PROFILE = 64 * 2**20  # bytes to which the compressed profile of a PNG may grow


@dataclass(frozen=True)
class Metadata:
    """The metadata of an image file.

    Args:
        icc: ICC profile; empty if there is none.
        exif: EXIF data, from the byte order mark on; empty if there are none.
        damaged: what the file contains but cannot be read, in words.
    """

    icc: bytes = b""
    exif: bytes = b""
    damaged: tuple[str, ...] = ()

    def describing(self, height: int, width: int, channels: int) -> "Metadata":
        """Return the metadata for an upright image with other pixels; what does not apply to them is dropped.

        Args:
            height: in pixels.
            width: in pixels.
            channels: 1 (gray) or 3 (RGB).
        """
        space = {1: b"GRAY", 3: b"RGB "}[channels]
        exif = upright_exif(self.exif, height, width) if self.exif else b""
        return replace(self, icc=self.icc if self.icc[16:20] == space else b"", exif=exif or b"")


NO_METADATA = Metadata()


def read_metadata(data: bytes, header: FileHeader) -> Metadata:
    """Read the metadata of an image file.

    Args:
        data: content of the file.
        header: header of the same file, of which the whole file was parsed.
    """
    icc, exif = header.icc, header.exif
    damaged = []
    if header.format == "PNG" and icc:
        icc = _uncompressed(icc)
    if icc[36:40] != b"acsp":  # the signature of ICC profiles
        damaged += ["ICC profile"] if header.icc else []
        icc = b""
    if header.format == "TIFF":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exif = exif_of_tiff(TiffImageFile(io.BytesIO(data)))
        except Exception:  # tags may hold anything
            damaged.append("EXIF data")
    elif exif and upright_exif(exif, 1, 1) is None:
        damaged.append("EXIF data")
        exif = b""
    return Metadata(icc, exif, tuple(damaged))


def _uncompressed(chunk: bytes) -> bytes:
    """Return the profile in the iCCP chunk of a PNG: a name, a zero, the compression method, and the compressed profile."""
    try:
        return zlib.decompressobj().decompress(chunk[chunk.index(0) + 2 :], _LARGEST_PROFILE)
    except (ValueError, zlib.error):
        return b""
