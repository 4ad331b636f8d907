"""What `sfi run` and `sfi bag` have in common: one recording is one task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sfi_ros.errors import SfiError
from sfi_ros.frames.limits import MAX_SIGNIFICANT_BITS
from sfi_ros.inference import InferenceEngine, Timing
from sfi_ros.offline.layouts import LayoutOptions
from sfi_ros.offline.resume import claim, engine_settings, source_settings
from sfi_ros.offline.summary import RunSummary

MAX_STRETCHES: Final = 16
"""Of one recording: videos and bags are read from their beginning, so that more would mostly wait for reading."""


class NothingReadable(SfiError, ValueError):
    """A source without a single frame that could be processed."""


@dataclass(frozen=True)
class Report:
    """What a task tells its caller while it goes on, and what it asks.

    Attributes:
        progress: called with the frames done and their number, None where it is not known.
        skipped: called with the name of a frame that has no result, and the reason.
        stopped: whether to end after the frame at hand.
    """

    progress: Callable[[int, int | None], None] = lambda done, total: None
    skipped: Callable[[str, str], None] = lambda name, reason: None
    stopped: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Plan:
    """How several processes share a task.

    Attributes:
        length: frames of the recording, None where it is not known.
        stretches: first frame and the one behind the last, None for the end; empty if one process shall do it all.
        resumed: frames that have their results already.
    """

    length: int | None
    stretches: list[tuple[int, int | None]]
    resumed: int


@dataclass(frozen=True)
class Before:
    """What other processes did for a task before this one puts the results together.

    Attributes:
        began: when the first of them began, as `time.time()` tells it.
        resumed: frames that had their results then.
        timings: how long engines took for the others.
    """

    began: float
    resumed: int
    timings: list[Timing] = field(default_factory=list)


@dataclass(frozen=True)
class Task(ABC):
    """One recording, and the folder that its results go to.

    Attributes:
        source: as it was named.
        output: folder; see `resume.claim` for what may be in it.
        limit: stop after so many frames.
        overwrite: replace the results of another run in `output`.
        weights_digest: of the weights' file; see `resume.digest`.
        significant_bits: of the values of 16-bit images; see `decoding.upper_eight_bits`.
        outputs: names of the outputs that are written; see `outputs.OUTPUTS`.
        layout: how frames are laid out on the ground; None if they are not.
    """

    source: str
    output: Path
    limit: int | None = None
    overwrite: bool = False
    weights_digest: str = ""
    significant_bits: int = MAX_SIGNIFICANT_BITS
    outputs: tuple[str, ...] = ()
    layout: LayoutOptions | None = None

    @abstractmethod
    def infer(
        self, engine: InferenceEngine, *, threads: int = 1, report: Report | None = None, before: Before | None = None
    ) -> RunSummary:
        """Do the task, or what is missing of it.

        If all is there, nothing is done, and the summary says that all frames are resumed.

        Args:
            engine: infers.
            threads: that encode pictures.
            report: where to tell progress.
            before: what other processes did with `infer_stretch`.

        Raises:
            SourceError: the source cannot be opened.
            OutputError: see `resume.claim`.
            WriteError: something cannot be written.
            NothingReadable: the source has no frame that could be processed.
        """

    @abstractmethod
    def plan(self, engine: InferenceEngine, workers: int) -> Plan:
        """Make the folder ready, and divide the task between so many workers; see `infer` for errors."""

    @abstractmethod
    def infer_stretch(
        self, engine: InferenceEngine, start: int, stop: int | None, report: Report | None = None
    ) -> list[Timing]:
        """Do one of the stretches of a plan; `infer` makes the rest when all are done.

        Args:
            engine: infers.
            start, stop: see `Plan`.
            report: where to tell progress, in frames of the stretch.

        Returns:
            How long the engine took for each frame that had no results yet.

        Raises:
            SourceError, OutputError, WriteError: see `infer`.
        """

    def claim(self, engine: InferenceEngine, made_by: str, results: Sequence[str], **settings: Any) -> bool:
        """Make `output` ready; see `resume.claim`. The settings are those that only this kind of task has."""
        settings = {
            **source_settings(self.source),
            **engine_settings(engine, self.weights_digest),
            "limit": self.limit,
            "significant bits": self.significant_bits,
            **settings,
            "outputs": sorted(self.outputs),
            **({} if self.layout is None else {"layout": self.layout.settings()}),
        }
        return claim(self.output, made_by, settings, source=self.source, results=results, overwrite=self.overwrite)


def stretches(length: int, unit: int, count: int) -> list[tuple[int, int | None]]:
    """Divide a recording into at most `count` stretches of about the same length.

    Args:
        length: frames of the recording.
        unit: stretches begin at a multiple of it.
        count: most stretches; one alone is none.
    """
    units = -(-length // unit)
    count = min(count, units, MAX_STRETCHES)
    starts = [units * number // count * unit for number in range(count)] if count > 1 else []
    return list(zip(starts, [*starts[1:], None], strict=True)) if starts else []
