"""Max-pooling as inpainting (MPI): background features grow into the foreground.

Lu & Dubbelman, RA-L 2020, Algorithm 1: max-pool the background features F·B and the background mask B with 3x3
windows until B covers the image; each pixel keeps the value that it had when B first reached it. With d(p) the
Chebyshev distance from pixel p to the background, that value is the channel-wise maximum of F·B over the window
of radius d(p), which holds no background nearer than d(p), and, around p itself, zeros.

Three implementations of that one function, equal in every value:

* `algorithm_1`, the published loop, kept as the oracle of the tests and the baseline of the benchmarks;
* `_fill_by_rings`, for eager CPUs: visits each foreground pixel once, nearest ring first, so that its cost follows
  the foreground's area and not the image's;
* `_fill_by_windows`, for GPUs, `torch.compile` and `torch.export`: a fixed number of tensor operations,
  logarithmic in the image's size, that never looks at a value on the host.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Boundary = Literal["dilated", "raw"]
BOUNDARIES: tuple[Boundary, ...] = ("dilated", "raw")


def max_pool_inpaint(
    features: Tensor, foreground: Tensor, *, boundary: Boundary = "dilated", detach: bool = True
) -> Tensor:
    """Replace the features of the foreground by those of the nearest background (paper, section III-B).

    Args:
        features: (N, C, h, w) floating point.
        foreground: (N, 1, H, W) probability, 0/1 mask or bool, of any size; it is brought to (h, w) by nearest
            sampling and thresholded at 0.5.
        boundary: which pixels are filled. "dilated" (paper): the foreground grown by one pixel, since features at
            the border of an object are mixed. "raw" (released code): the foreground only; the ring around it keeps
            its own features, though these are never copied inwards.
        detach: whether gradients stop at the filled features (as in the released code). The features that are kept
            carry theirs either way.

    Returns:
        (N, C, h, w), of the dtype of `features`. An image without any background is zero where it is filled.

    Raises:
        ValueError: for shapes, dtypes or a boundary other than the above.
    """
    mask = sample_mask(foreground, features)
    dilated = dilate(mask)
    region = _region(mask, dilated, boundary)
    source = features.detach() if detach else features
    fill = _fill_by_windows if _must_be_static(features) else _fill_by_rings
    return fill(features, source, distance_to_background(dilated), region)


def zero_fill(features: Tensor, foreground: Tensor, *, boundary: Boundary = "dilated") -> Tensor:
    """Blacking out, the naive alternative to MPI (paper, Table IV). Arguments as for `max_pool_inpaint`."""
    mask = sample_mask(foreground, features)
    return features.masked_fill(_region(mask, dilate(mask), boundary), 0.0)


def algorithm_1(features: Tensor, dilated: Tensor) -> Tensor:
    """Algorithm 1 of the paper, literally: two max-poolings per ring until the background covers everything.

    Args:
        features: (N, C, h, w) floating point.
        dilated: (N, 1, h, w) bool, the foreground after its dilation.

    Returns:
        (N, C, h, w): the patch; zero outside the dilated foreground and in images without any background.
    """
    background = (~dilated).to(features.dtype)
    grown_features = features.masked_fill(dilated, 0.0)  # F·B, also for a feature that is not finite
    grown_background = background
    patch = torch.zeros_like(features)
    for _ in range(max(features.shape[-2:]) - 1):  # no pixel is farther than this; the published loop may not end
        reached = F.max_pool2d(grown_background, 3, stride=1, padding=1)
        grown_features = F.max_pool2d(grown_features, 3, stride=1, padding=1)
        patch = torch.where((reached - grown_background) > 0.5, grown_features, patch)
        if torch.equal(reached, grown_background):
            break
        grown_background = reached
    return patch


def sample_mask(foreground: Tensor, features: Tensor) -> Tensor:
    """Bring a foreground probability or mask to the size of `features` by nearest sampling; > 0.5 is foreground.

    Args:
        foreground: (N, 1, H, W), bool, integer 0/1 or floating point.
        features: (N, C, h, w).

    Returns:
        (N, 1, h, w) bool.
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
    mask = foreground if foreground.dtype == torch.bool else foreground > 0.5
    if mask.shape[-2:] == features.shape[-2:]:
        return mask
    # Interpolation has no kernel for bool; for uint8 it has one on every device.
    return F.interpolate(mask.to(torch.uint8), size=features.shape[-2:], mode="nearest").to(torch.bool)


def dilate(mask: Tensor) -> Tensor:
    """Grow a (N, 1, h, w) bool mask by one pixel in all eight directions."""
    return F.max_pool2d(mask.float(), 3, stride=1, padding=1) > 0.5


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
    for bit in reversed(range(max(h, w).bit_length())):
        radius = empty_radius + 2**bit
        top, bottom = (y - radius).clamp_min(0) * (w + 1), (y + radius + 1).clamp_max(h) * (w + 1)
        left, right = (x - radius).clamp_min(0), (x + radius + 1).clamp_max(w)
        corners = torch.stack([bottom + right, bottom + left, top + right, top + left]).transpose(0, 1)
        seen = counts.gather(1, corners.flatten(1)).view(n, 4, h, w)
        is_empty = seen[:, 0] - seen[:, 1] - seen[:, 2] + seen[:, 3] == 0
        empty_radius = torch.where(is_empty, radius, empty_radius)
    reachable = counts[:, -1] > 0
    return torch.where(background | ~reachable[:, None, None], 0, empty_radius + 1)


