"""When which frame of a source is played: as it was recorded, or at an even rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sfi_ros.frames.sources import BagSource, Frame, Source, Unreadable


@dataclass(frozen=True)
class Step:
    """One frame and when to play it.

    Attributes:
        gap: seconds since the step before it; for the first one, between two rounds.
        frame: to play, or what is wrong with it.
        recorded_at: time of recording, nanoseconds; None where the source is no bag.
        header: as recorded, with `stamp` and `frame_id`; None where the source is no bag, or it cannot be read.
    """

    gap: float
    frame: Frame | Unreadable
    recorded_at: int | None = None
    header: Any = None


def steps(source: Source, rate: float = 0.0) -> Iterator[Step]:
    """Go through a source once.

    Args:
        source: of frames.
        rate: frames per second; 0 for the times of a bag's recording, or the rate of another source.
    """
    interval = 1 / (rate or source.rate)
    if not isinstance(source, BagSource):
        yield from (Step(interval, frame) for frame in source)
        return
    before: int | None = None
    for recorded in source.recorded():
        gap = interval if rate or before is None else max(recorded.at - before, 0) * 1e-9
        before = recorded.at
        yield Step(gap, recorded.frame, recorded.at, recorded.header)


def rounds(source: Source, rate: float = 0.0) -> Iterator[Step]:
    """Go through a source again and again, until a round has no frame that can be read; see `steps`."""
    while True:
        readable = False
        for step in steps(source, rate):
            readable = readable or isinstance(step.frame, Frame)
            yield step
        if not readable:
            return
