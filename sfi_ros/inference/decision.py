"""From logits to probabilities, and from these to what a scene says, by NumPy and OpenCV.

`cuda_pipeline` decides the same on a GPU.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np

from sfi_ros.memory import Recycled

Planes = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""In the order of the first fields of `Scene`."""

_memory: Final = Recycled()


def decide_on_host(probabilities: np.ndarray, size: tuple[int, int], threshold: float) -> Planes:
    """Decide on one image.

    Probabilities, not classes, are resized, so that borders are smooth; as bytes, they resize several times faster
    than as floats. Every plane is decided on by itself: NumPy has no fast argmax over three.

    Args:
        probabilities: (4 or 7, h, w) uint8, 255 = 1: of foreground, road, sidewalk and other; see `kinds_on_host`, too.
        size: (height, width) of the result.
        threshold: probability above which a pixel is foreground, 0 to 1.

    Returns:
        Foreground 0 or 1, class, confidence 0..255 and probability of foreground 0..255; each (*size) uint8. They share
        memory that is used again when nobody holds any of them.
    """
    decided = _memory.take((4, *size))
    foreground, classes, confidence, objects = decided
    if probabilities.shape[1:] == size:
        np.copyto(objects, probabilities[0])
        road, sidewalk, other = probabilities[1:4]
    else:
        enlarged = _memory.take((3, *size))
        for plane, out in zip(probabilities[:4], (objects, *enlarged), strict=True):
            cv2.resize(plane, size[::-1], dst=out)
        road, sidewalk, other = enlarged
    is_other = foreground.view(np.bool_)  # until the foreground is decided on
    np.maximum(road, sidewalk, out=confidence)
    np.greater(sidewalk, road, out=classes.view(np.bool_))
    np.greater(other, confidence, out=is_other)
    np.left_shift(is_other.view(np.uint8), 1, out=foreground)
    np.maximum(classes, foreground, out=classes)
    np.maximum(confidence, other, out=confidence)
    np.greater(objects, math.floor(255 * threshold), out=foreground.view(np.bool_))  # a float would be slow to compare
    return foreground, classes, confidence, objects


def kinds_on_host(probabilities: np.ndarray) -> np.ndarray | None:
    """Decide what an object would be at each place.

    Args:
        probabilities: (7, h, w) uint8: behind four others those of person, two-wheeler, vehicle; or only four.

    Returns:
        `Scene.kinds`, (h, w) uint8; None where there are only four.
    """
    if len(probabilities) == 4:
        return None
    person, two_wheeler, vehicle = probabilities[4:]
    is_vehicle = (vehicle > np.maximum(person, two_wheeler)).view(np.uint8)
    return np.maximum((two_wheeler > person).view(np.uint8), is_vehicle << 1)


def probabilities_of(foreground: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """From logits to probabilities, as `network.outputs.to_probabilities` with PyTorch.

    Args:
        foreground: (N, 1, h, w) float32 logits.
        *others: (N, 3, h, w) float32 logits of the background and, of networks that tell them, of kinds of objects.

    Returns:
        (N, 4 or 7, h, w) float32: of being foreground, of the background being road, sidewalk, other, and of an object
        being person, two-wheeler, vehicle.
    """
    n, _, height, width = foreground.shape
    probabilities = _memory.take((n, 1 + 3 * len(others), height, width), np.float32)
    with np.errstate(over="ignore"):  # exp(-x) of a far negative x is infinite, and the probability 0
        probabilities[:, :1] = 1 / (1 + np.exp(-foreground))
    for number, logits in enumerate(others):
        first = 1 + 3 * number
        powers = np.exp(logits - logits.max(1, keepdims=True), out=probabilities[:, first : first + 3])
        powers /= powers.sum(1, keepdims=True)
    return probabilities
