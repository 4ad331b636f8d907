"""Places in a labelled street: where road and sidewalk meet, and sidewalk beside or behind objects."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

from sfi_ros.classes import BACKGROUND_CLASSES

_ROAD, _SIDEWALK = BACKGROUND_CLASSES.index("road"), BACKGROUND_CLASSES.index("sidewalk")


def curb(background: Tensor, reach: int = 3) -> np.ndarray:
    """Find where road and sidewalk meet.

    Args:
        background: (H, W) uint8, 0 road, 1 sidewalk, anything else.
        reach: how far they may be from a pixel that is a meeting place, in pixels: twice as far from each other.

    Returns:
        (H, W) bool, True where both are within reach.
    """
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    road, sidewalk = (
        cv2.dilate((background.numpy() == kind).view(np.uint8), square) > 0 for kind in (_ROAD, _SIDEWALK)
    )
    return road & sidewalk


def sidewalk_at_objects(background: Tensor, foreground: Tensor, reach: float = 1 / 16) -> np.ndarray:
    """Find sidewalk behind objects, as far as it is known there, and beside them.

    Args:
        background: (H, W) uint8, 1 is sidewalk.
        foreground: (H, W) uint8, 1 on objects.
        reach: how far from an object, as a share of the height.

    Returns:
        (H, W) bool.
    """
    side = 2 * round(reach * len(background)) + 1
    square = np.ones((side, side), np.uint8)
    near = cv2.dilate((foreground.numpy() == 1).view(np.uint8), square) > 0
    return near & (background.numpy() == _SIDEWALK)
