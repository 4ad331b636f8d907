"""TIFF: the first image's directory and its strips or tiles lie within the file and can hold what the header says.

Damage inside a strip that is compressed with LZW or PackBits, which have no checksum, changes pixels unnoticed, as it
does in a JPEG.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from sfi_ros.errors import ImageError
from sfi_ros.frames.formats.opencv import OpenCvFile

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _CHANNELS, _PLANAR, _SAMPLES = 256, 257, 258, 259, 277, 284, 339
_STRIPS, _ROWS, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_NONE, _LZW, _DEFLATE, _ADOBE_DEFLATE, _PACK_BITS = 1, 5, 32946, 8, 32773
_MOST_EXPANSION: Final = {_NONE: 1, _LZW: 4096, _PACK_BITS: 64}  # of one byte
_SIZES: Final = {1: 1, 3: 2, 4: 4}  # bytes of a number, by its type: BYTE, SHORT, LONG


@dataclass(frozen=True)
class Tiff(OpenCvFile):
    """A TIFF.

    Attributes:
        pieces: (place, length, bytes when decompressed) of each strip or tile.
        compression: of the pieces.
    """

    pieces: tuple[tuple[int, int, int], ...]
    compression: int

    def decode(self, flags: int) -> np.ndarray | None:
        """Decode with OpenCV's flags; without IMREAD_ANYDEPTH, 16-bit images keep their upper eight bits.

        Raises:
            ImageError: a strip or tile does not hold the pixels that it should.
        """
        for number, (at, length, size) in enumerate(self.pieces, start=1):
            if not _holds(self.data[at : at + length], size, self.compression):
                raise ImageError(f"TIFF of {self.width}x{self.height} is damaged: piece {number} lacks pixels")
        # OpenCV rounds where it is asked for 8 bits.
        pixels = super().decode(flags | cv2.IMREAD_ANYDEPTH)
        if pixels is None or pixels.dtype == np.uint8 or flags & cv2.IMREAD_ANYDEPTH:
            return pixels
        return (pixels >> 8).astype(np.uint8)


def recognises(data: bytes) -> bool:
    """Whether a file begins as a TIFF does."""
    return data[:4] in (b"II*\0", b"MM\0*")


def check(data: bytes) -> OpenCvFile:
    """Check the first directory of a TIFF.

    Raises:
        ImageError: truncated, damaged, or of a kind that is not decoded.
    """
    tags = _directory(data)
    width, height, channels = _number(tags, _WIDTH), _number(tags, _HEIGHT), _number(tags, _CHANNELS, 1)
    bits, samples = set(tags.get(_BITS, (1,))), set(tags.get(_SAMPLES, (1,)))
    compression, planar = _number(tags, _COMPRESSION, _NONE), _number(tags, _PLANAR, 1)
    if bits not in ({8}, {16}) or samples != {1} or channels not in (1, 2, 3, 4) or planar != 1:
        raise ImageError("TIFF is of a kind that is not decoded: save it as PNG, or with 8 or 16 bits per channel")
    if compression not in (_NONE, _LZW, _DEFLATE, _ADOBE_DEFLATE, _PACK_BITS):
        raise ImageError(f"TIFF has compression {compression}, which is not decoded: save it with LZW or as PNG")
    if not width or not height:
        return Tiff("TIFF", width, height, data, (), compression)
    pixel = channels * max(bits) // 8
    if _TILES in tags:
        across, down = _number(tags, _TILE_WIDTH), _number(tags, _TILE_HEIGHT)
        if not (0 < across < width + 1024 and 0 < down < height + 1024) or across % 16 or down % 16:
            raise ImageError(f"TIFF is damaged: tiles of {across}x{down}")
        offsets, lengths = tags[_TILES], tags.get(_TILE_BYTES, ())
        pieces, size, last = -(-width // across) * -(-height // down), across * down * pixel, across * down * pixel
    else:
        rows = min(_number(tags, _ROWS, height), height)
        if not rows:
            raise ImageError("TIFF is damaged: strips without rows")
        offsets, lengths = tags.get(_STRIPS, ()), tags.get(_STRIP_BYTES, ())
        pieces, size = -(-height // rows), rows * width * pixel
        last = height * width * pixel - (pieces - 1) * size
    if len(offsets) != pieces or len(lengths) != pieces:
        raise ImageError(f"TIFF is damaged: {len(offsets)} pieces where there should be {pieces}")
    sizes = [*[size] * (pieces - 1), last]
    if any(offset + length > len(data) for offset, length in zip(offsets, lengths, strict=True)):
        raise ImageError(f"TIFF of {len(data)} bytes is truncated: its pixels are not all there")
    return Tiff("TIFF", width, height, data, tuple(zip(offsets, lengths, sizes, strict=True)), compression)


def _holds(piece: bytes, size: int, compression: int) -> bool:
    """Whether a strip or tile can have so many bytes when it is decompressed."""
    if compression not in (_DEFLATE, _ADOBE_DEFLATE):
        return len(piece) * _MOST_EXPANSION[compression] >= size
    with suppress(zlib.error):
        return len(zlib.decompressobj().decompress(piece, size)) == size if size else True
    return False


def _directory(data: bytes) -> dict[int, tuple[int, ...]]:
    """Return the whole numbers of the first directory by tag."""
    order = "<" if data[:2] == b"II" else ">"
    tags: dict[int, tuple[int, ...]] = {}
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        struct.unpack_from(f"{order}I", data, at + 2 + 12 * count)  # where the next directory is, the end of this one
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, amount = struct.unpack_from(f"{order}HHI", data, entry)
            size = _SIZES.get(kind)
            if size is None:
                continue
            place = entry + 8 if amount * size <= 4 else struct.unpack_from(f"{order}I", data, entry + 8)[0]
            if place + amount * size > len(data):
                raise ImageError(f"TIFF of {len(data)} bytes is truncated: tag {tag} lies beyond it")
            if tag in tags:
                raise ImageError(f"TIFF is damaged: tag {tag} occurs twice")
            tags[tag] = struct.unpack_from(f"{order}{amount}{'BHI'[size // 2]}", data, place)
    except struct.error as error:
        raise ImageError(f"TIFF of {len(data)} bytes is truncated: its directory lies beyond it") from error
    return tags


def _number(tags: dict[int, tuple[int, ...]], tag: int, default: int | None = None) -> int:
    numbers = tags.get(tag) or (() if default is None else (default,))
    if len(numbers) != 1:
        raise ImageError(f"TIFF is damaged: tag {tag} has {len(numbers)} values where one is needed")
    return numbers[0]
