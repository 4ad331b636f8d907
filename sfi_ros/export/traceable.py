"""A copy of a network whose control flow asks for no size and no value: one graph of it serves every image.

The networks themselves may look at a size (whether padding is needed, how far the background can be) or at a mask. The
parts here compute the same, with as many steps as the largest image needs, and differ by rounding only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sfi_ros.inference.fused_network import folded
from sfi_ros.network.preprocessing import normalization
from sfi_ros.network.scene_network import Border, Fill, SceneNetwork, Size


class TraceableNetwork(nn.Module):
    """Bytes in, logits out, for `torch.export`.

    Args:
        network: of the zoo; left as it is.
        max_side: longest side, in pixels, of the images that will come.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: SceneNetwork, max_side: int):
        super().__init__()
        parts: Any = folded(network, torch.device("cpu"), torch.float32).to(memory_format=torch.contiguous_format)
        for module in parts.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # the tracer would only have to undo it, and takes long to
            for name, child in list(module.named_children()):
                if isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, int):
                    setattr(module, name, CellAverages(child.output_size))
        border = AnySizeBorder(network.decoder.multiple)
        padded_side = round_up(max_side, border.multiple)
        at_full_size = network.options.mpi_position in ("image", "logits")
        self.network = type(network)(
            network.name,
            network.options,
            early=parts.early,
            late=parts.late,
            foreground=parts.foreground,
            decoder=parts.decoder,
            fill=Fill(network.options, longest=padded_side if at_full_size else padded_side // 8),
            border=border,
        )
        scale, shift = normalization()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.eval()  # in training a network sees one view

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, 3, h, w) uint8 RGB -> the fields of `SceneLogits` by name, float32 of that size."""
        logits = self.network(image.float() * self.scale + self.shift)
        kinds = {} if logits.kinds is None else {"kinds": logits.kinds}
        return {"foreground": logits.foreground, "background": logits.background, **kinds}


class AnySizeBorder(Border):
    """Padding and cropping by reading rows and columns, as many as there are."""

    def pad(self, planes: Tensor) -> Tensor:
        """See `Border.pad`."""
        size = planes.shape[-2:]
        return repeat_border(planes, size, (round_up(size[0], self.multiple), round_up(size[1], self.multiple)))

    def crop(self, planes: Tensor, size: Size) -> Tensor:
        """See `Border.crop`."""
        return repeat_border(planes, size, size)


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
    """Return the next multiple. No negative number is divided: ONNX rounds those towards zero, Python downwards."""
    return (side + multiple - 1) // multiple * multiple


def repeat_border(planes: Tensor, valid: Size, size: Size) -> Tensor:
    """Return the first `valid` rows and columns of (N, C, h, w), the last of them repeated until there are `size`."""
    for dim, have, want in ((2, valid[0], size[0]), (3, valid[1], size[1])):
        known = all(isinstance(side, int) for side in (have, want, planes.shape[dim]))
        if not (known and have == want == planes.shape[dim]):
            planes = planes.index_select(dim, torch.arange(want).clamp_max(have - 1))
    return planes
