"""What PyTorch does in the pipeline on a CPU: it resizes images, and computes the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sfi_ros.inference.cpu_pipeline import HostNetwork
from sfi_ros.network.outputs import SceneLogits, to_probabilities
from sfi_ros.network.preprocessing import resize_images


def by_torch(network: Callable[[Tensor], SceneLogits]) -> HostNetwork:
    """Return a network of PyTorch's as the pipeline wants it.

    Args:
        network: (N, 3, h, w) uint8 RGB, channels last, on the CPU -> logits of that size, floating point, on the CPU.
    """

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        return to_probabilities(network(torch.from_numpy(images).permute(0, 3, 1, 2))).numpy()

    return run


@torch.inference_mode()
def resize_by_torch(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """See `cpu_pipeline.Resize`."""
    if not (image.flags.c_contiguous and image.flags.writeable):  # PyTorch shares memory with neither
        image = image.copy()
    resized = resize_images(torch.from_numpy(image[None]).permute(0, 3, 1, 2), size)
    return resized[0].permute(1, 2, 0).numpy()
