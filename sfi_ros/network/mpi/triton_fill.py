"""Max-pooling as inpainting on a GPU: a fixed sequence of launches, whatever the mask, and no look at it on the host.

The result at a foreground pixel is the maximum of F·B over the window of radius d, its Chebyshev distance to the
background (see the package). Nearer than d there is no background, so only the four edges of the window can hold any:
no pixel waits for another, and each reads along these edges only.

    clone            the features, to write over
    line_gaps        distance to the background within each row and each column; dilates the mask on the way
    distances        Chebyshev distance, from the gaps of the rows above and below
    maxima_of_three  F·B over three pixels of a row and of a column, channels last, at and next to foreground
    fill             the maximum along those edges that the gaps say hold background, three pixels per read

Three is as many as go: an edge has 2d + 1 >= 3 pixels, so that threes, which may overlap, cover it for any d.

What it costs, counted, not measured, for one block of foreground in the lower middle of 512x64x128 (a quarter of the
area; 2178 pixels with its ring, d = 11.5 in the mean and 33 at most): windows hold 614 pixels in the mean, their edges
24 of background, which come as 9 reads of three. These are 10 million values, of only 2312 different pixels, from the
caches next to the cores. From and to memory, `clone` moves 4.2 million values each way, `maxima_of_three` writes 2.4
and `fill` 1.1 million; masks and distances are 0.1 MiB. So reading and writing the features once should cost most.

`fill` gives one warp few pixels and many channels: its lanes agree on where to read, a read is a row of 16-byte
vectors, and whether an edge is read at all is one branch of the warp. Both memory formats share this, since the maxima
are stored with channels last; only their source and the result keep the format of the features.
"""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sfi_ros.network.mpi.inputs import memory_format

FAR = tl.constexpr(1 << 29)  # farther than any pixel: no background found
ANY_NAN = tl.constexpr(tl.PropagateNan.ALL)  # a feature that is not a number spreads, as it does in max_pool2d


