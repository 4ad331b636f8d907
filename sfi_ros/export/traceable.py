"""A copy of a network whose control flow asks for no size and no value: one graph of it serves every image.

The networks themselves may look at a size (whether padding is needed, how many windows reach across the image) or at a
mask. What is here computes the same, with as many steps as the largest image needs, and differs by rounding only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfi_ros.inference.fused_network import folded
from sfi_ros.network.mpi import Boundary, dilate, sample_mask
from sfi_ros.network.preprocessing import normalization
from sfi_ros.network.scene_network import SceneNetwork

Size = tuple[int, int]


class TraceableNetwork(nn.Module):
    """Bytes in, logits out, for `torch.export`.

    Args:
        network: of the zoo; left as it is.
        max_side: longest side, in pixels, of the images that will come.
    """

    network: Any  # a SceneNetwork, some of whose parts are taken by others
    scale: Tensor
    shift: Tensor

    def __init__(self, network: SceneNetwork, max_side: int):
        super().__init__()
        copy: Any = folded(network, torch.device("cpu"), torch.float32).to(memory_format=torch.contiguous_format)
        for module in copy.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # the tracer would only have to undo it, and takes long to
            for name, child in list(module.named_children()):
                if isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, int):
                    setattr(module, name, CellAverages(child.output_size))
        copy.foreground = BorderRepeated(copy.foreground)
        options = network.options
        self.multiple = network.decoder.multiple
        padded_side = round_up(max_side, self.multiple)
        longest = padded_side if options.mpi_position in ("image", "logits") else padded_side // 8
        if options.fill == "mpi":
            copy._fill = lambda features, mask: inpaint(features, mask, boundary=options.boundary, longest=longest)
        self.network = copy
        scale, shift = normalization()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, 3, h, w) uint8 RGB -> "foreground" (N, K, h, w) and "background" (N, 3, h, w), float32 logits."""
        height, width = image.shape[-2:]
        padded = (round_up(height, self.multiple), round_up(width, self.multiple))
        # The network finds nothing to pad then, and of the foreground's logits beyond the border it sees what it would
        # have made of them itself.
        self.network.foreground.size = (height, width)
        normalized = image.float() * self.scale + self.shift
        logits = self.network(repeat_border(normalized, (height, width), padded))
        outputs = {"foreground": logits.foreground, "background": logits.background}
        return {name: repeat_border(planes, (height, width), (height, width)) for name, planes in outputs.items()}


class BorderRepeated(nn.Module):
    """A foreground branch on padded images, its logits beyond the image replaced by those at the image's border."""

    size: Size

    def __init__(self, branch: nn.Module):
        super().__init__()
        self.branch = branch

    def forward(self, image: Tensor, stem: Tensor, early: Tensor) -> Tensor:
        """As the branch; `size` is that of the image without padding."""
        logits = self.branch(image, stem, early)
        return repeat_border(logits, self.size, logits.shape[-2:])


