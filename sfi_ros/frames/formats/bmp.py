"""BMP without compression: its pixels lie within the file.

Pillow would do, but takes ten times as long as OpenCV for the pixels.
"""

from __future__ import annotations

import struct

from sfi_ros.errors import ImageError
from sfi_ros.frames.formats.image_file import ImageFile

_RGB, _BIT_FIELDS = 0, 3


def recognises(data: bytes) -> bool:
    """Whether a file begins as a BMP does."""
    return data[:2] == b"BM"


def check(data: bytes) -> ImageFile:
    """Check the header of a BMP.

    Raises:
        ImageError: truncated, damaged, or compressed.
    """
    if len(data) < 54:
        raise ImageError(f"BMP of {len(data)} bytes is truncated: it has no header")
    pixels_at, header, width, height, planes, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    height = abs(height)  # negative where the first row is the upper one
    if header < 40 or planes != 1 or bits not in (1, 4, 8, 16, 24, 32) or pixels_at < 14 + header or width < 0:
        raise ImageError("BMP is damaged, or of a kind that is not decoded: save it as PNG")
    if compression not in (_RGB, _BIT_FIELDS):
        raise ImageError("BMP is compressed, which is not decoded: save it as PNG")
    needed = pixels_at + (width * bits + 31) // 32 * 4 * height
    if needed > len(data):
        raise ImageError(f"BMP of {len(data)} bytes is truncated: {width}x{height} pixels need {needed}")
    return ImageFile("BMP", width, height, data)
