"""WebP: a RIFF file whose chunks lie within it, with one still image.

Pillow would not do: it allocates all pixels before it tells how many there are.
"""

from __future__ import annotations

from sfi_ros.errors import ImageError
from sfi_ros.frames.formats.opencv import OpenCvFile


def recognises(data: bytes) -> bool:
    """Whether a file begins as a WebP does."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def check(data: bytes) -> OpenCvFile:
    """Check the chunks of a WebP.

    Raises:
        ImageError: truncated, damaged, or an animation.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise ImageError(f"WebP of {len(data)} bytes is truncated: it announces {end}")
    canvas = size = None
    at = 12
    while at < end:
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        content = data[at + 8 : at + 8 + length]
        if at + 8 + length > end:
            raise ImageError(f"WebP is damaged: a chunk reaches {at + 8 + length - end} bytes beyond it")
        if kind == b"VP8X" and canvas is None and size is None and length >= 10:
            canvas = (_unsigned(content[4:7]) + 1, _unsigned(content[7:10]) + 1)
        elif kind in (b"VP8 ", b"VP8L") and size is None:
            size = _lossy_size(content) if kind == b"VP8 " else _lossless_size(content)
        elif kind in (b"ANIM", b"ANMF"):
            raise ImageError("WebP is an animation, not one image: export its frames")
        elif kind in (b"VP8X", b"VP8 ", b"VP8L"):
            raise ImageError(f"WebP is damaged: chunk {kind.decode()} is not where it belongs")
        at += 8 + length + length % 2
    if size is None:
        raise ImageError("WebP is damaged: it holds no image")
    if canvas not in (None, size):
        raise ImageError("WebP is damaged: its two headers give different sizes")
    return OpenCvFile("WebP", *size, data[:end])


def _lossy_size(content: bytes) -> tuple[int, int]:
    if content[3:6] != b"\x9d\x01\x2a" or content[0] & 1:
        raise ImageError("WebP is damaged: no frame header")
    return _unsigned(content[6:8]) & 0x3FFF, _unsigned(content[8:10]) & 0x3FFF


def _lossless_size(content: bytes) -> tuple[int, int]:
    if content[:1] != b"\x2f":
        raise ImageError("WebP is damaged: no frame header")
    bits = _unsigned(content[1:5])
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _unsigned(content: bytes) -> int:
    return int.from_bytes(content, "little")