class CellAverages(nn.Module):
    """`nn.AdaptiveAvgPool2d` as matrix products, for sides that the tracer does not know."""

    def __init__(self, cells: int):
        super().__init__()
        self.cells = cells

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, cells, cells)."""
        if self.cells == 1:
            return features.mean((2, 3), keepdim=True)
        return self._weights(features.shape[-2]) @ (features @ self._weights(features.shape[-1]).T)

    def _weights(self, side: int) -> Tensor:
        cell, position = torch.arange(self.cells)[:, None], torch.arange(side)
        first, end = cell * side // self.cells, ((cell + 1) * side + self.cells - 1) // self.cells
        return ((position >= first) & (position < end)).float() / (end - first)


def round_up(side: int, multiple: int) -> int:
    """The next multiple. No negative number is divided: ONNX rounds those towards zero, Python downwards."""
    return (side + multiple - 1) // multiple * multiple


def repeat_border(planes: Tensor, valid: Size | torch.Size, size: Size | torch.Size) -> Tensor:
    """The first `valid` rows and columns of (N, C, h, w), the last of them repeated until there are `size`."""
    for dim, have, want in ((2, valid[0], size[0]), (3, valid[1], size[1])):
        known = all(isinstance(side, int) for side in (have, want, planes.shape[dim]))
        if not (known and have == want == planes.shape[dim]):
            planes = planes.index_select(dim, torch.arange(want).clamp_max(have - 1))
    return planes


# --- max-pooling as inpainting -------------------------------------------------------------------------------------


def inpaint(features: Tensor, foreground: Tensor, *, boundary: Boundary, longest: int) -> Tensor:
    """`mpi.max_pool_inpaint`, equal in every value, as a graph that does not depend on the size.

    With d(p) the distance of pixel p from the background, the window of radius d(p) around p holds no background nearer
    than that: what there is lies on its four sides. So p takes the maximum over two rows and two columns of pixels,
    each read from a table of power-of-two lengths as the union of two entries.

    Args:
        features: (N, C, h, w) floating point.
        foreground: (N, 1, H, W), see `mpi.sample_mask`.
        boundary: see `mpi.max_pool_inpaint`.
        longest: at least h and w; more costs time and changes nothing.

    Returns:
        (N, C, h, w).
    """
    mask = sample_mask(foreground, features)
    dilated = dilate(mask)
    radius = _distance(dilated, longest)[:, 0].long()
    h, w = features.shape[-2:]
    y, x = torch.arange(h)[:, None], torch.arange(w)
    top, bottom = (y - radius).clamp_min(0), (y + radius).clamp_max(h - 1)
    left, right = (x - radius).clamp_min(0), (x + radius).clamp_max(w - 1)
    pixels = features.masked_fill(dilated, 0.0).permute(0, 2, 3, 1)  # F·B; whole pixels are what is copied below

    level, start = _two_entries(left, right, longest)
    rows = _tables(pixels, 2, longest)
    best = [_read(rows, level, row, column) for row in (top, bottom) for column in (left, start)]
    level, start = _two_entries(top, bottom, longest)
    columns = _tables(pixels, 1, longest)
    best += [_read(columns, level, row, column) for column in (left, right) for row in (top, start)]
    patch = best[0]
    for candidate in best[1:]:
        patch = torch.maximum(patch, candidate)
    region = dilated if boundary == "dilated" else mask
    patch = patch.clamp_min(0.0).permute(0, 3, 1, 2).contiguous()  # strides unlike the features' would be asked for
    return torch.where(region, patch, features)


def _distance(dilated: Tensor, longest: int) -> Tensor:
    """Chebyshev distance to the background, (N, 1, h, w) floating point; beyond `longest` where there is none.

    Every distance is a sum of different powers of two, so one step of each length, taken or not, finds it.
    """
    steps = [2**bit for bit in range((longest - 1).bit_length())]
    nearness = dilated.float() * -(sum(steps) + 1)
    for step in steps:
        beside = F.max_pool2d(nearness, (1, 2 * step + 1), stride=1, padding=(0, step))
        around = F.max_pool2d(beside, (2 * step + 1, 1), stride=1, padding=(step, 0))
        nearness = torch.maximum(nearness, around - step)
    return -nearness


def _tables(pixels: Tensor, dim: int, longest: int) -> Tensor:
    """Maxima along `dim` over 1, 2, 4, ... pixels from each pixel on, cut off at the border: (levels, N, h, w, C)."""
    side = pixels.shape[dim]
    levels = [pixels]
    for bit in range(longest.bit_length() - 1):
        ahead = (torch.arange(side) + 2**bit).clamp_max(side - 1)
        levels.append(torch.maximum(levels[-1], levels[-1].index_select(dim, ahead)))
    return torch.stack(levels)


def _two_entries(first: Tensor, last: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The level whose entries at `first` and at the position returned cover all from `first` to `last`."""
    level_of = torch.tensor([max(length, 1).bit_length() - 1 for length in range(longest + 1)])
    reach_of = torch.tensor([2 ** max(length.bit_length() - 1, 0) for length in range(longest + 1)])
    length = last - first + 1
    return level_of[length], last - reach_of[length] + 1


def _read(tables: Tensor, level: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Entries of (levels, N, h, w, C) tables, (N, h, w, C); level, row and column are (N, h, w)."""
    _, n, h, w, c = tables.shape
    position = ((level * n + torch.arange(n)[:, None, None]) * h + row) * w + column
    return tables.flatten(0, 3).index_select(0, position.flatten()).view(n, h, w, c)
