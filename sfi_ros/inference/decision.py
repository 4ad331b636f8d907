"""From logits to probabilities, and from these to what a scene says, by NumPy and OpenCV.

`cuda_pipeline` decides the same on a GPU.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

Planes = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""In the order of the fields of `Scene`."""


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


def probabilities_of(foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
    """From logits to probabilities, as `network.outputs.to_probabilities` with PyTorch.

    Args:
        foreground: (N, K, h, w) float32 logits, one for each foreground class.
        background: (N, 3, h, w) float32 logits.

    Returns:
        (N, 4, h, w) float32: of being foreground, and of the background being road, sidewalk, other.
    """
    n, classes, height, width = background.shape
    probabilities = np.empty((n, 1 + classes, height, width), np.float32)
    with np.errstate(over="ignore"):  # exp(-x) of a far negative x is infinite, and the probability 0
        probabilities[:, 0] = 1 / (1 + np.exp(-foreground.max(1)))
    powers = np.exp(background - background.max(1, keepdims=True), out=probabilities[:, 1:])
    powers /= powers.sum(1, keepdims=True)
    return probabilities
