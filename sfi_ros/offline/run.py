"""`sfi run`: the engine over images, folders, videos, bags or the synthetic street, into a folder of pictures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sfi_ros.errors import ImageError
from sfi_ros.files import remove_leftovers
from sfi_ros.frames.sources import (
    SYNTHETIC,
    UNSEEN_SEED,
    BagSource,
    Frame,
    Source,
    SyntheticSource,
    Unreadable,
    open_source,
)
from sfi_ros.inference import InferenceEngine, Scene
from sfi_ros.inference.scene import Timing
from sfi_ros.offline.layouts import LayoutOptions
from sfi_ros.offline.prefetch import BackgroundCalls, prefetch
from sfi_ros.offline.recorder import FOLDERS, VIDEO, PictureFolder, Recorder
from sfi_ros.offline.resume import Settings, claim
from sfi_ros.offline.summary import RunSummary, lost_files, measured
from sfi_ros.offline.task import Before, NothingReadable, Plan, Report, Task, stretches
from sfi_ros.outputs import output_named, require_given

MADE_BY: Final = "sfi run"

SYNTHETIC_FRAMES: Final = 100
"""The street has no end; without a limit a run does."""


_RESULTS: Final = (*FOLDERS, VIDEO)

STRETCH: Final = 100
"""Frames: fewer are not worth a task of their own."""


@dataclass(frozen=True)
class Run(Task):
    """An image, folder, video, bag or "synthetic", whose results are pictures.

    A run that was stopped or killed goes on where it was: frames whose pictures are there are read, not inferred.

    Attributes:
        seed: of the synthetic street.
        topic: of the images of a recording; None if it has only one.
        outputs: names of outputs that get a folder, too.
    """

    seed: int = UNSEEN_SEED
    topic: str | None = None

    def infer(
        self, engine: InferenceEngine, *, threads: int = 1, report: Report | None = None, before: Before | None = None
    ) -> RunSummary:
        """Write foreground/, background/, overlay/, overlay.mp4, layout/ and summary.json; see `Task.infer`."""
        began = time.time()
        source, layout = self._open()
        resumes = self._claim(engine)
        summary = self._finished() if resumes and before is None else None
        if summary is None:
            summary = self._record(source, layout, engine, resumes, threads, report or Report(), began, before)
        if summary.frames == 0 and not summary.interrupted:
            raise NothingReadable(f"{self.source} gave no readable frame ({len(summary.skipped)} unreadable)")
        return summary

    def plan(self, engine: InferenceEngine, workers: int) -> Plan:
        """Divide the frames; see `Task.plan`."""
        source, layout = self._open()
        resumes = self._claim(engine)
        resumed = self._pictures(layout).count()
        if self.limit is not None or source.length is None or (resumes and self._finished()):
            return Plan(source.length, [], resumed)
        return Plan(source.length, stretches(source.length, STRETCH, 2 * workers), resumed)

    def infer_stretch(
        self, engine: InferenceEngine, start: int, stop: int | None, report: Report | None = None
    ) -> list[Timing]:
        """Write the pictures of some frames, and leave video and summary to `infer`; see `Task.infer_stretch`."""
        report = report or Report()
        source, layout = self._open()
        part = source.part(start, stop)
        self._claim(engine)
        pictures = self._pictures(layout)
        timings = []
        with (
            BackgroundCalls(1, 2) as encoding,
            closing(prefetch(_with_results(part, pictures))) as items,
        ):
            for done, (item, stored) in enumerate(items, start=1):
                if isinstance(item, Frame) and stored is None:
                    scene = infer_frame(engine, item)
                    if isinstance(scene, Scene):
                        encoding.call(pictures.write, item, scene)
                        timings.append(scene.timing)
                report.progress(done, part.length)
        return timings

    def _open(self) -> tuple[Source, LayoutOptions | None]:
        """Open the source; return how its frames are laid out, too, with the calibration of a recording."""
        source = open_source(self.source, topic=self.topic, seed=self.seed, significant_bits=self.significant_bits)
        layout = self.layout
        if layout is not None:
            knows = isinstance(source, SyntheticSource)
            if layout.calibration is None and isinstance(source, BagSource):
                layout = replace(layout, calibration=source.calibration())
            layout.require_camera(calibrated=knows, posed=knows)
        return source, layout

    def _pictures(self, layout: LayoutOptions | None) -> PictureFolder:
        return PictureFolder(self.output, self.outputs, layout)

    def _claim(self, engine: InferenceEngine) -> bool:
        require_given(map(output_named, self.outputs), engine.metadata, engine.weights_name)
        seed = self.seed if self.source == SYNTHETIC else None
        return self.claim(engine, MADE_BY, _RESULTS, seed=seed, topic=self.topic)

    def _finished(self) -> RunSummary | None:
        """Return the summary of a run that came to its end and whose files are all there still."""
        summary = RunSummary.read(self.output)
        if summary is None or summary.interrupted or (summary.frames and not (self.output / VIDEO).is_file()):
            return None
        if self._pictures(self.layout).count() < summary.frames:
            return None
        return replace(summary, resumed=summary.frames)

    def _record(
        self,
        source: Source,
        layout: LayoutOptions | None,
        engine: InferenceEngine,
        resumes: bool,
        threads: int,
        report: Report,
        began: float,
        before: Before | None,
    ) -> RunSummary:
        limit = self.limit or (SYNTHETIC_FRAMES if source.length is None else None)
        total = min(filter(None, (limit, source.length)), default=None)
        timings: list[Timing] = []
        resumed = 0
        skipped: list[Unreadable] = []
        interrupted = False
        report.progress(0, total)
        with (
            Recorder(self.output, source.rate, threads, self.outputs, layout) as recorder,
            closing(prefetch(_with_results(source, recorder.pictures if resumes else None))) as items,
        ):
            for item, stored in items:
                result = infer_frame(engine, item) if isinstance(item, Frame) and stored is None else item
                if isinstance(result, Unreadable):
                    skipped.append(result)
                    report.skipped(result.name, result.reason)
                elif isinstance(result, Scene):
                    assert isinstance(item, Frame)
                    recorder.add(item, result)
                    timings.append(result.timing)
                elif stored is not None:
                    recorder.add_written(result, stored)
                    resumed += 1
                report.progress(recorder.frames, total)
                if recorder.frames == limit:
                    break
                if report.stopped():
                    interrupted = True
                    break
            recorded = recorder.finish()
        if before is not None:
            began, resumed, timings = before.began, before.resumed, [*before.timings, *timings]
        summary = RunSummary(
            made_by=MADE_BY,
            frames=recorded.frames,
            source=self.source,
            skipped=[item.name for item in skipped],
            reasons=[item.reason for item in skipped],
            lost=lost_files(skipped),
            interrupted=interrupted,
            resumed=resumed,
            **measured(engine, timings, began),
            mean_foreground_share=recorded.mean_foreground_share,
            scores=recorded.scores,
        )
        summary.write(self.output)
        for folder in (self.output, *(self.output / name for name in FOLDERS)):
            remove_leftovers(folder)
        return summary


def start_anew(folder: Path, settings: Settings, *, source: str | Path) -> None:
    """Make a folder ready for results that no later run goes on with, and remove those of other runs.

    Raises:
        OutputError, WriteError: see `resume.claim`.
    """
    once = {**settings, "run": time.time_ns()}
    claim(folder, MADE_BY, once, source=source, results=_RESULTS, overwrite=True)


def infer_frame(engine: InferenceEngine, frame: Frame) -> Scene | Unreadable:
    """Infer one frame; one that the engine refuses is no reason to lose the others."""
    try:
        return engine(frame.image)
    except ImageError as error:
        return Unreadable(frame.place or frame.name, str(error))


def _with_results(
    items: Iterable[Frame | Unreadable], pictures: PictureFolder | None
) -> Iterator[tuple[Frame | Unreadable, Scene | None]]:
    """Yield each item with what an earlier run has written for it."""
    for item in items:
        yield item, pictures.read(item.name) if pictures is not None and isinstance(item, Frame) else None
