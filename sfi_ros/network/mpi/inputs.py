"""What every implementation makes of its inputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sfi_ros.classes import FOREGROUND_THRESHOLD


def sample_mask(foreground: Tensor, features: Tensor) -> Tensor:
    """Bring a foreground probability or mask to the size of `features` by nearest sampling; > 0.5 is foreground.

    Args:
        foreground: (N, 1, H, W), bool, integer 0/1 or floating point.
        features: (N, C, h, w).

    Returns:
        (N, 1, h, w) bool.

    Raises:
        ValueError: for other shapes, or features that are not floating point.
    """
    if features.ndim != 4 or not features.is_floating_point():
        raise ValueError(
            f"features must be a floating-point tensor (N, C, h, w); got {tuple(features.shape)} of {features.dtype}"
        )
    if foreground.ndim != 4 or foreground.shape[1] != 1 or foreground.shape[0] != features.shape[0]:
        raise ValueError(
            f"foreground must be (N, 1, H, W) with N = {features.shape[0]} as in features; "
            f"got {tuple(foreground.shape)}"
        )
    mask = foreground if foreground.dtype == torch.bool else foreground > FOREGROUND_THRESHOLD
    if mask.shape[-2:] == features.shape[-2:]:
        return mask
    # Interpolation has no kernel for bool; for uint8 it has one on every device.
    return F.interpolate(mask.to(torch.uint8), size=features.shape[-2:], mode="nearest").to(torch.bool)


def dilate(mask: Tensor) -> Tensor:
    """Grow a (N, 1, h, w) bool mask by one pixel in all eight directions."""
    return F.max_pool2d(mask.float(), 3, stride=1, padding=1) > 0.5


def region_to_fill(mask: Tensor, fill_ring: bool) -> Tensor:
    """Which pixels get another value: the mask, with or without the ring that the dilation adds; (N, 1, h, w) bool."""
    return dilate(mask) if fill_ring else mask


def memory_format(features: Tensor) -> torch.memory_format:
    """Memory format of the result: channels last where the features are, else contiguous."""
    if not features.is_contiguous() and features.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
