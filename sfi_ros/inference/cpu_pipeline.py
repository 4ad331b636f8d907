"""From images to masks on a CPU: PyTorch resizes down, a network runs, OpenCV resizes up, NumPy decides."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from sfi_ros.inference.probabilities import to_probabilities
from sfi_ros.inference.scene import Scene, Timing
from sfi_ros.network.outputs import SceneLogits
from sfi_ros.network.preprocessing import network_size, resize_images

NetworkRunner = Callable[[Tensor], SceneLogits]
"""(N, 3, h, w) uint8 RGB, channels last, on the CPU -> logits of that size, floating point, on the CPU."""


class CpuPipeline:
    """Runs one network on the CPU, whatever computes it.

    Args:
        network: see `NetworkRunner`.
    """

    def __init__(self, network: NetworkRunner):
        self._network = network

    def __call__(
        self, groups: Sequence[Sequence[np.ndarray]], input_height: int, at_input_size: bool, threshold: float
    ) -> list[Scene]:
        """Infer images group by group; the images of a group have one size and share a batch.

        Args:
            groups: (H, W, 3) uint8 RGB images.
            input_height: height at which the network runs.
            at_input_size: whether scenes have the images' size, else the network's.
            threshold: probability above which a pixel is foreground.

        Returns:
            A scene for each image, in order.
        """
        return [scene for group in groups for scene in self._infer_group(group, input_height, at_input_size, threshold)]

    def _infer_group(
        self, images: Sequence[np.ndarray], input_height: int, at_input_size: bool, threshold: float
    ) -> list[Scene]:
        began = time.perf_counter()
        batch = _as_tensor(images)
        height, width = batch.shape[-2:]
        resized = resize_images(batch, network_size(height, width, input_height))
        preprocessed = time.perf_counter()
        logits = self._network(resized)
        inferred = time.perf_counter()
        size = (height, width) if at_input_size else (resized.shape[-2], resized.shape[-1])
        probabilities = _as_bytes(to_probabilities(logits).numpy())
        decided = [_decide(planes, size, threshold) for planes in probabilities]
        timing = Timing(preprocessed - began, inferred - preprocessed, time.perf_counter() - inferred)
        return [Scene(*arrays, timing) for arrays in decided]


def _as_tensor(images: Sequence[np.ndarray]) -> Tensor:
    """Images of one size as (N, 3, H, W) uint8, channels last: the bytes are not rearranged."""
    arrays = images[0][None] if len(images) == 1 else np.stack(images)
    if not (arrays.flags.c_contiguous and arrays.flags.writeable):  # PyTorch shares memory with neither
        arrays = arrays.copy()
    return torch.from_numpy(arrays).permute(0, 3, 1, 2)


def _decide(planes: np.ndarray, size: tuple[int, int], threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (4, h, w) uint8 -> foreground, class and confidence, each of `size`, uint8.

    Probabilities, not classes, are resized, so that borders are smooth; as bytes, they resize several times faster
    than as floats. Every plane is decided on by itself: NumPy has no fast argmax over three.
    """
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
    return foreground.view(np.uint8), classes, confidence


def _as_bytes(probabilities: np.ndarray) -> np.ndarray:
    """(N, 4, h, w) float32 of 0..1 -> uint8 of 0..255, rounded."""
    width = probabilities.shape[-1]
    return cv2.convertScaleAbs(probabilities.reshape(-1, width), alpha=255).reshape(probabilities.shape)
