"""PNG: every chunk lies within the file and has the right checksum, and OpenCV gets only those that make pixels.

Pillow would not do: it has no colours of 16 bits, and refuses an image for a text or colour profile that inflates to
much.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from sfi_ros.errors import ImageError
from sfi_ros.frames.formats.image_file import ImageFile

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

_CHANNELS: Final = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; a palette's entries have three
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PALETTE: Final = 3
_MOST_EXPANSION: Final = 1032  # of one byte by inflate
_DECODED: Final = (b"IHDR", b"PLTE", b"eXIf", b"IDAT", b"IEND")


@dataclass(frozen=True)
class Png(ImageFile):
    """A PNG.

    Attributes:
        channels: 1 grey, 2 grey and alpha, 3 colours or palette, 4 colours and alpha.
        depth: bits per channel.
        compressed: bytes of compressed pixels.
    """

    channels: int
    depth: int
    compressed: int

    def decode(self, flags: int) -> np.ndarray | None:
        """Decode with OpenCV's flags, unless the file is too small to hold what its header announces.

        Raises:
            ImageError: it is.
        """
        row = self.width * self.depth // 8  # of one channel, at least
        if self.compressed * _MOST_EXPANSION < row * self.height:
            size = f"{self.width}x{self.height}"
            raise ImageError(f"PNG of {size} is damaged: {self.compressed} bytes cannot hold so many pixels")
        return super().decode(flags)


def recognises(data: bytes) -> bool:
    """Whether a file begins as a PNG does."""
    return data.startswith(SIGNATURE)


def check(data: bytes) -> Png:
    """Check the chunks of a PNG.

    What does not make pixels is left out: text and colour profiles, which may be compressed and inflate to anything,
    transparency, and the further frames of an animation.

    Raises:
        ImageError: truncated or damaged.
    """
    kept, at = [SIGNATURE], len(SIGNATURE)
    width = height = depth = colour = compressed = 0
    seen: set[bytes] = set()
    while b"IEND" not in seen:
        if at + 12 > len(data):
            raise ImageError(f"PNG of {len(data)} bytes is truncated: it has no end")
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        name = kind.decode("latin-1")
        if not kind.isalpha():
            raise ImageError(f"PNG is damaged: no chunk at byte {at}")
        if end > len(data):
            raise ImageError(f"PNG of {len(data)} bytes is truncated: chunk {name} announces {length} bytes")
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageError(f"PNG is damaged: chunk {name} has a wrong checksum")
        if (kind == b"IHDR") == bool(seen):
            raise ImageError("PNG is damaged: its header is not where it belongs")
        if kind == b"IHDR":
            width, height, depth, colour = _header(data[at + 8 : end - 4])
        elif kind == b"PLTE" and (length % 3 or not 3 <= length <= 768 or kind in seen):
            raise ImageError(f"PNG is damaged: a palette of {length} bytes")
        elif kind == b"IDAT":
            compressed += length
        elif kind[:1].isupper() and kind not in _DECODED:
            raise ImageError(f"PNG cannot be decoded: it needs an unknown chunk {name}")
        if kind in _DECODED:
            kept.append(data[at:end])
        seen.add(kind)
        at = end
    if colour == _PALETTE and b"PLTE" not in seen:
        raise ImageError("PNG is damaged: it has no palette")
    return Png("PNG", width, height, b"".join(kept), _CHANNELS[colour], depth, compressed)


def _header(content: bytes) -> tuple[int, int, int, int]:
    """Width, height, bits per channel and colour type."""
    if len(content) != 13:
        raise ImageError(f"PNG is damaged: a header of {len(content)} bytes")
    width, height, depth, colour, compression, filters, interlace = struct.unpack(">IIBBBBB", content)
    if depth not in _DEPTHS.get(colour, ()) or compression or filters or interlace > 1:
        raise ImageError("PNG is damaged: its header names a kind of pixels that does not exist")
    return width, height, depth, colour
