"""Plain walls and billboards, painted over what stands behind the street: flat, bright and large is no lorry yet.

Cityscapes has next to no such walls and many lorries, so a network that learns from it takes the one for the other.
Labels stay as they are: only pixels of the class "other" are painted, poles and signs among them. Objects, ground and
what has no class stay before the wall.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import cv2
import numpy as np
import torch

from sfi_ros.classes import BACKGROUND_CLASSES
from training.data.sample import Sample

_OTHER: Final = BACKGROUND_CLASSES.index("other")
_MOST = 3
"""Walls in an image."""
_WIDTHS, _HEIGHTS = (0.08, 0.5), (0.15, 0.6)
"""Bounds of a wall's size, as shares of the image."""
_BOTTOMS = (0.3, 0.62)
"""Bounds of its lower edge: from above the horizon of a camera on a car to the front of the next house."""
_COLORED, _BILLBOARDS = 0.2, 0.5
"""Probability that a wall is of any colour instead of nearly grey, and that something is advertised on it."""


def paint_walls(sample: Sample, generator: np.random.Generator) -> Sample:
    """Return the sample with up to three walls in its image.

    Args:
        sample: of any size.
        generator: source of randomness.
    """
    free = (sample.partial_background == _OTHER) & (sample.foreground == 0)
    picture = sample.image.permute(1, 2, 0).numpy().astype(np.float32)
    for _ in range(int(generator.integers(1, _MOST + 1))):
        _paint_wall(picture, free.numpy(), generator)
    image = torch.from_numpy(picture.round().astype(np.uint8)).permute(2, 0, 1).contiguous()
    return replace(sample, image=image)


def _paint_wall(picture: np.ndarray, free: np.ndarray, generator: np.random.Generator) -> None:
    """Paint one wall into (H, W, 3) float32 where (H, W) bool `free` says so."""
    height, width = free.shape
    corners = _draw_corners(height, width, generator)
    left, top = np.maximum(corners.min(0), 0)
    right, bottom = np.minimum(corners.max(0) + 1, (width, height))
    if right <= left or bottom <= top:
        return
    box = slice(top, bottom), slice(left, right)
    shape = np.zeros(free[box].shape, np.uint8)
    cv2.fillConvexPoly(shape, corners - (left, top), 255, cv2.LINE_AA)
    surface = _draw_surface(picture[box], generator)
    if generator.random() < _BILLBOARDS:
        surface = _with_billboard(surface, generator)
    share = (shape / np.float32(255) * free[box])[..., None]
    picture[box] += share * (surface - picture[box])


def _draw_corners(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """Return (4, 2) int32 x and y: an upright wall that runs towards the camera or along the image."""
    wide, high = width * generator.uniform(*_WIDTHS), height * generator.uniform(*_HEIGHTS)
    left, bottom = width * generator.uniform(-0.1, 1.0), height * generator.uniform(*_BOTTOMS)
    nearness = generator.uniform(0.6, 1.0, 2)  # of the left and the right edge: the farther one is shorter
    tops, bottoms = bottom - high * nearness, bottom - 0.04 * height * (1 - nearness)
    corners = [(left, tops[0]), (left + wide, tops[1]), (left + wide, bottoms[1]), (left, bottoms[0])]
    return np.round(corners).astype(np.int32)


def _draw_surface(before: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return (h, w, 3) float32 of one colour in uneven light, through which a little of what was there shows."""
    color = generator.uniform(90, 250) + generator.normal(0, 8, 3)
    if generator.random() < _COLORED:
        color = generator.uniform(20, 230, 3)
    across, down = generator.uniform(-0.25, 0.25), generator.uniform(-0.2, 0.2)
    columns, rows = np.linspace(0, 1, before.shape[1]), np.linspace(-1, 0, before.shape[0])
    light = 1 + across * columns + down * rows[:, None]
    traces = generator.uniform(0, 0.15) * (before - 128)
    return np.clip(color * light[..., None] + traces, 0, 255).astype(np.float32)


def _with_billboard(surface: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the surface with a board of another colour on it, and up to two lines of letters on that."""
    height, width = surface.shape[:2]
    left, top = int(width * generator.uniform(0, 0.5)), int(height * generator.uniform(0, 0.5))
    wide, high = int(width * generator.uniform(0.3, 0.6)), int(height * generator.uniform(0.2, 0.5))
    board, ink = generator.uniform(0, 255, (2, 3)).tolist()
    painted = surface.astype(np.uint8)  # what OpenCV writes on
    cv2.rectangle(painted, (left, top), (left + wide, top + high), board, cv2.FILLED)
    for line in range(int(generator.integers(0, 3))):
        letters = "".join(map(chr, generator.integers(ord("A"), ord("Z") + 1, 10)))
        place = left, top + int(high * (0.4 + 0.35 * line))
        size, thickness = max(0.2, high / 100), max(1, high // 25)
        cv2.putText(painted, letters, place, cv2.FONT_HERSHEY_SIMPLEX, size, ink, thickness, cv2.LINE_AA)
    return painted.astype(np.float32)
