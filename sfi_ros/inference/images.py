"""Which arrays an engine accepts."""

from __future__ import annotations

from typing import Final

import numpy as np

from sfi_ros.errors import ImageError

MAX_SIDE: Final = 16384
"""Pixels; anything larger is taken for a mistake."""

MAX_ASPECT: Final = 16.0
"""Longer side over shorter side; beyond it the network's input would be a sliver or enormous."""


def check_image(image: object, position: int | None = None) -> np.ndarray:
    """Return `image` if it is an RGB image as cameras give it.

    Args:
        image: (H, W, 3) uint8.
        position: its place in a list, for the message.

    Raises:
        ImageError: it is not; says what came and what is accepted.
    """
    name = "image" if position is None else f"image {position} of the list"
    accepted = f"accepted is an H x W x 3 uint8 RGB array of at most {MAX_SIDE} pixels a side"
    if not isinstance(image, np.ndarray):
        raise ImageError(f"{name} is a {type(image).__name__}; {accepted}")
    what = f"{name} has shape {image.shape} and dtype {image.dtype}"
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(f"{what}; {accepted}")
    height, width = image.shape[:2]
    if min(height, width) == 0 or max(height, width) > MAX_SIDE:
        raise ImageError(f"{what}; {accepted}")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ImageError(f"{what}; its sides differ by more than a factor of {MAX_ASPECT:g}")
    return image
