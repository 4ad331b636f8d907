"""`sfi bag`: the engine over the cameras of a recording, into a rosbag2 of the results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import numpy as np

from sfi_ros.errors import ImageError, OptionError
from sfi_ros.files import remove_leftovers
from sfi_ros.frames.bags import INFO
from sfi_ros.frames.frame import Unreadable
from sfi_ros.frames.names import printable
from sfi_ros.geometry.calibration import Calibration, CalibrationError
from sfi_ros.geometry.occupancy import Costs, occupied_now
from sfi_ros.inference import InferenceEngine, Scene, Timing
from sfi_ros.offline.bag_files import BAG_CONTENT, IMAGES_PER_PART, BagFolder, Part, PartWriter, Topic
from sfi_ros.offline.bag_messages import GRID, LABELS, MessageMaker
from sfi_ros.offline.prefetch import prefetch
from sfi_ros.offline.recording import Camera, RecordedImage, Recording
from sfi_ros.offline.summary import RunSummary, lost_files, measured
from sfi_ros.offline.task import Before, NothingReadable, Plan, Report, Task, stretches
from sfi_ros.outputs import BACKGROUND, BACKGROUND_CONFIDENCE, FOREGROUND_MASK, SceneView, output_named, require_given

MADE_BY: Final = "sfi bag"

USUAL_OUTPUTS: Final = (FOREGROUND_MASK.name, BACKGROUND.name, BACKGROUND_CONFIDENCE.name)
"""Outputs that a bag holds unless others are named."""


GRIDS: Final = ("layout", "layout_objects")
"""Topics of the ground of an image, below those of its other results: what driving costs, and what is occupied now."""


@dataclass(frozen=True)
class BagRun(Task):
    """A recording, a rosbag2 (sqlite3 or MCAP) or ROS 1 bag, whose results are a rosbag2 of the same storage.

    The results have the header and the time of recording of the images that they were made from, so both bags can be
    played together. A run that was stopped goes on where it was; one that was killed, at the last whole storage file.

    Attributes:
        topics: of images; empty for the only one.
        all_topics: infer all topics that hold images.
        compress: write images as sensor_msgs/CompressedImage.
        layout: written as nav_msgs/OccupancyGrid; without a calibration of its own, with that of the recording.
    """

    topics: tuple[str, ...] = ()
    all_topics: bool = False
    outputs: tuple[str, ...] = USUAL_OUTPUTS
    compress: bool = False

    def infer(
        self, engine: InferenceEngine, *, threads: int = 1, report: Report | None = None, before: Before | None = None
    ) -> RunSummary:
        """Write the bag; see `Task.infer`. `threads` is not used: one thread encodes and writes."""
        began = time.time()
        recording = self._open()
        resumes = self._claim(engine)
        writing = _Writing(self, recording, engine, report or Report())
        if resumes and before is None and (finished := writing.finished()):
            return finished
        before = before or Before(began, writing.frames)
        return writing.finish(writing.run(0, self.limit), before)

    def plan(self, engine: InferenceEngine, workers: int) -> Plan:
        """Divide the images; see `Task.plan`."""
        recording = self._open()
        resumes = self._claim(engine)
        writing = _Writing(self, recording, engine, Report())
        if self.limit is not None or (resumes and writing.finished()):
            return Plan(recording.length, [], writing.frames)
        return Plan(recording.length, stretches(recording.length, IMAGES_PER_PART, 2 * workers), writing.frames)

    def infer_stretch(
        self, engine: InferenceEngine, start: int, stop: int | None, report: Report | None = None
    ) -> list[Timing]:
        """Write some storage files of the bag, and leave the rest to `infer`; see `Task.infer_stretch`."""
        recording = self._open()
        self._claim(engine)
        writing = _Writing(self, recording, engine, report or Report())
        writing.run(start, stop)
        return writing.timings

    def _open(self) -> Recording:
        if self.layout is not None:
            self.layout.require_camera(calibrated=True)
        return Recording(self.source, self.topics, self.all_topics, self.significant_bits)

    def _claim(self, engine: InferenceEngine) -> bool:
        require_given(map(output_named, self.outputs), engine.metadata, engine.weights_name)
        topics = "all" if self.all_topics else list(self.topics)
        return self.claim(engine, MADE_BY, BAG_CONTENT, topics=topics, compress=self.compress)


class _Writing:
    """Writes the results of a recording part by part.

    Attributes:
        timings: of the images inferred so far.
    """

    def __init__(self, task: BagRun, recording: Recording, engine: InferenceEngine, report: Report):
        self._task, self._recording, self._engine, self._report = task, recording, engine, report
        self.timings: list[Timing] = []
        self._make = MessageMaker(task.compress)
        self._outputs = [output_named(name) for name in task.outputs]
        self._layouts = None if task.layout is None else task.layout.maker()
        topics = [topic for camera in recording.cameras.values() for topic in self._topics(camera)]
        self._folder = BagFolder(task.output, recording.storage, topics, self._make.store)
        self._parts = self._folder.parts()
        self._told: set[str] = set()
        self._losses: list[Unreadable] = []

    @property
    def frames(self) -> int:
        """Images that have results."""
        return sum(part.frames for part in self._parts.values())

    def run(self, start: int, stop: int | None) -> bool:
        """Infer and write images with these indices that have no results yet; return whether that was interrupted."""
        total = max(0, min(self._recording.length, stop or self._recording.length) - start)
        parts = range(start // IMAGES_PER_PART, -(-(start + total) // IMAGES_PER_PART))
        processed = sum(self._parts[number].images for number in parts if number in self._parts)
        self._report.progress(processed, total)
        with closing(prefetch(self._results(start, stop))) as results:
            for number, images in groupby(results, key=lambda result: result[0].index // IMAGES_PER_PART):
                part = self._parts.setdefault(number, Part())
                with self._folder.writing(number, part) as writer:
                    for image, result in images:
                        self._write(writer, part, image, result)
                        processed += 1
                        self._report.progress(processed, total)
                        if self._report.stopped():
                            break
                    part.complete = not self._report.stopped()
                self._folder.write_metadata()
                if not part.complete:
                    return True
        return False

    def finished(self) -> RunSummary | None:
        """Return the summary of a bag that came to its end and whose files are all there still."""
        summary = RunSummary.read(self._task.output)
        if summary is None or summary.interrupted or not self._folder.is_whole():
            return None
        return replace(summary, resumed=summary.frames)

    def finish(self, interrupted: bool, before: Before) -> RunSummary:
        """Write the summary and, unless the run was interrupted, remove the notes on the parts."""
        parts = [self._parts[number] for number in sorted(self._parts)]
        frames = self.frames
        skipped = [item for part in parts for item in part.skipped]
        for loss in self._losses:
            skipped.append((loss.name, loss.reason))
            self._report.skipped(loss.name, loss.reason)
        cameras = self._recording.cameras.values()
        if frames == 0 and not interrupted:
            raise NothingReadable(
                f"{self._task.source} gave no readable image on {', '.join(self._recording.cameras)} "
                f"({len(skipped)} unreadable)"
            )
        timings = [*before.timings, *self.timings]
        summary = RunSummary(
            made_by=MADE_BY,
            frames=frames,
            source=self._task.source,
            skipped=[name for name, _ in skipped],
            reasons=[reason for _, reason in skipped],
            lost=lost_files(self._losses),
            interrupted=interrupted,
            resumed=before.resumed,
            **measured(self._engine, timings, before.began),
            mean_foreground_share=sum(part.foreground_share for part in parts) / frames if frames else None,
            topics={camera.topic: camera.results for camera in cameras},
        )
        self._folder.write_metadata()
        summary.write(self._task.output)
        if not interrupted:
            self._folder.finish()
            remove_leftovers(self._task.output)
        return summary

    def _topics(self, camera: Camera) -> list[Topic]:
        images = [Topic(*self._make.image_topic(f"{camera.results}/{output.name}")) for output in self._outputs]
        infos = [Topic(f"{camera.results}/camera_info", INFO)] if camera.info_topic else []
        labelled = [output for output in self._outputs if output.classes]
        labels = [Topic(f"{camera.results}/{output.label_info}", LABELS, latched=True) for output in labelled]
        grids = [] if self._layouts is None else [Topic(f"{camera.results}/{name}", GRID) for name in GRIDS]
        return [*images, *infos, *labels, *grids]

    def _results(self, start: int, stop: int | None) -> Iterator[tuple[RecordedImage, Scene | str]]:
        """Yield the images that have no results yet with their scenes, or why there are none."""
        done = {number: IMAGES_PER_PART if part.complete else part.images for number, part in self._parts.items()}

        def wanted(index: int) -> bool:
            return index >= start and index % IMAGES_PER_PART >= done.get(index // IMAGES_PER_PART, 0)

        with closing(prefetch(self._recording.images(wanted, self._losses.append, stop))) as images:
            for image in images:
                if isinstance(image.pixels, str):
                    yield image, image.pixels
                    continue
                try:
                    yield image, self._engine(image.pixels)
                except ImageError as error:  # images that cannot be photos
                    yield image, str(error)

    def _write(self, writer: PartWriter, part: Part, image: RecordedImage, result: Scene | str) -> None:
        camera = image.camera
        part.images += 1
        if image.number == 1:
            for output in self._outputs:
                if output.classes:
                    labels = self._make.labels(output.classes, image.at)
                    writer.write(f"{camera.results}/{output.label_info}", image.at, labels)
        if isinstance(result, str):
            name = f"{image.name} in {printable(self._task.source)}"
            part.skipped.append((name, result))
            self._report.skipped(name, result)
            return
        assert isinstance(image.pixels, np.ndarray)
        part.frames += 1
        part.foreground_share += result.foreground_share
        self.timings.append(result.timing)
        view = SceneView(result, image.pixels)
        for output in self._outputs:
            topic, _ = self._make.image_topic(f"{camera.results}/{output.name}")
            writer.write(topic, image.at, self._make.image(output, view, image.header))
        calibration = self._scaled(image, result)
        if calibration is not None:
            message = self._make.calibration(calibration, image.header)
            writer.write(f"{camera.results}/camera_info", image.at, message)
        self._write_layout(writer, image, result)

    def _write_layout(self, writer: PartWriter, image: RecordedImage, scene: Scene) -> None:
        """Write the layout of a scene; tell once for each camera why there is none."""
        options = self._task.layout
        if options is None or self._layouts is None:
            return
        assert isinstance(image.pixels, np.ndarray)
        height, width = image.pixels.shape[:2]
        try:
            recorded = image.calibration if isinstance(image.calibration, Calibration) else None
            camera = options.camera(recorded, None, (width, height))
            layout = self._layouts(*camera, scene.foreground, scene.background, scene.confidence)
        except (CalibrationError, OptionError) as error:
            self._tell_once(f"layout of {image.camera.topic}", str(error))
            return
        for name, costs in zip(GRIDS, (Costs().of(layout), occupied_now(layout)), strict=True):
            message = self._make.grid(layout.grid, costs, image.header)
            writer.write(f"{image.camera.results}/{name}", image.at, message)

    def _scaled(self, image: RecordedImage, scene: Scene) -> Calibration | None:
        """Return the calibration of a scene; tell once for each camera why there is none."""
        assert isinstance(image.pixels, np.ndarray)
        calibration = image.calibration
        if isinstance(calibration, Calibration):
            (height, width), (rows, columns) = image.pixels.shape[:2], scene.foreground.shape
            try:
                return calibration.scaled((width, height), (columns, rows))
            except CalibrationError as error:
                calibration = error
        if calibration is not None:
            self._tell_once(str(image.camera.info_topic), str(calibration))
        return None

    def _tell_once(self, what: str, reason: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._report.skipped(f"{what} in {printable(self._task.source)}", reason)
