"""The procedural street camera as a dataset: no download, and the background behind every object is known.

Frames are rendered when asked for. This is the one dataset that needs OpenCV (the renderer draws with it).
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

from training.data.datasets.cityscapes import CATEGORY_NAMES
from training.data.reading import LabelMap
from training.data.sample import Sample

if TYPE_CHECKING:
    from sfi_ros.synthetic import SyntheticStreet

SPLIT_SEEDS = {"train": 0, "val": 1_000_000, "test": 2_000_000}
"""First drive of each split, so that no street of one is seen in another."""
STREETS_KEPT = 8
"""Streets that each process keeps built, the most recently used ones; about 25 MB each at 256x512."""


class Synthetic(Dataset[Sample]):
    """`drives` streets with `frames` frames each, at (height, 2·height)."""

    category_names = CATEGORY_NAMES
    has_root, has_splits, stretched = False, True, True

    def __init__(
        self,
        drives: int = 100,
        frames: int = 10,
        seed: int = 0,
        height: int = 256,
        step: int = 15,
        split: str = "train",
    ):
        """Describe the drives; nothing is rendered yet.

        Args:
            drives: number of streets, each from its own seed.
            frames: frames taken of each drive.
            seed: seed of the first drive; the others count up from it.
            height: image height in pixels; the width is twice that.
            step: frames of the camera between two that are taken; 15 is one second at the default rate.
            split: `train`, `val` or `test`; each has its own range of seeds.

        Raises:
            ValueError: a count that is not positive, or an unknown split.
        """
        if min(drives, frames, height, step) < 1:
            raise ValueError(
                f"drives, frames, height and step must be positive, got {drives}, {frames}, {height}, {step}"
            )
        if split not in SPLIT_SEEDS:
            raise ValueError(f"the synthetic street has no split '{split}': use {', '.join(SPLIT_SEEDS)}")
        self.root = Path("synthetic")
        self.drives, self.frames, self.height, self.step, self.split = drives, frames, height, step, split
        self.seed = seed + SPLIT_SEEDS[split]
        self._streets: OrderedDict[int, SyntheticStreet] = OrderedDict()
        self._map = LabelMap()

    def __len__(self) -> int:
        return self.drives * self.frames

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside the {len(self)} frames of this dataset")
        drive, frame_number = divmod(index, self.frames)
        frame = self.street(drive).frame(frame_number * self.step)
        return self._map.sample(
            torch.from_numpy(frame.image).permute(2, 0, 1).contiguous(),
            torch.from_numpy(frame.labels),
            name=f"street{self.seed + drive}/{frame_number * self.step:06d}",
            true_background=torch.from_numpy(frame.background),
        )

    def street(self, drive: int) -> SyntheticStreet:
        """Return the street of a drive, counted from 0."""
        from sfi_ros.synthetic import SyntheticStreet

        # Building a street takes as long as rendering several frames of it.
        if drive in self._streets:
            self._streets.move_to_end(drive)
        else:
            self._streets[drive] = SyntheticStreet(seed=self.seed + drive, width=2 * self.height, height=self.height)
            if len(self._streets) > STREETS_KEPT:
                self._streets.popitem(last=False)
        return self._streets[drive]
