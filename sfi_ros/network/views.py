"""Several views of one image, the logits of which are averaged: mirrored or smaller, a network judges it anew.

What is wrong in one view is often right in another, so the mean is better than each, at 2 or 2.9 times the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from sfi_ros.network.decoders import upsample, upsample_logits


@dataclass(frozen=True)
class View:
    """How an image is looked at.

    Attributes:
        mirrored: left becomes right.
        shrunk: both sides become two thirds.
    """

    mirrored: bool = False
    shrunk: bool = False

    def image(self, image: Tensor) -> Tensor:
        """Return (N, C, H, W) as it is seen."""
        return self._mirror(upsample(image, self._size(image)) if self.shrunk else image)

    def mask(self, mask: Tensor) -> Tensor:
        """Return (N, 1, H, W) of 0 and 1 as it is seen."""
        return self._mirror(F.interpolate(mask, self._size(mask), mode="nearest-exact") if self.shrunk else mask)

    def back(self, logits: Tensor, size: torch.Size) -> Tensor:
        """Put what was seen, (N, C, h, w), where it is in the image, as float32 of its size (H, W)."""
        logits = self._mirror(logits)
        return upsample_logits(logits, size) if self.shrunk else logits.float()

    def _mirror(self, planes: Tensor) -> Tensor:
        return planes.flip(-1) if self.mirrored else planes

    def _size(self, planes: Tensor) -> tuple[int, int]:
        height, width = planes.shape[-2:]
        return (2 * height + 2) // 3, (2 * width + 2) // 3  # rounded up: never nothing


VIEWS: Final = {
    1: (View(),),
    2: (View(), View(mirrored=True)),
    4: (View(), View(mirrored=True), View(shrunk=True), View(mirrored=True, shrunk=True)),
}
"""`NetworkOptions.views` -> what they are."""


def least_side(views: Sequence[View], seen: int) -> int:
    """Return the shortest side, in pixels, of an image whose every view has sides of `seen` pixels and more."""
    return (3 * seen - 1) // 2 if any(view.shrunk for view in views) else seen  # the inverse of `View._size`


def mean_of(views: Sequence[View], seen: Sequence[Tensor], size: torch.Size) -> Tensor:
    """Return the mean of each view's logits (N, C, h, w), at the image's size; those of one view as they are."""
    if len(views) == 1:
        return seen[0]
    return torch.stack([view.back(logits, size) for view, logits in zip(views, seen, strict=True)]).mean(0)
