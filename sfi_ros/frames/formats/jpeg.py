"""JPEG: the markers are walked as libjpeg does, so that the size is the one it will decode and the end is there."""

from __future__ import annotations

import re
from typing import Final

from sfi_ros.errors import ImageError
from sfi_ros.frames.formats.opencv import OpenCvFile

_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_RESTARTS: Final = range(0xD0, 0xD8)
_FRAMES: Final = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, with Huffman codes
_OTHER_FRAMES: Final = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)  # lossless, arithmetic codes, ...
_MOST_SCANS: Final = 50
"""A progressive JPEG has about ten. Each costs as much as the whole image, and takes a few bytes of file."""
# Within a scan, ff 00 is a data byte, and restart markers and fill bytes (ff ff) go on with it.
_END_OF_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def recognises(data: bytes) -> bool:
    """Whether a file begins as a JPEG does."""
    return data.startswith(b"\xff\xd8\xff")


def check(data: bytes) -> OpenCvFile:
    """Check the markers of a JPEG up to its end; some cameras pad behind it.

    Raises:
        ImageError: truncated, damaged, or of a kind that is not decoded.
    """
    size: tuple[int, int] | None = None
    scans, at = 0, 2
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
            end = _END_OF_SCAN.search(data, at)
            if end is None:
                raise _truncated(data)
            at = end.start()
    if size is None:
        raise ImageError(f"JPEG of {len(data)} bytes is damaged: no frame header")
    if not scans:
        raise ImageError("JPEG is damaged: it has no pixels behind its header")
    return OpenCvFile("JPEG", *size, data)


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
