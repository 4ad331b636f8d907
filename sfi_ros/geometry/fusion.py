"""The layouts of several cameras in one grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from sfi_ros.geometry.layout import BLOCKED, EVIDENCE, INFERRED, SEEN, GroundLayout

_RANK: Final = np.zeros(len(EVIDENCE), np.int16)
_RANK[[BLOCKED, INFERRED, SEEN]] = 1, 2, 3


def fuse(layouts: Sequence[GroundLayout]) -> GroundLayout:
    """Take each cell from the camera that knows it best: what is seen before what is inferred, then by confidence.

    An object that any camera sees is there.

    Args:
        layouts: one or more, of one grid.

    Raises:
        ValueError: they do not have one grid.
    """
    first, *others = layouts
    if not others:
        return first
    if any(layout.grid != first.grid for layout in others):
        raise ValueError("layouts of different grids cannot be fused")
    classes, confidence = first.classes.copy(), first.confidence.copy()
    evidence, objects, depth = first.evidence.copy(), first.objects.copy(), first.depth.copy()
    best = _worth(first)
    for layout in others:
        worth = _worth(layout)
        better = worth > best
        for mine, theirs in (
            (classes, layout.classes),
            (confidence, layout.confidence),
            (evidence, layout.evidence),
            (depth, layout.depth),
            (best, worth),
        ):
            np.copyto(mine, theirs, where=better)
        objects |= layout.objects
    return GroundLayout(first.grid, classes, confidence, evidence, objects, depth)


def _worth(layout: GroundLayout) -> np.ndarray:
    return _RANK[layout.evidence] * np.int16(256) + layout.confidence
