"""A file that is ready for OpenCV."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class OpenCvFile:
    """A file whose structure is in order; see `decoding.Checked`.

    Attributes:
        kind: name of the format.
        width, height: in pixels, from the header.
        data: what OpenCV decodes.
    """

    kind: str
    width: int
    height: int
    data: bytes

    def decode(self, flags: int) -> np.ndarray | None:
        """Decode with OpenCV's flags; None where OpenCV cannot.

        Raises:
            cv2.error: OpenCV cannot, either.
        """
        return cv2.imdecode(np.frombuffer(self.data, np.uint8), flags)
