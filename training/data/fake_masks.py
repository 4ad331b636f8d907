"""Fake masks: random rectangles or silhouettes that the network must treat as if they were foreground.

Under such a shape the true class is known, so it teaches what lies behind objects although nobody annotated that.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from training.data.pasted_occluders import ObjectLibrary

_DONORS = 4
"""Images that are looked at for silhouettes before rectangles have to do."""


def fake_mask(
    height: int,
    width: int,
    generator: np.random.Generator,
    *,
    count: int = 3,
    sizes: tuple[float, float] = (0.1, 0.4),
    silhouettes: Sequence[Tensor] = (),
) -> Tensor:
    """Draw random shapes that the network must treat as if they were foreground.

    Args:
        height: of the mask, in pixels.
        width: of the mask, in pixels.
        generator: source of randomness.
        count: number of shapes; they may overlap.
        sizes: bounds of the uniform distribution of a rectangle's height and width, as a share of the mask's. Of a
            silhouette, which keeps its proportions, they bound the larger of both shares.
        silhouettes: (h, w) bool, True on the shape; the first `count` are drawn, and rectangles for those missing.

    Returns:
        (1, H, W) bool, True inside a shape. Every shape lies wholly inside the image, its position uniform among those
        that do.
    """
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    for number in range(count):
        if number < len(silhouettes):
            shape = _scaled(silhouettes[number], height, width, generator.uniform(*sizes))
        else:
            box_height = max(1, round(generator.uniform(*sizes) * height))
            box_width = max(1, round(generator.uniform(*sizes) * width))
            shape = torch.ones(box_height, box_width, dtype=torch.bool)
        top = int(generator.integers(0, height - shape.shape[0] + 1))
        left = int(generator.integers(0, width - shape.shape[1] + 1))
        mask[:, top : top + shape.shape[0], left : left + shape.shape[1]] |= shape
    return mask


def draw_silhouettes(library: ObjectLibrary, generator: np.random.Generator, count: int) -> list[Tensor]:
    """Draw the shapes of at most `count` objects, (h, w) bool each: of one image, of others if it has too few."""
    drawn: list[Tensor] = []
    for _ in range(_DONORS):
        if len(drawn) < count:
            objects = library[int(generator.integers(len(library)))]
            drawn += [objects[place].mask for place in generator.permutation(len(objects))[: count - len(drawn)]]
    return drawn


def _scaled(silhouette: Tensor, height: int, width: int, share: float) -> Tensor:
    """Scale a shape so that it takes `share` of the image's height or width, of whichever it fills more."""
    own_height, own_width = silhouette.shape
    zoom = share / max(own_height / height, own_width / width)
    size = (max(1, round(own_width * zoom)), max(1, round(own_height * zoom)))
    return torch.from_numpy(cv2.resize(silhouette.numpy().astype(np.float32), size) >= 0.5)
