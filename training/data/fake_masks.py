"""Fake masks: random rectangles that the network must treat as if they were foreground.

Under such a rectangle the true class is known, so it teaches what lies behind objects although nobody annotated that.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def fake_mask(
    height: int,
    width: int,
    generator: np.random.Generator,
    *,
    count: int = 3,
    sizes: tuple[float, float] = (0.1, 0.4),
) -> Tensor:
    """Draw random rectangles that the network must treat as if they were foreground.

    Args:
        height: of the mask, in pixels.
        width: of the mask, in pixels.
        generator: source of randomness.
        count: number of rectangles; they may overlap.
        sizes: bounds of the uniform distribution of a rectangle's height and width, as a share of the mask's.

    Returns:
        (1, H, W) bool, True inside a rectangle. Every rectangle lies wholly inside the image, its position
        uniform among those that do.
    """
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    for _ in range(count):
        box_height = max(1, round(generator.uniform(*sizes) * height))
        box_width = max(1, round(generator.uniform(*sizes) * width))
        top = int(generator.integers(0, height - box_height + 1))
        left = int(generator.integers(0, width - box_width + 1))
        mask[:, top : top + box_height, left : left + box_width] = True
    return mask
