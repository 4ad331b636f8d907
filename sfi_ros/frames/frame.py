"""What every source of frames gives: frames in order and, in their place, those that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sfi_ros.errors import SfiError
from sfi_ros.geometry.calibration import Calibration
from sfi_ros.geometry.motion import PlanarPose
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.synthetic import SyntheticFrame


class SourceError(SfiError, ValueError):
    """A source that cannot give a single frame; the message says why and what would."""


@dataclass(frozen=True)
class Frame:
    """One frame of a source.

    Attributes:
        name: unique within its source, usable as a file name.
        image: (H, W, 3) uint8 RGB.
        truth: what the synthetic street knows about it; None for real cameras.
        calibration, pose: of its camera, where the source knows them.
        vehicle: where its vehicle is, where the source knows that.
        place: of the file, or which image of a recording it is; can be printed.
    """

    name: str
    image: np.ndarray
    truth: SyntheticFrame | None = None
    place: str = ""
    calibration: Calibration | None = None
    pose: CameraPose | None = None
    vehicle: PlanarPose | None = None


@dataclass(frozen=True)
class Unreadable:
    """A frame, or a part of a source, that cannot be read.

    Attributes:
        name: of the file, or which image of a recording it is; can be printed. See `Frame.place`.
        reason: what is wrong with it.
    """

    name: str
    reason: str


class LostPart(Unreadable):
    """A file of a source, or a stretch of one, that cannot be read: an unknown number of frames. Named by its file."""


class Source(Protocol):
    """Frames in order; iterating again starts again.

    Iterating raises nothing because of what a frame or a file holds: see `Unreadable`.

    Attributes:
        rate: frames per second, as recorded or as is usual for such a source.
        length: number of frames, None where it is not known or has no end. What videos and recordings say about
            themselves may be wrong: it is good for a progress bar, and where to stop is known when the frames end.
    """

    rate: float

    @property
    def length(self) -> int | None:
        """See above."""
        ...

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        """Frames, and in their place those that cannot be read."""
        ...

    def part(self, start: int, stop: int | None = None) -> Source:
        """Return some of the frames, named as in the whole; those before them are passed by as cheaply as possible.

        Args:
            start: the first one, counted from 0 with those that cannot be read.
            stop: the one behind the last; None for the end.
        """
        ...
