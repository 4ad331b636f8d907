"""From images to masks on a CPU, whatever resizes the images and computes the network; OpenCV and NumPy decide."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import cv2
import numpy as np

from sfi_ros.inference.decision import decide_on_host, kinds_on_host
from sfi_ros.inference.scene import Scene, Timing
from sfi_ros.inference.temporal import TemporalFilter
from sfi_ros.memory import Recycled
from sfi_ros.network.image_format import network_size

HostNetwork = Callable[[np.ndarray], np.ndarray]
"""(N, h, w, 3) uint8 RGB -> (N, 4 or 7, h, w) float32 probabilities: of being foreground, of the background being road,
sidewalk, other, and, where the network tells kinds, of an object being person, two-wheeler, vehicle."""

Resize = Callable[[np.ndarray, tuple[int, int]], np.ndarray]
"""(H, W, 3) uint8 and a (height, width) -> (height, width, 3) uint8, bilinear with antialiasing."""

PIXELS_PER_PASS: Final = 2**18
"""Two images of 512x256. What a network makes of more no longer fits the caches: eight such images take longer in one
pass than in four, and need more memory (docs/performance.md, several cameras)."""

_memory: Final = Recycled()


class CpuPipeline:
    """Runs one network on the CPU.

    Args:
        network: see `HostNetwork`.
        resize: see `Resize`.
    """

    def __init__(self, network: HostNetwork, resize: Resize):
        self._network, self._resize = network, resize

    def __call__(
        self,
        groups: Sequence[Sequence[np.ndarray]],
        input_height: int,
        at_input_size: bool,
        threshold: float,
        memories: Sequence[TemporalFilter] = (),
    ) -> list[Scene]:
        """Infer images group by group; the images of a group have one size and share a batch.

        Args:
            groups: (H, W, 3) uint8 RGB images.
            input_height: height at which the network runs.
            at_input_size: whether scenes have the images' size, else the network's.
            threshold: probability above which a pixel is foreground.
            memories: of the camera of each image, in order, to steady what is decided; none: as the network says.

        Returns:
            A scene for each image, in order.
        """
        left = iter(memories)
        return [
            scene
            for group in groups
            for scene in self._infer_group(
                group, input_height, at_input_size, threshold, list(itertools.islice(left, len(group)))
            )
        ]

    def facts(self) -> dict[str, str]:
        """Return what else there is to say about where it runs: nothing."""
        return {}

    def close(self) -> None:
        """Let go of the network; it cannot be used any more."""
        del self._network

    def _infer_group(
        self,
        images: Sequence[np.ndarray],
        input_height: int,
        at_input_size: bool,
        threshold: float,
        memories: Sequence[TemporalFilter],
    ) -> list[Scene]:
        began = time.perf_counter()
        height, width = images[0].shape[:2]
        small = network_size(height, width, input_height)
        resized = _memory.take((len(images), *small, 3))
        for image, batched in zip(images, resized, strict=True):
            np.copyto(batched, self._resize(image, small))
        preprocessed = time.perf_counter()
        most = max(1, PIXELS_PER_PASS // (small[0] * small[1]))
        passes = [self._network(resized[first : first + most]) for first in range(0, len(resized), most)]
        inferred = time.perf_counter()
        size = (height, width) if at_input_size else small
        probabilities: Iterable[np.ndarray] = itertools.chain(*map(_as_bytes, passes))
        if memories:
            greys = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in resized)
            probabilities = (memory(*image) for memory, *image in zip(memories, greys, probabilities, strict=True))
        decided = [(decide_on_host(planes, size, threshold), kinds_on_host(planes)) for planes in probabilities]
        timing = Timing(preprocessed - began, inferred - preprocessed, time.perf_counter() - inferred)
        return [Scene(*planes, timing, kinds) for planes, kinds in decided]


def _as_bytes(probabilities: np.ndarray) -> np.ndarray:
    """(N, 4 or 7, h, w) float32 of 0..1 -> uint8 of 0..255, rounded."""
    planes = _memory.take(probabilities.shape)
    width = probabilities.shape[-1]
    cv2.convertScaleAbs(probabilities.reshape(-1, width), dst=planes.reshape(-1, width), alpha=255)
    return planes
