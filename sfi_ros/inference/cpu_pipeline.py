"""From images to masks on a CPU: PyTorch resizes down, a network runs, OpenCV resizes up, NumPy decides."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor

from sfi_ros.inference.decision import decide_on_host
from sfi_ros.inference.scene import Scene, Timing
from sfi_ros.network.outputs import SceneLogits, to_probabilities
from sfi_ros.network.preprocessing import network_size, resize_images

NetworkRunner = Callable[[Tensor], SceneLogits]
"""(N, 3, h, w) uint8 RGB, channels last, on the CPU -> logits of that size, floating point, on the CPU."""


PIXELS_PER_PASS: Final = 2**18
"""Two images of 512x256. What a network makes of more no longer fits the caches: eight such images take longer in one
pass than in four, and need more memory (docs/performance.md, several cameras)."""


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
        height, width = images[0].shape[:2]
        small = network_size(height, width, input_height)
        resized = torch.cat([resize_images(_as_tensor(image), small) for image in images])
        preprocessed = time.perf_counter()
        passes = [self._network(part) for part in resized.split(_images_per_pass(resized))]
        inferred = time.perf_counter()
        size = (height, width) if at_input_size else small
        probabilities = [_as_bytes(to_probabilities(logits).numpy()) for logits in passes]
        decided = [decide_on_host(planes, size, threshold) for planes in itertools.chain(*probabilities)]
        timing = Timing(preprocessed - began, inferred - preprocessed, time.perf_counter() - inferred)
        return [Scene(*planes, timing) for planes in decided]


def _images_per_pass(images: Tensor) -> int:
    """How many of these (N, 3, h, w) images the network takes at once."""
    return max(1, PIXELS_PER_PASS // (images.shape[-2] * images.shape[-1]))


def _as_tensor(image: np.ndarray) -> Tensor:
    """Return an image as (1, 3, H, W) uint8, channels last: its bytes are not rearranged."""
    if not (image.flags.c_contiguous and image.flags.writeable):  # PyTorch shares memory with neither
        image = image.copy()
    return torch.from_numpy(image[None]).permute(0, 3, 1, 2)


def _as_bytes(probabilities: np.ndarray) -> np.ndarray:
    """(N, 4, h, w) float32 of 0..1 -> uint8 of 0..255, rounded."""
    width = probabilities.shape[-1]
    return cv2.convertScaleAbs(probabilities.reshape(-1, width), alpha=255).reshape(probabilities.shape)
