"""A wavefront for CPUs: each foreground pixel once, nearest ring first. It looks at the mask, and only works there."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from sfi_ros.network.mpi.inputs import dilate, memory_format

FAR = 1 << 30  # farther than any pixel: no background found


def fill_by_rings(features: Tensor, mask: Tensor, fill_ring: bool) -> Tensor:
    """Fill ring after ring: a pixel at distance d takes the maximum over its neighbours at distance d - 1.

    Features lie as one row per pixel, so that a ring is three operations on whole rows: gather, maximum, store.

    Args:
        features: (N, C, h, w) floating point.
        mask: (N, 1, h, w) bool, the foreground before its dilation.
        fill_ring: whether the ring that the dilation adds is filled, too.
    """
    n, c, h, w = features.shape
    rows = features.new_empty(n, h * w, c)
    for row, image in zip(rows, features, strict=True):
        row.copy_(image.flatten(1).t())  # two dimensions at a time: PyTorch's fast transposition knows no others
    rows = rows.view(n * h * w, c)
    dilated = dilate(mask)
    if dilated.any():
        distance = _distance(dilated)
        for pixels, sources in _rings(distance):
            values = rows.index_select(0, sources.flatten()).view(*sources.shape, c).amax(1)
            rows[pixels] = values.clamp_min_(0.0)  # F·B is zero at the pixel itself
        unreached = (distance == FAR).flatten()
        if unreached.any():
            rows[unreached] = 0.0
        if not fill_ring:
            image, _, y, x = (dilated & ~mask).nonzero(as_tuple=True)
            rows[(image * h + y) * w + x] = features[image, :, y, x]
    filled = rows.view(n, h, w, c).permute(0, 3, 1, 2)
    if memory_format(features) == torch.channels_last:
        return filled
    out = torch.empty_like(features, memory_format=torch.contiguous_format)
    for target, row in zip(out, rows.view(n, h * w, c), strict=True):
        target.view(c, h * w).copy_(row.t())
    return out


def _distance(dilated: Tensor) -> Tensor:
    """Chebyshev distance to the background, (N, h, w) int32; FAR in an image that has none.

    First the distance within each row, then the nearest of the rows above and below, until no farther row can win.
    """
    background = ~dilated[:, 0]
    h, w = background.shape[1:]
    x = torch.arange(w, dtype=torch.int32)
    before = torch.where(background, x, -FAR).cummax(2).values
    behind = torch.where(background, x, FAR).flip(2).cummin(2).values.flip(2)
    gap = torch.minimum(x - before, behind - x)
    reachable = background.flatten(1).any(1)[:, None, None]
    distance = gap = torch.where(reachable, gap, 0)
    rows = F.pad(gap, (0, 0, h, h), value=FAR)
    step = min(32, max(1, 2**22 // gap.numel()))  # rows per pass: few passes, but no more than 16 MiB each
    for first in range(1, h, step):
        if int(distance.max()) <= first:
            break
        k = torch.arange(first, min(first + step, h), dtype=torch.int32)
        below = rows[:, h + first : 2 * h + first + len(k) - 1].unfold(1, len(k), 1)
        above = rows[:, h - first - len(k) + 1 : 2 * h - first].unfold(1, len(k), 1)
        for window, steps in ((below, k), (above, k.flip(0))):
            distance = torch.minimum(distance, torch.maximum(window, steps).amin(-1))
    return torch.where(reachable, distance, FAR)


def _rings(distance: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rings from the background inwards: their pixels (K,), and of each the pixels to take the maximum of, (K, most).

    Pixels are counted through the batch. Where a pixel has fewer sources than another, its first stands again.
    """
    n, h, w = distance.shape
    # One pixel of padding on each side, so that neighbours are fixed offsets in the flat grid.
    grid = F.pad(distance, (1, 1, 1, 1), value=FAR).flatten()
    pixel = F.pad(torch.arange(n * h * w).view(n, h, w), (1, 1, 1, 1)).flatten()
    line = w + 2
    offsets = torch.tensor([-line - 1, -line, -line + 1, -1, 1, line - 1, line, line + 1])
    filled = ((grid > 0) & (grid < FAR)).nonzero().squeeze(1)
    ring, order = grid[filled].sort(stable=True)
    filled = filled[order]
    neighbours = filled[:, None] + offsets
    is_source = grid[neighbours] == ring[:, None] - 1
    sources = pixel[neighbours].masked_fill_(~is_source, -1).sort(1, descending=True).values
    sources = torch.where(sources < 0, sources[:, :1], sources)
    sizes = torch.bincount(ring)[1:].tolist()
    by_ring = (column.split(sizes) for column in (pixel[filled], sources, is_source.sum(1)))
    for pixels, of_ring, counts in zip(*by_ring, strict=True):
        yield pixels, of_ring[:, : int(counts.max())]
