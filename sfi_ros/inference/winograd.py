"""Wide 3x3 convolutions in float32 with a quarter of the multiplications: Winograd's F(4x4, 3x3).

(Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.) Each 4x4 tile of the output comes from a
6x6 tile of the input: that tile and the filter are transformed, multiplied number by number, and transformed back. Over
all tiles and channels these are 36 matrix products. oneDNN has no such kernel for x86.

Results differ from the plain convolution's by rounding, 1e-5 of the largest. In bfloat16 it would be far more.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEWEST_CHANNELS: Final = 128
"""In and out. With fewer, the transforms cost what the products save."""

# By the points 0, 1, -1, 2, -2 and infinity.
_OF_INPUT: Final = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_OF_FILTER: Final = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # over 24
_OF_PRODUCTS: Final = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_IN_EVERY_OUTPUT: Final = 7
"""Of the 36 products: the one that is in each of the 16 outputs once."""


def is_wide_3x3(conv: nn.Conv2d) -> bool:
    """Whether `WinogradConv` computes it, and faster than oneDNN."""
    kept_size = conv.kernel_size == (3, 3) and conv.stride == conv.dilation == conv.padding == (1, 1)
    return kept_size and conv.groups == 1 and min(conv.in_channels, conv.out_channels) >= FEWEST_CHANNELS


class WinogradConv(nn.Module):
    """A 3x3 convolution with fixed weights and the activation behind it.

    Args:
        conv: see `is_wide_3x3`; on the CPU, in float32.
        activation: "none", "relu" or "hardtanh", and its parameters.
    """

    def __init__(self, conv: nn.Conv2d, activation: tuple[str, tuple[float, ...]]):
        super().__init__()
        of_filter = torch.tensor(_OF_FILTER, dtype=torch.float64) / 24
        filters = torch.einsum("ax,ocxy,by->abco", of_filter, conv.weight.detach().double(), of_filter)
        self.weight = filters.flatten(0, 1).float().contiguous()  # (36, in, out)
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.activation = activation
        self.of_input, self.of_products = (
            torch.kron(matrix, matrix) for matrix in (torch.tensor(m).float() for m in (_OF_INPUT, _OF_PRODUCTS))
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h, w), channels last."""
        n, channels, h, w = features.shape
        rows, columns = -(-h // 4), -(-w // 4)
        padded = F.pad(features.permute(0, 2, 3, 1), (0, 0, 1, 1 + 4 * columns - w, 1, 1 + 4 * rows - h))
        tiles = padded.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3)  # (6, 6, N, rows, columns, in)
        inputs = torch.mm(self.of_input, tiles.reshape(36, -1)).view(36, -1, channels)
        products = torch.bmm(inputs, self.weight)
        if self.bias is not None:
            products[_IN_EVERY_OUTPUT] += self.bias
        outputs = torch.mm(self.of_products, products.flatten(1)).view(4, 4, n, rows, columns, -1)
        planes = outputs.permute(2, 3, 0, 4, 1, 5).reshape(n, 4 * rows, 4 * columns, -1)
        return self._activated(planes)[:, :h, :w].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def _activated(self, planes: Tensor) -> Tensor:
        name, parameters = self.activation
        if name == "relu":
            return planes.relu_()
        return F.hardtanh_(planes, *parameters) if name == "hardtanh" else planes
