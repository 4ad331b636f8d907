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
    places: np.ndarray | None = None,
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
        places: (H, W) bool, True where shapes may be: rectangles are centred there, silhouettes stand there; or as near
            to it as they are wholly inside the image. None, or nowhere, lets them be anywhere.

    Returns:
        (1, H, W) bool, True inside a shape. Every shape lies wholly inside the image, its position uniform among those
        that do, or among `places`.
    """
    rows, columns = np.nonzero(places) if places is not None else ((), ())
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    for number in range(count):
        if number < len(silhouettes):
            shape = _scaled(silhouettes[number], height, width, generator.uniform(*sizes))
        else:
            box_height = max(1, round(generator.uniform(*sizes) * height))
            box_width = max(1, round(generator.uniform(*sizes) * width))
            shape = torch.ones(box_height, box_width, dtype=torch.bool)
        room = height - shape.shape[0], width - shape.shape[1]
        if len(rows):
            place = generator.integers(len(rows))
            above = shape.shape[0] - 1 if number < len(silhouettes) else shape.shape[0] // 2
            top = min(max(0, int(rows[place]) - above), room[0])
            left = min(max(0, int(columns[place]) - shape.shape[1] // 2), room[1])
        else:
            top, left = (int(generator.integers(0, free + 1)) for free in room)
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
