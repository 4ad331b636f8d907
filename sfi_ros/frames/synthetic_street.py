"""The synthetic street as a source of frames, with the truth behind every object."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from sfi_ros.frames.frame import Frame, Unreadable
from sfi_ros.synthetic import SyntheticStreet

SYNTHETIC: Final = "synthetic"
UNSEEN_SEED: Final = 2_000_000
"""First seed of the streets on which nothing is ever trained (split "test" of training/data/datasets/synthetic.py)."""


class SyntheticSource:
    """The synthetic street; has no end. See `frame.Source`.

    Args:
        seed: of the street.
        start, stop: frames of it.
    """

    def __init__(self, seed: int = UNSEEN_SEED, start: int = 0, stop: int | None = None):
        self.street = SyntheticStreet(seed=seed)
        self.rate = self.street.rate
        self._seed, self._start, self._stop = seed, start, stop

    @property
    def length(self) -> int | None:
        """Number of frames of a part, None if it has no end."""
        return None if self._stop is None else max(0, self._stop - self._start)

    def part(self, start: int, stop: int | None = None) -> SyntheticSource:
        """Return some of the frames; see `frame.Source`."""
        return SyntheticSource(self._seed, self._start + start, None if stop is None else self._start + stop)

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        """Render frame after frame."""
        numbers = itertools.count(self._start) if self._stop is None else range(self._start, self._stop)
        return (street_frame(self.street, number) for number in numbers)


def street_frame(street: SyntheticStreet, number: int) -> Frame:
    """Render a frame of a street, with all that the street knows about it."""
    truth = street.frame(number)
    return Frame(
        f"frame_{number:06d}",
        truth.image,
        truth,
        calibration=street.calibration,
        pose=street.pose(number),
        vehicle=street.vehicle(number),
    )
