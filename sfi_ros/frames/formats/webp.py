"""WebP: one still image, of the size that its first chunk tells. libwebp itself notices what is missing behind it.

Pillow would not do: it allocates all pixels before it tells how many there are.
"""

from __future__ import annotations

from sfi_ros.errors import ImageError
from sfi_ros.frames.formats.image_file import ImageFile

_ANIMATION = 0x02
_LARGEST = 0x3FFF


def recognises(data: bytes) -> bool:
    """Whether a file begins as a WebP does."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def check(data: bytes) -> ImageFile:
    """Read the first chunk of a WebP.

    Raises:
        ImageError: truncated, damaged, or an animation.
    """
    announced, kind, content = 8 + _unsigned(data[4:8]), data[12:16], data[20:30]
    if announced > len(data) or len(content) < 10:
        raise ImageError(f"WebP of {len(data)} bytes is truncated: it announces {announced}")
    if kind == b"VP8X":  # extended: libwebp refuses an image in it that has another size
        if content[0] & _ANIMATION:
            raise ImageError("WebP is an animation, not one image: export its frames")
        size = _unsigned(content[4:7]) + 1, _unsigned(content[7:10]) + 1
    elif kind == b"VP8 " and content[3:6] == b"\x9d\x01\x2a":  # lossy
        size = _unsigned(content[6:8]) & _LARGEST, _unsigned(content[8:10]) & _LARGEST
    elif kind == b"VP8L" and content[:1] == b"\x2f":  # lossless
        bits = _unsigned(content[1:5])
        size = (bits & _LARGEST) + 1, (bits >> 14 & _LARGEST) + 1
    else:
        raise ImageError("WebP is damaged: no frame header")
    return ImageFile("WebP", *size, data[:announced])


def _unsigned(content: bytes) -> int:
    return int.from_bytes(content, "little")
