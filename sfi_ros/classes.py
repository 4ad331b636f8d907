"""The words of the task: which label ids are foreground and which background class each id belongs to.

Ids are those of the Cityscapes label definition, which KITTI semantics shares. Everything else imports
them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

BACKGROUND_CLASSES: Final = ("road", "sidewalk", "other")
"""Names of the background classes; the index is the value in every background map."""

IGNORE: Final = 255
"""Value of pixels without a (known) background class in targets and ground truth."""

FOREGROUND_THRESHOLD: Final = 0.5
"""Probability above which a pixel is foreground: always where a network inpaints, elsewhere unless asked otherwise."""

FOREGROUND_CLASSES: Final = ("person", "two-wheeler", "vehicle")
"""Names of the kinds of movable objects; a rider is a person, who sits on a two-wheeler."""

FOREGROUND_CLASS_IDS: Final = {
    24: 0,  # person
    25: 0,  # rider
    26: 2,  # car
    27: 2,  # truck
    28: 2,  # bus
    29: 2,  # caravan
    30: 2,  # trailer
    31: 2,  # train
    32: 1,  # motorcycle
    33: 1,  # bicycle
}
"""Label id -> kind of movable object."""

FOREGROUND_IDS: Final = tuple(FOREGROUND_CLASS_IDS)
"""The Cityscapes categories *human* (24, 25) and *vehicle* (26-33)."""

BACKGROUND_IDS: Final = {
    7: 0,  # road
    8: 1,  # sidewalk
    11: 2,  # building
    12: 2,  # wall
    13: 2,  # fence
    17: 2,  # pole
    19: 2,  # traffic light
    20: 2,  # traffic sign
    21: 2,  # vegetation
    22: 2,  # terrain
    23: 2,  # sky
}
"""Label id -> background class; ids that are absent here are unlabeled."""


def class_lookup(ids: Mapping[int, int]) -> np.ndarray:
    """Return the table, uint8[256], of a mapping from label ids to classes: 255 for ids that it does not have."""
    lookup = np.full(256, IGNORE, dtype=np.uint8)
    lookup[list(ids)] = list(ids.values())
    return lookup


def _foreground_lookup() -> np.ndarray:
    lookup = np.zeros(256, dtype=np.uint8)
    lookup[list(FOREGROUND_IDS)] = 1
    return lookup


BACKGROUND_LOOKUP: Final = class_lookup(BACKGROUND_IDS)
"""uint8[256]: label id -> partial background (class index, or 255 where it is foreground or unlabeled)."""

FOREGROUND_LOOKUP: Final = _foreground_lookup()
"""uint8[256]: label id -> 1 for foreground, 0 otherwise."""

KIND_LOOKUP: Final = class_lookup(FOREGROUND_CLASS_IDS)
"""uint8[256]: label id -> kind of movable object, or 255 where it is none."""

BACKGROUND_COLORS: Final = ((128, 64, 128), (244, 35, 232), (70, 130, 80))
"""RGB of each background class; road and sidewalk are the Cityscapes colours."""

FOREGROUND_COLOR: Final = (255, 80, 0)
"""RGB in which the foreground is tinted."""

IGNORE_COLOR: Final = (0, 0, 0)
"""RGB of pixels without a known class."""
