"""From probabilities to what a scene says: the same decision by NumPy and OpenCV on the host, and by PyTorch on a GPU.

Both return planes in the order of the fields of `Scene`.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Planes = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def decide_on_host(probabilities: np.ndarray, size: tuple[int, int], threshold: float) -> Planes:
    """Decide on one image.

    Probabilities, not classes, are resized, so that borders are smooth; as bytes, they resize several times faster
    than as floats. Every plane is decided on by itself: NumPy has no fast argmax over three.

    Args:
        probabilities: (4, h, w) uint8, 255 = 1: of foreground, road, sidewalk and other.
        size: (height, width) of the result.
        threshold: probability above which a pixel is foreground, 0 to 1.

    Returns:
        Foreground 0 or 1, class, confidence 0..255 and probability of foreground 0..255; each (*size) uint8.
    """
    planes = probabilities
    if planes.shape[1:] != size:
        enlarged = np.empty((len(planes), *size), np.uint8)  # OpenCV's own memory is new to the process every time
        for plane, out in zip(planes, enlarged, strict=True):
            cv2.resize(plane, size[::-1], dst=out)
        planes = enlarged
    objects, road, sidewalk, other = planes
    best_of_two = np.maximum(road, sidewalk)
    is_sidewalk = (sidewalk > road).view(np.uint8)
    is_other = (other > best_of_two).view(np.uint8)
    classes = np.maximum(is_sidewalk, 2 * is_other, out=is_sidewalk)
    confidence = np.maximum(best_of_two, other, out=best_of_two)
    foreground = objects > math.floor(255 * threshold)  # of whole numbers: a comparison with a float is slow
    return foreground.view(np.uint8), classes, confidence, objects


def decide_on_device(probabilities: Tensor, size: tuple[int, int], threshold: Tensor) -> Tensor:
    """Decide on a batch, on any device, without looking at a value on the host.

    Args:
        probabilities: (N, 4, h, w) floating point of 0..1, as for `decide_on_host`.
        size: (height, width) of the result.
        threshold: () floating point, probability above which a pixel is foreground.

    Returns:
        (N, 4, *size) uint8, the planes of `decide_on_host`.
    """
    if probabilities.shape[-2:] != size:
        probabilities = F.interpolate(probabilities, size=size, mode="bilinear", align_corners=False)
    objects = probabilities[:, 0]
    confidence, classes = probabilities[:, 1:].max(1)
    planes = (objects > threshold, classes, (confidence * 255).round_(), (objects * 255).round_())
    return torch.stack([plane.to(torch.uint8) for plane in planes], 1)