def fill_on_gpu(features: Tensor, mask: Tensor, fill_ring: bool) -> Tensor:
    """As `operator.inpaint`; features of float32, float16 or bfloat16, mask (N, 1, h, w) bool."""
    n, c, h, w = features.shape
    layout = memory_format(features)
    features = features.contiguous(memory_format=layout)
    strides = (c, 1) if layout == torch.channels_last else (1, h * w)  # of a pixel and of a channel
    out = features.clone(memory_format=layout)
    if out.numel() == 0:
        return out
    mask = mask.contiguous().view(torch.uint8)
    row_gaps, column_gaps, distance = (torch.empty_like(mask, dtype=torch.int32) for _ in range(3))
    in_rows, in_columns = (features.new_empty(n, h, w, c) for _ in range(2))
    lanes = min(triton.next_power_of_2(c), 256 // features.element_size())
    pixels = min(max(256 // lanes, 4), 32)
    with torch.cuda.device_of(features):
        line_gaps[h + w, n](mask, row_gaps, column_gaps, h, w, BLOCK=triton.next_power_of_2(max(h, w)))
        distances[triton.cdiv(h * w, 32), n](row_gaps, distance, h, w, BLOCK=32, STEP=16, num_warps=1)
        few = max(lanes // 2, 1)
        maxima_of_three[triton.cdiv(h * w, 32), triton.cdiv(c, few), n](
            features, distance, in_rows, in_columns, c, h, w, *strides, BLOCK=32, CHANNELS=few
        )
        fill[triton.cdiv(h * w, pixels), triton.cdiv(c, lanes), n](
            *(in_rows, in_columns, row_gaps, column_gaps, distance, mask, out, c, h, w, *strides),
            **{"FILL_RING": fill_ring, "BLOCK": pixels, "STEP": 4, "CHANNELS": lanes, "num_warps": 1},
        )
    return out


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b, propagate_nan=ANY_NAN).to(a.dtype)  # older versions make float32 of bfloat16


@triton.jit
def line_gaps(mask, row_gaps, column_gaps, h, w, BLOCK: tl.constexpr):
    """One row or column: distance to its nearest background, which is what has no mask in its 3x3 window."""
    line = tl.program_id(0)  # rows first, then columns
    image = tl.program_id(1).to(tl.int64)
    place = tl.arange(0, BLOCK)
    y = tl.where(line < h, line, place)
    x = tl.where(line < h, place, line - h)
    foreground = (y >= h) | (x >= w)
    for dy in tl.static_range(-1, 2):
        for dx in tl.static_range(-1, 2):
            there = (y + dy >= 0) & (y + dy < h) & (x + dx >= 0) & (x + dx < w)
            foreground |= tl.load(mask + image * h * w + (y + dy) * w + x + dx, mask=there, other=0) != 0
    before = tl.associative_scan(tl.where(foreground, -2 * FAR, place), 0, _larger)
    behind = -tl.associative_scan(tl.where(foreground, -2 * FAR, -place), 0, _larger, reverse=True)
    gap = tl.minimum(tl.minimum(place - before, behind - place), FAR)
    pixel = image * h * w + y * w + x
    inside = (y < h) & (x < w)
    if line < h:
        tl.store(row_gaps + pixel, gap, mask=inside)
    else:
        tl.store(column_gaps + pixel, gap, mask=inside)


@triton.jit(do_not_specialize=["h"])  # as a constant of one it leaves no loop, and Triton 3.6 cannot compile the rest
def distances(row_gaps, distance, h, w, BLOCK: tl.constexpr, STEP: tl.constexpr):
    """Distance to the nearest background; -1 in an image that has none. Looks up and down until nothing is nearer."""
    image = tl.program_id(1).to(tl.int64) * h * w
    row_gaps += image
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y = pixel // w
    nearest = tl.load(row_gaps + pixel, mask=pixel < h * w, other=0)
    first = 1
    while (first < tl.max(nearest, 0)) & (first < h):
        k = first + tl.arange(0, STEP)[:, None]
        above = tl.load(row_gaps + pixel - k * w, mask=(y >= k) & (y < h), other=FAR)
        below = tl.load(row_gaps + pixel + k * w, mask=y + k < h, other=FAR)
        nearest = tl.minimum(nearest, tl.min(tl.maximum(tl.minimum(above, below), k), 0))
        first += STEP
    tl.store(distance + image + pixel, tl.where(nearest == FAR, -1, nearest), mask=pixel < h * w)


@triton.jit
def maxima_of_three(
    features,
    distance,
    in_rows,
    in_columns,
    c,
    h,
    w,
    pixel_stride,
    channel_stride,
    BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Maxima of F·B and zero over a pixel and its two neighbours in the row, then in the column.

    Of foreground and of background that touches it: nothing else lies on the edges that `fill` reads.
    """
    image = tl.program_id(2).to(tl.int64)
    distance += image * h * w
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, x = pixel // w, pixel % w
    touches = pixel < 0
    for dy in tl.static_range(-1, 2):
        for dx in tl.static_range(-1, 2):
            there = (y + dy >= 0) & (y + dy < h) & (x + dx >= 0) & (x + dx < w)
            touches |= tl.load(distance + pixel + dy * w + dx, mask=there, other=0) != 0
    touches &= pixel < h * w
    if tl.max(touches.to(tl.int32), 0) > 0:
        channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
        source = features + image * c * h * w + channel.to(tl.int64) * channel_stride
        own = image * c * h * w + pixel[:, None].to(tl.int64) * c + channel
        for axis in tl.static_range(2):
            best = tl.zeros((BLOCK, CHANNELS), dtype=tl.float32)  # exact, and bfloat16 has no maximum when interpreted
            for k in tl.static_range(-1, 2):
                row, column = y + k * axis, x + k * (1 - axis)
                there = touches & (row >= 0) & (row < h) & (column >= 0) & (column < w)
                place = row * w + column
                there &= tl.load(distance + place, mask=there, other=1) == 0
                pointer = source + place[:, None].to(tl.int64) * pixel_stride
                values = tl.load(pointer, mask=there[:, None] & (channel < c), other=0.0)
                best = _larger(best, values.to(tl.float32))
            tl.store((in_columns if axis else in_rows) + own, best, mask=touches[:, None] & (channel < c))


@triton.jit
def fill(
    in_rows,
    in_columns,
    row_gaps,
    column_gaps,
    distance,
    mask,
    out,
    c,
    h,
    w,
    pixel_stride,
    channel_stride,
    FILL_RING: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Fill some pixels, some channels. Tensors are (pixel, place on the edge, channel)."""
    image = tl.program_id(2).to(tl.int64) * h * w
    pixel = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[:, None, None]
    radius = tl.load(distance + image + pixel, mask=pixel < h * w, other=0)
    wanted = radius != 0
    if not FILL_RING:
        wanted &= tl.load(mask + image + pixel, mask=pixel < h * w, other=0) != 0
    if tl.max(wanted.to(tl.int32)) > 0:
        y, x = pixel // w, pixel % w
        channel = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, None, :]
        best = tl.zeros((BLOCK, STEP, CHANNELS), dtype=out.dtype.element_ty)
        for edge in tl.static_range(4):  # above, below, left, right
            if edge < 2:
                row, column = y + (2 * edge - 1) * radius, x
                along, length, step = x, w, 1
                gaps, maxima = row_gaps, in_rows
                reach = radius - 1  # of the middles of threes
            else:  # without corners, which rows have
                row, column = y, x + (2 * edge - 5) * radius
                along, length, step = y, h, w
                gaps, maxima = column_gaps, in_columns
                reach = tl.maximum(radius - 2, 0)
            middle = row * w + column
            active = wanted & (radius > 0) & (row >= 0) & (row < h) & (column >= 0) & (column < w)
            gap = tl.load(gaps + image + middle, mask=active, other=FAR)
            active &= (gap <= radius) if edge < 2 else (gap < radius)
            if tl.max(active.to(tl.int32)) > 0:
                # Middles low, low + 3, ..., high cover the edge; low and high do if all background is in their threes,
                # as at a corner. A pixel without such an edge reads around itself.
                middle = tl.where(active, middle, tl.minimum(pixel, h * w - 1))
                low = tl.where(active, -tl.minimum(reach, along), 0)
                high = tl.where(active, tl.minimum(reach, length - 1 - along), 0)
                spacing = tl.where(gap >= reach - 1, tl.maximum(high - low, 1), 3)
                count = (high - low + spacing - 1) // spacing + 1
                for first in range(0, tl.max(count), STEP):
                    k = low + (first + tl.arange(0, STEP)[None, :, None]) * spacing
                    place = (image + middle + tl.minimum(k, high) * step) * c + channel
                    best = _larger(best, tl.load(maxima + place, mask=channel < c, other=0.0))
        values = tl.reduce(best, 1, _larger, keep_dims=True)
        place = image * c + pixel.to(tl.int64) * pixel_stride + channel.to(tl.int64) * channel_stride
        tl.store(out + place, values, mask=wanted & (channel < c))
