"""`sfi map`: a drive into a map of its ground, a report on what was inferred, and labels to learn from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, astuple, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from sfi_ros.classes import BACKGROUND_CLASSES
from sfi_ros.errors import OptionError
from sfi_ros.files import write_json
from sfi_ros.frames.frame import Frame, Unreadable
from sfi_ros.geometry.agreement import Agreement
from sfi_ros.geometry.ground_map import GroundMap
from sfi_ros.geometry.layout import INFERRED, SEEN, GroundLayout
from sfi_ros.geometry.motion import PlanarPose
from sfi_ros.geometry.whole_map import WholeMap
from sfi_ros.inference import InferenceEngine, Scene
from sfi_ros.offline.agreement_report import REPORT_FILES, write_report
from sfi_ros.offline.drive import Drive, DriveOptions
from sfi_ros.offline.drive_labels import DATASET, SCRATCH, DriveLabels
from sfi_ros.offline.layouts import LayoutOptions
from sfi_ros.offline.map_files import MAP_FILES, write_map
from sfi_ros.offline.prefetch import prefetch
from sfi_ros.offline.resume import claim, engine_settings, source_settings
from sfi_ros.offline.run import infer_frame
from sfi_ros.offline.summary import SUMMARY, engine_facts, lost_files
from sfi_ros.offline.task import NothingReadable, Report

MADE_BY: Final = "sfi map"
_LABELS_MADE_BY: Final = "sfi map --labels"


@dataclass
class MappedDrive:
    """What a drive adds up to.

    Attributes:
        layout: of the whole drive.
        agreement: of cells that were inferred first and seen later.
        track: where the vehicle was in each frame.
        skipped: frames that could not be used.
        interrupted: whether the drive was stopped before its end.
    """

    layout: GroundLayout
    agreement: Agreement
    track: list[PlanarPose]
    skipped: list[Unreadable] = field(default_factory=list)
    interrupted: bool = False


@dataclass(frozen=True)
class MapRun:
    """One drive, and the folders that its results go to.

    Attributes:
        source: "synthetic" or a recording.
        output: folder for map.pgm, map.yaml, map.png, map.npz and summary.json.
        options: how the drive is read.
        layout: how single frames are laid out; the map has their resolution.
        report: write agreement.json and agreement.html, too.
        labels: folder for a dataset of the drive; None for none.
        overwrite: replace results of another run in the folders.
        weights_digest: of the weights' file; see `resume.digest`.
    """

    source: str
    output: Path
    options: DriveOptions = field(default_factory=DriveOptions)
    layout: LayoutOptions = field(default_factory=LayoutOptions)
    report: bool = False
    labels: Path | None = None
    overwrite: bool = False
    weights_digest: str = ""

    def run(self, engine: InferenceEngine, report: Report | None = None) -> dict[str, Any]:
        """Map the drive; return what `summary.json` holds.

        Raises:
            SourceError: see `Drive`.
            OutputError: see `resume.claim`.
            OptionError: the map would be too large.
            WriteError: something cannot be written.
            NothingReadable: no frame could be used.
        """
        began = time.time()
        drive = Drive(self.source, self.options, self.layout)
        self._claim(engine)
        labels = None if self.labels is None else DriveLabels(self.labels, self.layout)
        mapped = map_drive(
            drive, lambda frame: infer_frame(engine, frame), self.layout, report or Report(), labels=labels
        )
        layout = mapped.layout
        write_map(self.output, layout, np.array([astuple(pose) for pose in mapped.track]))
        if self.report:
            about = {"source": self.source, "frames": len(mapped.track), "weights": engine.weights_name}
            write_report(self.output, mapped.agreement, layout.grid.resolution, about)
        counts = labels.finish() if labels is not None else None
        summary = {
            "made_by": MADE_BY,
            "source": self.source,
            "frames": len(mapped.track),
            "interrupted": mapped.interrupted,
            "skipped": [item.name for item in mapped.skipped],
            "reasons": [item.reason for item in mapped.skipped],
            "lost": lost_files(mapped.skipped),
            "metres_driven": round(_length(mapped.track), 1),
            **engine_facts(engine),
            "frames_per_second": len(mapped.track) / max(time.time() - began, 1e-9),
            "resolution": layout.grid.resolution,
            "square_metres": _areas(layout),
            "later_seen_cells": mapped.agreement.cells,
            "later_seen_agreement": mapped.agreement.share,
            "labels": None if counts is None else asdict(counts),
        }
        write_json(self.output / SUMMARY, summary)
        return summary

    def _claim(self, engine: InferenceEngine) -> None:
        settings = {
            **source_settings(self.source),
            **engine_settings(engine, self.weights_digest),
            "drive": repr(self.options),
            **self.layout.settings(),
        }
        results = (*MAP_FILES, *REPORT_FILES)
        claim(self.output, MADE_BY, settings, source=self.source, results=results, overwrite=self.overwrite)
        if self.labels is not None:
            if self.labels.resolve() == self.output.resolve():
                raise OptionError("--labels and --output must be two folders: a dataset is a folder of its own")
            claim(
                self.labels,
                _LABELS_MADE_BY,
                settings,
                source=self.source,
                results=(*DATASET, SCRATCH),
                overwrite=self.overwrite,
            )


def map_drive(
    drive: Drive,
    infer: Callable[[Frame], Scene | Unreadable],
    options: LayoutOptions,
    report: Report,
    labels: DriveLabels | None = None,
) -> MappedDrive:
    """Map a drive.

    Args:
        drive: frames in order.
        infer: the scene of a frame, or why there is none.
        options: how frames are laid out; the map has their resolution.
        report: where to tell progress.
        labels: gets every frame, too; the caller finishes it.

    Raises:
        NothingReadable: no frame could be used.
        OptionError: the map is too large for one array.
    """
    grid = options.grid
    whole = WholeMap(grid.resolution, drive.frame_id)
    # A layout's diagonal fits however it lies, with room to move before the window has to.
    size = 1.5 * float(np.hypot(grid.x_max - grid.x_min, grid.y_max - grid.y_min))
    ground = GroundMap(grid.resolution, size, drive.frame_id, whole.keep)
    maker = options.maker()
    track: list[PlanarPose] = []
    skipped: list[Unreadable] = []
    interrupted = False
    items: Iterable[Frame | Unreadable]
    with closing(prefetch(drive)) as items:
        for item in items:
            scene = infer(item) if isinstance(item, Frame) else item
            if isinstance(scene, Unreadable):
                skipped.append(scene)
                report.skipped(scene.name, scene.reason)
                continue
            assert isinstance(item, Frame) and item.vehicle is not None
            assert item.calibration is not None and item.pose is not None
            layout = maker(item.calibration, item.pose, scene.foreground, scene.background, scene.confidence)
            ground.add(layout, item.vehicle)
            if labels is not None:
                labels.add(item, scene)
            track.append(item.vehicle)
            report.progress(len(track), drive.length)
            if report.stopped():
                interrupted = True
                break
    if not track:
        raise NothingReadable(f"no frame of the drive could be mapped ({len(skipped)} could not be used)")
    ground.finish()
    return MappedDrive(whole.layout(), ground.agreement, track, skipped, interrupted)


def _length(track: list[PlanarPose]) -> float:
    return sum(after.distance(before) for before, after in pairwise(track))


def _areas(layout: GroundLayout) -> dict[str, dict[str, float]]:
    """Return square metres by class, of what is seen and of what is inferred."""
    cell = layout.grid.resolution**2
    return {
        evidence: {
            name: round(float(((layout.classes == number) & (layout.evidence == kind)).sum() * cell), 1)
            for number, name in enumerate(BACKGROUND_CLASSES)
        }
        for evidence, kind in (("seen", SEEN), ("inferred", INFERRED))
    }
