"""From camera images to what a network reads, and back: antialiased resizing, ImageNet normalisation, padding.

Training, evaluation and the engine all import these, so that a network sees on the vehicle what it saw in training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sfi_ros.network.image_format import IMAGENET_MEAN, IMAGENET_STD


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, 3, H, W) images bilinearly, averaging over what each new pixel covers (antialiased).

    Args:
        images: uint8, or floating point of any range.
        size: (height, width) to reach.

    Returns:
        (N, 3, *size): uint8 for uint8 images on a CPU, floating point otherwise (same range).
    """
    if images.shape[-2:] == torch.Size(size):
        return images
    if not images.is_floating_point() and images.device.type != "cpu":
        images = images.to(torch.float32, memory_format=torch.contiguous_format)  # all that CUDA's kernel knows
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def normalization(device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Scale and shift, each (1, 3, 1, 1) float32, such that scale * image + shift normalises RGB of range 0..255."""
    scale = torch.tensor([1 / (255 * s) for s in IMAGENET_STD], device=device)
    shift = torch.tensor([-m / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)], device=device)
    return scale.view(1, 3, 1, 1), shift.view(1, 3, 1, 1)


def normalize(images: Tensor) -> Tensor:
    """Normalise (N, 3, H, W) RGB images of range 0..255, uint8 or floating point, with ImageNet statistics.

    Returns:
        Floating point of the same shape: (image / 255 - mean) / std, float32 for uint8 images.
    """
    images = images if images.is_floating_point() else images.float()
    scale, shift = (constant.to(images.dtype) for constant in normalization(images.device))
    return torch.addcmul(shift, images, scale)


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad the bottom and right of (N, C, H, W) by repeating its border until both sides are multiples.

    Joined from slices: PyTorch's own padding takes six times as long on a CPU, channels last.
    """
    for axis in (2, 3):
        size = images.shape[axis]
        if missing := -size % multiple:
            images = torch.cat([images, *[images.narrow(axis, size - 1, 1)] * missing], axis)
    return images
