"""Writes scenes to a folder: masks, class maps, overlays, a video and a summary."""

from __future__ import annotations

import json
import math
import shutil
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from sfi_ros.frames.sources import Frame
from sfi_ros.inference import Scene
from sfi_ros.offline.prefetch import Behind
from sfi_ros.scores import RegionScores
from sfi_ros.synthetic import SyntheticFrame
from sfi_ros.visualization import colorize, overlay, side_by_side

SUMMARY: Final = "summary.json"
_FOLDERS: Final = ("foreground", "background", "overlay", "comparison")
_COMPARISON_EVERY: Final = 10


class RecorderError(OSError):
    """The output folder cannot be written."""


class Recorder:
    """Collects the results of one run in one folder.

    Pictures are made and encoded by threads of its own, while the caller infers the next frames.

    Args:
        folder: made if it is not there; results of an earlier run in it are removed.
        rate: of the video, in frames per second.
        threads: that encode pictures; one more writes the video, whose frames have an order.

    Raises:
        RecorderError: it cannot be made, or holds files that no run of ours has written.
    """

    def __init__(self, folder: Path, rate: float, threads: int = 1):
        self.folder, self._rate = folder, rate
        self._pictures, self._in_order = Behind(threads, 2 * threads), Behind(1, 2 * threads)
        self._video: cv2.VideoWriter | None = None
        self._video_size: tuple[int, int] | None = None
        self._seconds: list[tuple[float, float, float]] = []
        self._shares: list[float] = []
        self._scores: RegionScores | None = None
        self._began = time.perf_counter()
        _prepare(folder)

    @property
    def frames(self) -> int:
        """Scenes added so far."""
        return len(self._seconds)

    def add(self, frame: Frame, scene: Scene) -> None:
        """Write one scene, now or soon.

        Raises:
            RecorderError: an earlier scene could not be written.
        """
        picture = self._pictures.call(self._write_pictures, frame, scene)
        self._in_order.call(self._follow, frame, scene, picture, self.frames % _COMPARISON_EVERY == 0)
        timing = scene.timing
        self._seconds.append((timing.preprocess, timing.network, timing.postprocess))
        self._shares.append(scene.foreground_share)

    def close(self, **facts: Any) -> dict[str, Any]:
        """Finish the video and write the summary: `facts` and what was measured. Returns the summary.

        Raises:
            RecorderError: a scene could not be written.
        """
        self._pictures.finish()
        self._in_order.finish()
        if self._video is not None:
            self._video.release()
        wall = time.perf_counter() - self._began
        stages = np.array(self._seconds).reshape(-1, 3) * 1e3
        latency = stages.sum(1)
        summary: dict[str, Any] = {
            "made_by": "sfi run",
            "frames": self.frames,
            **facts,
            "frames_per_second": self.frames / wall if wall > 0 else 0.0,
            "latency_ms": _percentiles(latency),
            "stages_ms_p50": {
                name: _percentiles(stages[:, column])["p50"]
                for column, name in enumerate(("preprocess", "network", "postprocess"))
            },
            "mean_foreground_share": float(np.mean(self._shares)) if self._shares else None,
        }
        if self._scores is not None:
            scores = self._scores.compute()
            summary.update({name: None if math.isnan(value) else value for name, value in scores.items()})
        (self.folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        return summary

    def _write_pictures(self, frame: Frame, scene: Scene) -> np.ndarray:
        """Write what one scene looks like; returns its overlay."""
        image = _resized(frame.image, scene.foreground.shape)
        picture = overlay(image, scene.foreground, scene.background)
        self._write("foreground", frame.name, scene.foreground * 255)
        self._write("background", frame.name, scene.background)
        self._write("overlay", frame.name, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), ".jpg")
        return picture

    def _follow(self, frame: Frame, scene: Scene, picture: Future[np.ndarray], compare: bool) -> None:
        """What goes from frame to frame."""
        self._add_to_video(picture.result())
        if frame.truth is not None:
            self._score(frame, scene, frame.truth, compare)

    def _write(self, kind: str, name: str, image: np.ndarray, suffix: str = ".png") -> None:
        path = self.folder / kind / f"{name}{suffix}"
        path.parent.mkdir(exist_ok=True)
        if not cv2.imwrite(str(path), image):
            raise RecorderError(f"{path} cannot be written; is the disk full?")

    def _add_to_video(self, picture: np.ndarray) -> None:
        size = (picture.shape[1], picture.shape[0])
        if self._video is None:
            path = self.folder / "overlay.mp4"
            self._video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), self._rate, size)
            self._video_size = size
            if not self._video.isOpened():
                raise RecorderError(f"{path} cannot be written: OpenCV has no MPEG-4 encoder for {size[0]}x{size[1]}")
        if size != self._video_size:  # a folder may mix sizes; a video cannot
            picture = cv2.resize(picture, self._video_size, interpolation=cv2.INTER_AREA)
        self._video.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def _score(self, frame: Frame, scene: Scene, truth: SyntheticFrame, compare: bool) -> None:
        self._scores = self._scores or RegionScores()
        true_foreground = _resized(truth.foreground, scene.foreground.shape, cv2.INTER_NEAREST_EXACT)
        true_background = _resized(truth.background, scene.foreground.shape, cv2.INTER_NEAREST_EXACT)
        self._scores.add(scene.foreground, scene.background, true_foreground, true_background)
        if compare:
            panels = {
                "camera": _resized(frame.image, scene.foreground.shape),
                "foreground": cv2.merge([scene.foreground * 255] * 3),
                "inpainted background": colorize(scene.background),
                "true background": colorize(true_background),
            }
            self._write("comparison", frame.name, cv2.cvtColor(side_by_side(panels), cv2.COLOR_RGB2BGR))


def check_folder(folder: Path) -> None:
    """Accept a folder for results: one that is not there, is empty, or holds those of an earlier run.

    Raises:
        RecorderError: it holds files that no run of ours has written.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    try:
        ours = json.loads((folder / SUMMARY).read_text(encoding="utf-8")).get("made_by") == "sfi run"
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise RecorderError(f"{folder} holds other files than results of `sfi run`; name an empty or new folder")


def _prepare(folder: Path) -> None:
    try:
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / SUMMARY).unlink(missing_ok=True)
    except RecorderError:
        raise
    except OSError as error:
        raise RecorderError(f"{folder} cannot be used for results: {error}") from error


def _resized(image: np.ndarray, shape: tuple[int, ...], interpolation: int = cv2.INTER_AREA) -> np.ndarray:
    if image.shape[:2] == shape[:2]:
        return image
    return cv2.resize(image, (shape[1], shape[0]), interpolation=interpolation)


def _percentiles(milliseconds: np.ndarray) -> dict[str, float | None]:
    if len(milliseconds) == 0:
        return {"p50": None, "p95": None, "max": None}
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return {"p50": float(p50), "p95": float(p95), "max": float(milliseconds.max())}
