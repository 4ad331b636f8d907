"""An image file whose structure is in order: what each module of `formats` returns."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class ImageFile:
    """An image file that a decoder may see.

    Attributes:
        kind: name of the format.
        width, height: in pixels, from the header.
        data: what is decoded, by OpenCV unless a format has its own way.
    """

    kind: str
    width: int
    height: int
    data: bytes

    def decode(self, flags: int) -> np.ndarray | None:
        """Decode with OpenCV's flags; (H, W) or (H, W, 3) uint8 or uint16, None where that is not possible.

        Raises:
            ImageError: damaged.
            cv2.error: OpenCV cannot, either.
        """
        return cv2.imdecode(np.frombuffer(self.data, np.uint8), flags)
