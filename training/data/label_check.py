"""Whether a set's labels can be what its layout says, and what is known in it: a look at a few of its images.

Label files of another convention load without complaint: in a Cityscapes tree of train ids 7 is a pole, and no pixel is
road. Training, evaluation and `check_data` ask the same question, so that nobody finds out from a score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from sfi_ros.classes import BACKGROUND_CLASSES
from training.data.sample import Sample

LOOK_AT = 8
"""Images of a set that are looked at: a second of reading, however large the set is."""


@dataclass(frozen=True)
class LabelCensus:
    """What the labels of some images hold, in pixels.

    Attributes:
        images: number of images.
        foreground: pixels of foreground.
        everywhere: background class -> pixels where it is known.
        behind: background class -> pixels where it is known behind foreground.
        has_truth: whether any image brings a true background, known (maybe) behind objects too.
    """

    images: int
    foreground: int
    everywhere: Mapping[str, int]
    behind: Mapping[str, int]
    has_truth: bool


def census(dataset: Dataset[Sample], at_most: int = LOOK_AT) -> LabelCensus:
    """Count the labels of a few images, evenly spread over the set.

    Raises:
        DatasetError: one of them cannot be loaded.
    """
    count = min(at_most, len(dataset))
    foreground, has_truth = 0, False
    everywhere, behind = (torch.zeros(256, dtype=torch.long) for _ in range(2))
    for number in range(count):
        sample = dataset[number * len(dataset) // count]
        inside = sample.foreground == 1
        known = sample.partial_background if sample.true_background is None else sample.true_background
        has_truth |= sample.true_background is not None
        foreground += int(inside.sum())
        everywhere += torch.bincount(known.flatten().int(), minlength=256)
        behind += torch.bincount(known[inside].int(), minlength=256)
    by_class = (dict(zip(BACKGROUND_CLASSES, counts.tolist(), strict=False)) for counts in (everywhere, behind))
    return LabelCensus(count, foreground, *by_class, has_truth)


def label_problem(images: int, pixels: Mapping[str, float]) -> str | None:
    """Say what makes it unlikely that labels were read as they were meant; None where nothing does.

    Args:
        images: that were looked at.
        pixels: how many, or which share of them, are "road", "sidewalk" and "foreground".
    """
    missing = [name for name in ("road", "sidewalk", "foreground") if images and not pixels[name]]
    if len(missing) < 3:
        return None
    return (
        f"no pixel of road, sidewalk or foreground in {images} images of this set: are these *_labelIds.png, "
        "or does classes.yaml give the right ids?"
    )


def problem_of(dataset: Dataset[Sample]) -> str | None:
    """Look at a few images of a set and return `label_problem` of them."""
    found = census(dataset)
    return label_problem(found.images, {**found.everywhere, "foreground": found.foreground})