def _region(mask: Tensor, dilated: Tensor, boundary: Boundary) -> Tensor:
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary must be one of {', '.join(BOUNDARIES)}; got {boundary!r}")
    return dilated if boundary == "dilated" else mask


def _must_be_static(features: Tensor) -> bool:
    return features.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing()


# --- the wavefront: each foreground pixel once --------------------------------------------------------------------


def _fill_by_rings(features: Tensor, source: Tensor, distance: Tensor, region: Tensor) -> Tensor:
    """Fill ring after ring: a pixel at distance d takes the maximum over its neighbours at distance d - 1.

    A ring is a table of its pixels' features (pixels, C). Each row reads rows of the previous ring's table, which
    ends with a row of zeros: the zero that F·B holds at every masked pixel, and the value of absent neighbours.
    """
    _, c, h, w = features.shape
    # One pixel of padding on each side, so that neighbours are fixed offsets in the flat grid.
    grid = F.pad(distance, (1, 1, 1, 1), value=-1)
    rings = grid.flatten()
    stride = w + 2
    offsets = torch.tensor([-stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1])
    filled = (rings > 0).nonzero().squeeze(1)
    filled = filled[rings[filled].argsort(stable=True)]
    ring_sizes = torch.bincount(rings[filled])[1:].tolist()

    pixels_first = source.permute(0, 2, 3, 1)  # a view, of any memory format
    zeros = source.new_zeros(1, c)
    row_of = torch.full_like(rings, 0)  # a pixel's row in its ring's table
    shore = _touching(filled[: ring_sizes[0]] if ring_sizes else filled, rings, offsets)
    table = torch.cat([pixels_first[_unflatten(shore, h, w)], zeros])
    row_of[shore] = torch.arange(len(shore))
    tables = []
    for ring, pixels in enumerate(filled.split(ring_sizes), start=1):
        neighbours = pixels[:, None] + offsets
        absent = rings[neighbours] != ring - 1
        rows = row_of[neighbours].masked_fill_(absent, len(table) - 1)
        rows = rows.sort(dim=1).values.t()  # absent neighbours have the highest number, so they go last ...
        present = int((~absent).sum(1).max())  # ... and where all are absent nothing need be read
        values = table[rows[0]].clamp_min(0.0)
        for row in rows[1:present]:
            values = torch.maximum(values, table[row])
        row_of[pixels] = torch.arange(len(pixels))
        table = torch.cat([values, zeros])
        tables.append(values)
    patch = torch.cat(tables) if tables else zeros[:0]

    out = features.permute(0, 2, 3, 1)
    in_region = region[:, 0][_unflatten(filled, h, w)]
    out = out.index_put(_unflatten(filled[in_region], h, w), patch[in_region])
    out = out.masked_fill((region[:, 0] & (distance == 0))[..., None], 0.0)  # images without any background
    return out.permute(0, 3, 1, 2)


def _touching(first_ring: Tensor, rings: Tensor, offsets: Tensor) -> Tensor:
    """The background pixels that touch the first ring; only their features are ever copied."""
    neighbours = (first_ring[:, None] + offsets).flatten()
    return neighbours[rings[neighbours] == 0].unique()


def _unflatten(pixels: Tensor, h: int, w: int) -> tuple[Tensor, Tensor, Tensor]:
    """Flat positions in the padded grid -> (image, row, column) of the unpadded one."""
    image, rest = pixels // ((h + 2) * (w + 2)), pixels % ((h + 2) * (w + 2))
    return image, rest // (w + 2) - 1, rest % (w + 2) - 1


# --- the closed form: a fixed number of tensor operations ----------------------------------------------------------


def _fill_by_windows(features: Tensor, source: Tensor, distance: Tensor, region: Tensor) -> Tensor:
    """Take each pixel's maximum over its window of radius d(p) from tables of power-of-two windows.

    Level k holds the maximum over every window of 2^k x 2^k pixels, by the position of its top left corner, which
    may lie outside the image. The window of side 2d + 1 is the union of the four level-k windows in its corners,
    where 2^k is the largest power of two that is not larger: a sparse table for range maxima, in two dimensions.
    """
    n, c, h, w = features.shape
    y = torch.arange(h, device=features.device)[:, None]
    x = torch.arange(w, device=features.device)[None, :]
    side = 2 * distance + 1
    level = source.masked_fill((distance > 0)[:, None], 0.0)  # F·B
    patch = torch.zeros_like(level)
    for k in range(1, (2 * max(h, w) - 1).bit_length()):
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
    return torch.where(region, patch.clamp_min(0.0), features)


def _double(level: Tensor, span: int) -> Tensor:
    """Maxima over windows of `span` pixels -> maxima over windows of twice that, also those that begin outside."""
    padded = F.pad(level, (span, span, span, span))
    tall = torch.maximum(padded[..., :-span, :], padded[..., span:, :])
    return torch.maximum(tall[..., :-span], tall[..., span:])
