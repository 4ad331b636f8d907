"""PGM and PPM, read without a decoder: their pixels are plain numbers.

Pillow would not do: it rounds 16-bit colours to 8 bits, where all other formats keep the upper eight.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from sfi_ros.errors import ImageError
from sfi_ros.frames.formats.image_file import ImageFile

_SPACE: Final = rb"(?:\s|#[^\r\n]*[\r\n])+"  # and comments
_HEADER: Final = re.compile(rb"P[2356]%b(\d{1,9})%b(\d{1,9})%b(\d{1,5})\s" % (_SPACE, _SPACE, _SPACE))


@dataclass(frozen=True)
class Netpbm(ImageFile):
    """A PGM or PPM, whose `data` are the numbers behind its header.

    Attributes:
        largest: value that means white, 1 to 65535.
        is_text: the numbers are decimal ones, not bytes.
    """

    largest: int
    is_text: bool

    def decode(self, flags: int) -> np.ndarray:
        """Decode as IMREAD_COLOR does: (H, W, 3) uint8 BGR. The upper eight bits of 12 and 16-bit cameras are kept.

        Raises:
            ImageError: too few numbers, or text that is none.
        """
        channels = 3 if self.kind == "PPM" else 1
        numbers = self._numbers(self.height * self.width * channels)
        bits = self.largest.bit_length()
        if self.largest == 2**bits - 1 and bits >= 8:
            pixels = (numbers >> (bits - 8)).astype(np.uint8)
        else:
            pixels = (numbers.astype(np.uint32) * 255 // self.largest).astype(np.uint8)
        pixels = pixels.reshape(self.height, self.width, channels)
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if channels == 3 else cv2.COLOR_GRAY2BGR)

    def _numbers(self, count: int) -> np.ndarray:
        """(count,) uint16 or uint8, none above `largest`."""
        if self.is_text:
            if not re.fullmatch(rb"[\d\s]*", self.data):
                raise ImageError(f"{self.kind} is damaged: not only numbers behind its header")
            numbers = np.fromstring(self.data, np.int32, sep=" ")[:count] if self.data.strip() else np.empty(0, int)
        else:
            dtype = np.dtype(np.uint8 if self.largest < 256 else ">u2")
            numbers = np.frombuffer(self.data, dtype, min(count, len(self.data) // dtype.itemsize))
        if len(numbers) < count:
            raise ImageError(f"{self.kind} is truncated: it has {len(numbers)} of {count} numbers")
        if numbers.max(initial=0) > self.largest or numbers.min(initial=0) < 0:
            raise ImageError(f"{self.kind} is damaged: a number above its largest, {self.largest}")
        return numbers


def recognises(data: bytes) -> bool:
    """Whether a file begins as a PGM or PPM does."""
    return bool(re.match(rb"P[2356][\s#]", data))


def check(data: bytes) -> Netpbm:
    """Read the header of a PGM or PPM.

    Raises:
        ImageError: damaged.
    """
    header = _HEADER.match(data)
    if header is None:
        raise ImageError("PGM or PPM is damaged: no header of width, height and largest value")
    width, height, largest = map(int, header.groups())
    if not 1 <= largest <= 65535:
        raise ImageError(f"PGM or PPM is damaged: its largest value is {largest}")
    kind = "PPM" if data[1:2] in b"36" else "PGM"
    return Netpbm(kind, width, height, data[header.end() :], largest, data[1:2] in b"23")
