"""The closed form in a fixed number of tensor operations: differentiable, exportable, on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sfi_ros.network.mpi.inputs import dilate, memory_format


def fill_by_windows(features: Tensor, mask: Tensor, fill_ring: bool, *, detach: bool = True) -> Tensor:
    """Take each pixel's maximum over its window of radius d(p) from tables of power-of-two windows.

    Level k holds the maximum over every window of 2^k x 2^k pixels, by the position of its top left corner, which
    may lie outside the image. The window of side 2d + 1 is the union of the four level-k windows in its corners,
    where 2^k is the largest power of two that is not larger: a sparse table for range maxima, in two dimensions.

    Args:
        features: (N, C, h, w) floating point.
        mask: (N, 1, h, w) bool, the foreground before its dilation.
        fill_ring: whether the ring that the dilation adds is filled, too.
        detach: whether gradients stop at the filled features.
    """
    n, c, h, w = features.shape
    dilated = dilate(mask)
    distance = distance_to_background(dilated)
    source = features.detach() if detach else features
    y = torch.arange(h, device=features.device)[:, None]
    x = torch.arange(w, device=features.device)[None, :]
    side = 2 * distance + 1
    level = source.masked_fill((distance > 0)[:, None], 0.0)  # F·B
    patch = torch.zeros_like(level)
    for k in range(1, int(2 * max(h, w) - 1).bit_length()):
        span = 2**k
        level = _double(level, span // 2)
        here = (side >= span) & (side < 2 * span)  # never at level 0: that is the background itself
        d = torch.where(here, distance, span // 2)
        starts = torch.stack([-d, d - span + 1]) + span - 1
        width = w + span - 1
        rows, columns = (starts + y) * width, starts + x
        corners = torch.stack([rows[0] + columns[0], rows[0] + columns[1], rows[1] + columns[0], rows[1] + columns[1]])
        index = corners.transpose(0, 1).reshape(n, 1, 4 * h * w).expand(n, c, 4 * h * w)
        best = level.flatten(2).gather(2, index).view(n, c, 4, h, w).amax(2)
        patch = torch.where(here[:, None], best, patch)
    filled = torch.where(dilated if fill_ring else mask, patch.clamp_min(0.0), features)
    return filled.contiguous(memory_format=memory_format(features))


def distance_to_background(dilated: Tensor) -> Tensor:
    """Chebyshev distance of each foreground pixel to the nearest background pixel of its image.

    A binary search over the radius of the largest window without background, each window counted by four reads of
    an integral image: a fixed number of operations, whatever the mask.

    Args:
        dilated: (N, 1, h, w) bool.

    Returns:
        (N, h, w) int64; 0 in the background, and everywhere in an image that has none.
    """
    background = ~dilated[:, 0]
    n, h, w = background.shape
    counts = F.pad(background.to(torch.int64).cumsum(1).cumsum(2), (1, 0, 1, 0)).flatten(1)
    y = torch.arange(h, device=dilated.device)[:, None]
    x = torch.arange(w, device=dilated.device)[None, :]
    empty_radius = torch.zeros_like(background, dtype=torch.int64)
    for bit in reversed(range(int(max(h, w)).bit_length())):
        radius = empty_radius + 2**bit
        top, bottom = (y - radius).clamp_min(0) * (w + 1), (y + radius + 1).clamp_max(h) * (w + 1)
        left, right = (x - radius).clamp_min(0), (x + radius + 1).clamp_max(w)
        corners = torch.stack([bottom + right, bottom + left, top + right, top + left]).transpose(0, 1)
        seen = counts.gather(1, corners.flatten(1)).view(n, 4, h, w)
        is_empty = seen[:, 0] - seen[:, 1] - seen[:, 2] + seen[:, 3] == 0
        empty_radius = torch.where(is_empty, radius, empty_radius)
    reachable = counts[:, -1] > 0
    return torch.where(background | ~reachable[:, None, None], 0, empty_radius + 1)


def _double(level: Tensor, span: int) -> Tensor:
    """Maxima over windows of `span` pixels -> maxima over windows of twice that, also those that begin outside."""
    padded = F.pad(level, (span, span, span, span))
    tall = torch.maximum(padded[..., :-span, :], padded[..., span:, :])
    return torch.maximum(tall[..., :-span], tall[..., span:])
