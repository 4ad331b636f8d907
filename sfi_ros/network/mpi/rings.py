"""A wavefront for CPUs: each foreground pixel once, nearest ring first. It looks at the mask, and only works there.

Masks and positions are NumPy's, features PyTorch's: of many small steps, NumPy's take half as long.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from torch import Tensor

from sfi_ros.memory import Recycled
from sfi_ros.network.mpi.inputs import dilate, memory_format

FAR = 1 << 30  # farther than any pixel: no background found

_memory: Final = Recycled()


def fill_by_rings(features: Tensor, mask: Tensor, fill_ring: bool) -> Tensor:
    """Fill ring after ring: a pixel at distance d takes the maximum over its neighbours at distance d - 1.

    Features lie as one row per pixel, so that a ring is three operations on whole rows: gather, maximum, store.

    Args:
        features: (N, C, h, w) floating point.
        mask: (N, 1, h, w) bool, the foreground before its dilation.
        fill_ring: whether the ring that the dilation adds is filled, too.
    """
    n, c, h, w = features.shape
    rows = _taken((n, h * w, c), features.dtype)
    for row, image in zip(rows, features, strict=True):
        row.copy_(image.flatten(1).t())  # two dimensions at a time: PyTorch's fast transposition knows no others
    rows = rows.view(n * h * w, c)
    dilated = dilate(mask)
    if dilated.any():
        distance = _distance(dilated[:, 0].numpy())
        for number, (pixels, sources) in enumerate(_rings(distance)):
            values = rows.index_select(0, sources.flatten()).view(*sources.shape, c).amax(1)
            if number == 0:
                values.clamp_min_(0.0)  # F·B is zero at the pixel itself; later rings are maxima of this one
            rows.index_copy_(0, pixels, values)
        if distance.max() == FAR:
            rows[torch.from_numpy(distance.ravel() == FAR)] = 0.0
        if not fill_ring:
            image, _, y, x = (dilated & ~mask).nonzero(as_tuple=True)
            rows[(image * h + y) * w + x] = features[image, :, y, x]
    filled = rows.view(n, h, w, c).permute(0, 3, 1, 2)
    if memory_format(features) == torch.channels_last:
        return filled
    out = _taken(features.shape, features.dtype)
    for target, row in zip(out, rows.view(n, h * w, c), strict=True):
        target.view(c, h * w).copy_(row.t())
    return out


def _taken(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor whose memory is used again when nothing refers to it any more."""
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(_memory.take((math.prod(shape) * dtype.itemsize,))).view(dtype).view(shape)


def _distance(foreground: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Chebyshev distance to the background, (N, h, w); FAR in an image that has none.

    First the distance within each row, then the nearest of the rows above and below, until no farther row can win.
    """
    h, w = foreground.shape[1:]
    x = np.arange(w, dtype=np.int32)
    before = np.maximum.accumulate(np.where(foreground, np.int32(-FAR), x), axis=2)
    behind = np.minimum.accumulate(np.where(foreground, np.int32(FAR), x)[:, :, ::-1], axis=2)[:, :, ::-1]
    gap = np.minimum(x - before, behind - x)
    unreached = foreground.all(axis=(1, 2))
    gap[unreached] = 0
    distance = gap
    step = min(32, max(1, 2**22 // gap.size))  # rows per pass: few passes, but no more than 32 MiB each
    for first in range(1, h, step):
        if distance.max() <= first:
            break
        k = np.arange(first, min(first + step, h), dtype=np.int32)
        margin = int(k[-1])
        rows = np.full((len(gap), h + 2 * margin, w), FAR, np.int32)
        rows[:, margin : margin + h] = gap
        image, line, place = rows.strides
        shape = (len(gap), len(k), h, w)  # [:, i] is the image moved up or down by k[i]
        above = as_strided(rows[:, margin - first :], shape, (image, -line, line, place))
        below = as_strided(rows[:, margin + first :], shape, (image, line, line, place))
        nearest = np.maximum(np.minimum(above, below), k[:, None, None]).min(axis=1)
        distance = np.minimum(distance, nearest)
    distance[unreached] = FAR
    return distance


def _rings(distance: NDArray[np.int32]) -> Iterator[tuple[Tensor, Tensor]]:
    """Rings from the background inwards: their pixels (K,), and of each the pixels to take the maximum of, (K, most).

    Pixels are counted through the batch. Where a pixel has fewer sources than another, its first stands again.
    """
    n, h, w = distance.shape
    # One pixel of padding on each side, so that neighbours are fixed offsets in the flat grid.
    grid, pixel = np.full((n, h + 2, w + 2), FAR, np.int32), np.empty((n, h + 2, w + 2), np.int64)
    grid[:, 1:-1, 1:-1] = distance
    pixel[:, 1:-1, 1:-1] = np.arange(n * h * w).reshape(n, h, w)
    grid, pixel = grid.ravel(), pixel.ravel()
    line = w + 2
    offsets = np.array([-line - 1, -line, -line + 1, -1, 1, line - 1, line, line + 1])
    filled = np.flatnonzero((grid > 0) & (grid < FAR))
    filled = filled[grid[filled].argsort(kind="stable")]
    ring = grid[filled]
    neighbours = filled[:, None] + offsets
    is_source = grid[neighbours] == ring[:, None] - 1
    sources = np.where(is_source, pixel[neighbours], -1)
    sources.sort(axis=1)
    sources = np.where(sources < 0, sources[:, -1:], sources)
    pixels = pixel[filled]
    counts = is_source.sum(axis=1)
    begin = 0
    for size in np.bincount(ring)[1:].tolist():
        of_ring = slice(begin, begin + size)
        most = int(counts[of_ring].max())
        yield torch.from_numpy(pixels[of_ring]), torch.from_numpy(sources[of_ring, 8 - most :])
        begin += size
