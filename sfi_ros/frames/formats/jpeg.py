"""JPEG: the markers are walked as libjpeg does, so that the size is the one it will decode and the end is there.

Pillow would not do: it takes pixels that end early for a good image, and decodes at half of OpenCV's speed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from sfi_ros.errors import ImageError
from sfi_ros.frames.formats.image_file import ImageFile

_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_RESTARTS: Final = range(0xD0, 0xD8)
_FRAMES: Final = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, with Huffman codes
_OTHER_FRAMES: Final = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)  # lossless, arithmetic codes, ...
_MOST_SCANS: Final = 50
"""A progressive JPEG has about ten. Each costs as much as the whole image, and takes a few bytes of file."""
# Within a scan, ff 00 is a data byte, and restart markers and fill bytes (ff ff) go on with it.
_END_OF_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_GREY: Final = 128  # libjpeg's for pixels that a scan has no data for
_MORE_DATA: Final = bytes(range(255))  # for a scan: no marker, and whatever codes the image uses


@dataclass(frozen=True)
class Jpeg(ImageFile):
    """A JPEG with an end-of-image marker.

    Attributes:
        end: where the last scan ends in `data`.
    """

    end: int

    def decode(self, flags: int) -> np.ndarray | None:
        """Decode with OpenCV's flags; None where OpenCV cannot.

        Raises:
            ImageError: the scan ends before the image does: what a copy has lost was closed by an end-of-image marker.
            cv2.error: OpenCV cannot, either.
        """
        pixels = super().decode(flags)
        if pixels is not None and _has_grey_corner(pixels):
            longer = replace(self, data=self.data[: self.end] + _MORE_DATA + self.data[self.end :])
            again = ImageFile.decode(longer, flags)
            if again is None or not np.array_equal(pixels, again):  # more is read only where something is missing
                raise ImageError(f"JPEG of {self.width}x{self.height} is damaged: its pixels end before the image does")
        return pixels


def _has_grey_corner(pixels: np.ndarray) -> bool:
    """Whether the image may lack its end, which an EXIF tag can turn to any corner."""
    return any(bool((pixels[y, x] == _GREY).all()) for y in (0, -1) for x in (0, -1))


def recognises(data: bytes) -> bool:
    """Whether a file begins as a JPEG does."""
    return data.startswith(b"\xff\xd8\xff")


def check(data: bytes) -> Jpeg:
    """Check the markers of a JPEG up to its end; some cameras pad behind it.

    Raises:
        ImageError: truncated, damaged, or of a kind that is not decoded.
    """
    size: tuple[int, int] | None = None
    scans, at, end = 0, 2, 0
    while True:
        marker, at = _marker(data, at)
        if marker == _EOI:
            break
        # These have no length, and no encoder writes them here: readers that disagree about it see different images.
        if marker in (_SOI, _TEM, 0x00) or marker in _RESTARTS:
            raise ImageError(f"JPEG is damaged: marker ff {marker:02x} outside of a scan")
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            raise _truncated(data)
        if marker in _OTHER_FRAMES:
            raise ImageError("JPEG is lossless or arithmetically coded, which is not decoded: save it as a usual JPEG")
        if marker in _FRAMES:
            if size is not None:
                raise ImageError("JPEG is damaged: two frame headers")
            size = _size(data[at : at + length])
        at += length
        if marker == _SOS:
            if size is None:
                raise ImageError("JPEG is damaged: no frame header before its pixels")
            scans += 1
            if scans > _MOST_SCANS:
                raise ImageError(f"JPEG has more than {_MOST_SCANS} scans")
            found = _END_OF_SCAN.search(data, at)
            if found is None:
                raise _truncated(data)
            at = end = found.start()
    if size is None:
        raise ImageError(f"JPEG of {len(data)} bytes is damaged: no frame header")
    if not scans:
        raise ImageError("JPEG is damaged: it has no pixels behind its header")
    return Jpeg("JPEG", *size, data, end)


def _marker(data: bytes, at: int) -> tuple[int, int]:
    """Return the marker at a place, and the place behind it."""
    if at < len(data) and data[at] != 0xFF:
        raise ImageError(f"JPEG is damaged: no marker at byte {at}")
    while at < len(data) and data[at] == 0xFF:  # fill bytes
        at += 1
    if at >= len(data):
        raise _truncated(data)
    return data[at], at + 1


def _size(header: bytes) -> tuple[int, int]:
    """Width and height of a frame header, from its length field on."""
    if len(header) < 8 or len(header) != 8 + 3 * header[7]:
        raise ImageError(f"JPEG is damaged: a frame header of {len(header)} bytes")
    if header[2] != 8:
        raise ImageError(f"JPEG has {header[2]} bits per channel; only those with 8 are decoded")
    if header[7] not in (1, 3, 4):
        raise ImageError(f"JPEG has {header[7]} channels; only those with 1, 3 or 4 are decoded")
    return int.from_bytes(header[5:7], "big"), int.from_bytes(header[3:5], "big")


def _truncated(data: bytes) -> ImageError:
    return ImageError(f"JPEG of {len(data)} bytes is truncated: it has no end-of-image marker")
