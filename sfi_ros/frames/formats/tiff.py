"""TIFF, by Pillow: it reads the size without the pixels, and notices damaged strips and tiles that OpenCV overlooks."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from sfi_ros.errors import ImageError
from sfi_ros.frames.formats.image_file import ImageFile

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile


@dataclass(frozen=True)
class Tiff(ImageFile):
    """A TIFF whose header Pillow has read.

    Attributes:
        image: its pixels when they are loaded.
        depth: bits per channel.
    """

    image: TiffImageFile
    depth: int

    def decode(self, flags: int) -> np.ndarray | None:
        """Decode with OpenCV's flags; without IMREAD_ANYDEPTH, 16-bit images keep their upper eight bits.

        Raises:
            ImageError: damaged, or pixels are missing.
        """
        try:
            self.image.load()
            if self.depth <= 8:
                return cv2.cvtColor(np.asarray(self.image.convert("RGB")), cv2.COLOR_RGB2BGR)
        except Exception as error:  # OSError, ValueError, struct.error, ...: whatever Pillow comes upon
            raise ImageError(f"TIFF of {self.width}x{self.height} is damaged or truncated: {error}") from error
        # Pillow has no colours of 16 bits. OpenCV does, and rounds where it is asked for 8 bits.
        pixels = super().decode(flags | cv2.IMREAD_ANYDEPTH)
        if pixels is None or flags & cv2.IMREAD_ANYDEPTH:
            return pixels
        return (pixels >> 8).astype(np.uint8)


def recognises(data: bytes) -> bool:
    """Whether a file begins as a TIFF does."""
    return data[:4] in (b"II*\0", b"MM\0*")


def check(data: bytes) -> Tiff:
    """Read the header of a TIFF.

    Raises:
        ImageError: damaged, truncated, or of a kind that is not decoded.
    """
    # Not imported above: TIFFs are rare. Not by `Image.open`: it has a limit of size of its own.
    from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

    try:
        image = TiffImageFile(io.BytesIO(data))
        depth = max(image.tag_v2.get(BITSPERSAMPLE, (1,)))
    except Exception as error:
        raise ImageError(f"TIFF is damaged, has no pixels, or is of a kind that is not decoded: {error}") from error
    # Pillow only warns of a directory that is cut off, and leaves its own place for that of the next one.
    if image.tag_v2.next == int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big"):
        raise ImageError(f"TIFF of {len(data)} bytes is truncated: its directory lies beyond it")
    if image.mode in ("I", "F"):
        raise ImageError("TIFF is of a kind that is not decoded: save it as PNG, or with 8 or 16 bits per channel")
    return Tiff("TIFF", *image.size, data, image, depth)
