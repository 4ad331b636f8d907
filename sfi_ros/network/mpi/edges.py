"""The closed form in a fixed number of tensor operations: differentiable, exportable for any size, on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sfi_ros.network.mpi.inputs import dilate, memory_format


def fill_by_edges(
    features: Tensor, mask: Tensor, fill_ring: bool, *, detach: bool = True, longest: int | None = None
) -> Tensor:
    """Take each pixel's maximum over the edges of its window of radius d(p), from tables of power-of-two lengths.

    With d(p) the distance of pixel p from the background, the window of radius d(p) around p holds no background nearer
    than that: what there is lies on its four edges. So p takes the maximum over two rows and two columns of pixels,
    each read from a sparse table for range maxima as the union of two entries.

    Args:
        features: (N, C, h, w) floating point.
        mask: (N, 1, h, w) bool, the foreground before its dilation.
        fill_ring: whether the ring that the dilation adds is filled, too.
        detach: whether gradients stop at the filled features.
        longest: at least h and w, where a graph is traced that does not know them; more costs time and changes nothing.

    Returns:
        (N, C, h, w); where `longest` is None, in the memory format of `features`.
    """
    most = int(max(features.shape[-2:])) if longest is None else longest
    device = features.device
    dilated = dilate(mask)
    radius = distance_to_background(dilated, most)
    h, w = features.shape[-2:]
    y, x = torch.arange(h, device=device)[:, None], torch.arange(w, device=device)
    top, bottom = (y - radius).clamp_min(0), (y + radius).clamp_max(h - 1)
    left, right = (x - radius).clamp_min(0), (x + radius).clamp_max(w - 1)
    source = features.detach() if detach else features
    pixels = source.masked_fill(dilated, 0.0).permute(0, 2, 3, 1)  # F·B; whole pixels are what is copied below

    level, start = _two_entries(left, right, most)
    rows = _tables(pixels, 2, most)
    best = [_read(rows, level, row, column) for row in (top, bottom) for column in (left, start)]
    level, start = _two_entries(top, bottom, most)
    columns = _tables(pixels, 1, most)
    best += [_read(columns, level, row, column) for column in (left, right) for row in (top, start)]
    patch = best[0]
    for candidate in best[1:]:
        patch = torch.maximum(patch, candidate)
    patch = patch.clamp_min(0.0).permute(0, 3, 1, 2).contiguous()  # strides unlike the features' would be asked for
    filled = torch.where(dilated if fill_ring else mask, patch, features)
    return filled if longest is not None else filled.contiguous(memory_format=memory_format(features))


def distance_to_background(dilated: Tensor, longest: int | None = None) -> Tensor:
    """Chebyshev distance of each foreground pixel to the nearest background pixel of its image.

    Every distance is a sum of different powers of two, so one step of each length, taken or not, finds it.

    Args:
        dilated: (N, 1, h, w) bool.
        longest: see `fill_by_edges`.

    Returns:
        (N, h, w) int64; 0 in the background, and beyond `longest` in an image that has none.
    """
    longest = int(max(dilated.shape[-2:])) if longest is None else longest
    steps = [2**bit for bit in range((longest - 1).bit_length())]
    nearness = dilated.float() * -(sum(steps) + 1)
    for step in steps:
        beside = F.max_pool2d(nearness, (1, 2 * step + 1), stride=1, padding=(0, step))
        around = F.max_pool2d(beside, (2 * step + 1, 1), stride=1, padding=(step, 0))
        nearness = torch.maximum(nearness, around - step)
    return (-nearness)[:, 0].long()


def _tables(pixels: Tensor, dim: int, longest: int) -> Tensor:
    """Maxima along `dim` over 1, 2, 4, ... pixels from each pixel on, cut off at the border: (levels, N, h, w, C)."""
    side = pixels.shape[dim]
    levels = [pixels]
    for bit in range(longest.bit_length() - 1):
        ahead = (torch.arange(side, device=pixels.device) + 2**bit).clamp_max(side - 1)
        levels.append(torch.maximum(levels[-1], levels[-1].index_select(dim, ahead)))
    return torch.stack(levels)


def _two_entries(first: Tensor, last: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Return the level whose entries at `first` and at the position returned cover all from `first` to `last`."""
    exponents = [max(length, 1).bit_length() - 1 for length in range(longest + 1)]
    level_of = torch.tensor(exponents, device=first.device)
    reach_of = torch.tensor([2**exponent for exponent in exponents], device=first.device)
    length = last - first + 1
    return level_of[length], last - reach_of[length] + 1


def _read(tables: Tensor, level: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Entries of (levels, N, h, w, C) tables, (N, h, w, C); level, row and column are (N, h, w)."""
    _, n, h, w, c = tables.shape
    image = torch.arange(n, device=tables.device)[:, None, None]
    position = ((level * n + image) * h + row) * w + column
    return tables.flatten(0, 3).index_select(0, position.flatten()).view(n, h, w, c)
