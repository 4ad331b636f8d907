"""A picture as a file that is either whole or not there."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sfi_ros.files import write_bytes


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture.

    Args:
        path: whose suffix says the format.
        picture: (H, W, 3) RGB or (H, W), uint8.

    Raises:
        WriteError: it cannot be written.
    """
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(path.suffix, picture)
    write_bytes(path, encoded.data)
