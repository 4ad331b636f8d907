"""TIFF: the first image's directory and its strips or tiles lie within the file."""

from __future__ import annotations

import struct
from typing import Final

from sfi_ros.errors import ImageError
from sfi_ros.frames.formats.opencv import OpenCvFile

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _CHANNELS, _PLANAR, _SAMPLES = 256, 257, 258, 259, 277, 284, 339
_STRIPS, _ROWS, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_NONE, _LZW, _DEFLATE, _ADOBE_DEFLATE, _PACK_BITS = 1, 5, 32946, 8, 32773
_SIZES: Final = {1: 1, 3: 2, 4: 4}  # bytes of a number, by its type: BYTE, SHORT, LONG


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
        return OpenCvFile("TIFF", width, height, data)
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
    for number, (offset, length) in enumerate(zip(offsets, lengths, strict=True), start=1):
        if offset + length > len(data) or (compression == _NONE and length < (last if number == pieces else size)):
            raise ImageError(f"TIFF of {len(data)} bytes is truncated: its pixels are not all there")
    return OpenCvFile("TIFF", width, height, data)


def _directory(data: bytes) -> dict[int, tuple[int, ...]]:
    """The whole numbers of the first directory by tag."""
    order = "<" if data[:2] == b"II" else ">"
    tags: dict[int, tuple[int, ...]] = {}
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
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
