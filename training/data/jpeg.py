"""What JPEG does to an image, as tensor operations, for devices where no encoder is at hand.

Colour conversion, chroma at half resolution, cosine transform of 8x8 blocks, quantisation, and back; entropy coding
loses nothing and is left out. Equal to libjpeg but for the rounding of its integer arithmetic.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMINANCE = """
16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99
"""
_CHROMINANCE = """
17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99
"""
_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress.

    Args:
        images: (N, 3, H, W) uint8 RGB.
        quality: (N, 1) float, 1 to 100 as in libjpeg.

    Returns:
        (N, 3, H, W) uint8 on the same device.
    """
    height, width = images.shape[-2:]
    tables, to_ycbcr, to_rgb, transform = _constants(images.device)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    steps = ((tables * scale[:, :, None, None] + 50) / 100).floor().clamp(1, 255)  # (N, 2, 8, 8)

    pixels = F.pad(images.float(), (0, -width % 16, 0, -height % 16), mode="replicate")
    planes = torch.einsum("ij,njhw->nihw", to_ycbcr, pixels)
    luminance, chrominance = (planes[:, :1] - 128).round(), planes[:, 1:].round()
    chrominance = F.avg_pool2d(chrominance, 2).round()
    luminance = _quantized(luminance, steps[:, 0], transform) + 128
    chrominance = _quantized(chrominance, steps[:, 1], transform)
    chrominance = F.interpolate(chrominance, scale_factor=2, mode="bilinear")
    pixels = torch.einsum("ij,njhw->nihw", to_rgb, torch.cat([luminance, chrominance], 1))
    return pixels[..., :height, :width].round().clamp(0, 255).to(torch.uint8)


def _quantized(planes: Tensor, steps: Tensor, transform: Tensor) -> Tensor:
    """(N, C, H, W) around zero, its blocks' frequencies rounded to multiples of `steps` (N, 8, 8)."""
    blocks = transform @ planes.unflatten(-2, (-1, 8))
    blocks = blocks.unflatten(-1, (-1, 8)) @ transform.T  # (N, C, H/8, 8, W/8, 8)
    steps = steps[:, None, None, :, None, :]
    blocks = (blocks / steps).round_() * steps
    lines = (blocks @ transform).flatten(-2)
    return (transform.T @ lines).flatten(-3, -2).round_().clamp_(-128, 127)


@lru_cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Quantisation tables (2, 8, 8), RGB to YCbCr and back (3, 3), cosine transform (8, 8)."""
    tables = torch.tensor([[float(step) for step in text.split()] for text in (_LUMINANCE, _CHROMINANCE)])
    to_ycbcr = torch.tensor(_TO_YCBCR, dtype=torch.float64)
    frequency, place = torch.arange(8.0, dtype=torch.float64)[:, None], torch.arange(8.0, dtype=torch.float64)
    transform = 0.5 * torch.cos(math.pi / 8 * frequency * (place + 0.5))
    transform[0] /= math.sqrt(2)
    constants = (tables.view(2, 8, 8), to_ycbcr, to_ycbcr.inverse(), transform)
    return tuple(constant.float().to(device) for constant in constants)  # type: ignore[return-value]
