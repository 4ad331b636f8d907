"""Writes scenes to a folder: masks, class maps, overlays and a video of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from sfi_ros.files import make_folder
from sfi_ros.frames.frame import Frame
from sfi_ros.geometry.layout import GroundLayout, lay_out
from sfi_ros.inference import Scene, Timing
from sfi_ros.offline.layouts import LAYOUT, LayoutFolder, LayoutOptions, beside
from sfi_ros.offline.picture_file import write_picture
from sfi_ros.offline.prefetch import BackgroundCalls
from sfi_ros.offline.summary import finite
from sfi_ros.offline.video import Video
from sfi_ros.outputs import BACKGROUND, FOREGROUND_MASK, OUTPUTS, OVERLAY, SceneView, output_named
from sfi_ros.scores import LayoutScores, RegionScores, compare_layouts
from sfi_ros.synthetic import SyntheticFrame
from sfi_ros.visualization import colorize, side_by_side

VIDEO: Final = "overlay.mp4"

_PICTURES: Final = {"foreground": FOREGROUND_MASK, "background": BACKGROUND, "overlay": OVERLAY}
"""Folder of what is written for each frame, whatever else is asked for."""

_COMPARISON: Final = "comparison"
_COMPARISON_EVERY: Final = 10

FOLDERS: Final = (*_PICTURES, *(output.name for output in OUTPUTS), _COMPARISON, LAYOUT)
"""Folders that a recorder may write."""

_NO_TIME: Final = Timing(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Shown:
    """What the video shows of a frame.

    Attributes:
        picture: its overlay, with its layout beside it, if it has one; (H, W, 3) uint8 RGB.
        layout: on the ground; None if none is made.
    """

    picture: np.ndarray
    layout: GroundLayout | None


class PictureFolder:
    """The pictures of each frame, in one folder: maps as PNG, the others as JPEG.

    Args:
        folder: made if it is not there.
        outputs: names of outputs that are written, too, each into a folder of its name.
        layout: how frames are laid out on the ground; None if they are not. See `layouts.LayoutFolder`.

    Attributes:
        layouts: their folder; None if there is none.

    Raises:
        WriteError: it cannot be made.
        ValueError: there is no such output.
    """

    def __init__(self, folder: Path, outputs: Sequence[str] = (), layout: LayoutOptions | None = None):
        self.folder = folder
        self.layouts = None if layout is None else LayoutFolder(folder, layout)
        more = {name: output_named(name) for name in outputs}
        self._outputs = _PICTURES | {name: output for name, output in more.items() if output not in _PICTURES.values()}
        for name in self._outputs:
            make_folder(folder / name)

    def write(self, frame: Frame, scene: Scene) -> Shown:
        """Write the pictures of a frame, and its layout.

        Raises:
            WriteError: one of them cannot be written.
            OptionError, CalibrationError: see `LayoutFolder.table`.
        """
        view = SceneView(scene, frame.image)
        pictures = {name: output.make(view) for name, output in self._outputs.items()}
        for name, picture in pictures.items():
            write_picture(self._path(name, frame.name), picture)
        shown = self._shown(frame, scene, pictures["overlay"])
        if self.layouts is not None and shown.layout is not None:
            self.layouts.write(frame.name, shown.layout)
        return shown

    def show(self, frame: Frame, scene: Scene) -> Shown:
        """Make what the video shows of a frame whose pictures are written already."""
        return self._shown(frame, scene, OVERLAY.make(SceneView(scene, frame.image)))

    def _shown(self, frame: Frame, scene: Scene, overlay: np.ndarray) -> Shown:
        if self.layouts is None:
            return Shown(overlay, None)
        layout = self.layouts.make(frame, scene)
        return Shown(beside(overlay, layout), layout)

    def write_comparison(
        self, frame: Frame, scene: Scene, true_background: np.ndarray, layouts: Sequence[GroundLayout] = ()
    ) -> None:
        """Write camera, results and truth side by side.

        Args:
            frame, scene: see `write`.
            true_background: (H, W) uint8 of the scene's size.
            layouts: that of the scene and that of the truth, or none.

        Raises:
            WriteError: it cannot be written.
        """
        view = SceneView(scene, frame.image)
        panels = {
            "camera": view.resized_image,
            "foreground": cv2.merge([FOREGROUND_MASK.make(view)] * 3),
            "inpainted background": colorize(scene.background),
            "true background": colorize(true_background),
        }
        for title, layout in zip(("layout", "layout of the truth"), layouts, strict=False):
            panels[title] = beside(
                np.empty((scene.foreground.shape[0], 0, 3), np.uint8), layout, scene.foreground.shape[1]
            )
        make_folder(self.folder / _COMPARISON)
        write_picture(self.folder / _COMPARISON / f"{frame.name}.png", side_by_side(panels))

    def read(self, name: str) -> Scene | None:
        """Return mask and classes that an earlier run wrote for a frame, without confidence, probability and timing.

        None unless all pictures of the frame are there, and these can be read.
        """
        if not all(self._path(folder, name).is_file() for folder in self._outputs):
            return None
        if self.layouts is not None and not self.layouts.has(name):
            return None
        foreground, background = (_read(self._path(folder, name)) for folder in ("foreground", "background"))
        if foreground is None or background is None or foreground.shape != background.shape:
            return None
        unknown = np.empty((0, 0), np.uint8)
        return Scene(foreground // 255, background, unknown, unknown, _NO_TIME)

    def count(self) -> int:
        """Return how many frames have all their pictures."""
        names = [{path.stem for path in (self.folder / name).iterdir()} for name in self._outputs]
        return len(set.intersection(*names, *([] if self.layouts is None else [self.layouts.names()])))

    def _path(self, folder: str, name: str) -> Path:
        return self.folder / folder / f"{name}.{'png' if self._outputs[folder].encoding == 'mono8' else 'jpg'}"


def _read(path: Path) -> np.ndarray | None:
    """Return a map, None if it cannot be read."""
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError:
        return None
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    return image if image is not None and image.ndim == 2 else None


@dataclass(frozen=True)
class Recorded:
    """What a recorder has counted.

    Attributes:
        frames: in the folder.
        mean_foreground_share: of the pixels, 0 to 1; None without frames.
        scores: name -> 0 to 1, None where nothing was counted; empty where no truth is known.
    """

    frames: int
    mean_foreground_share: float | None
    scores: dict[str, float | None]


class Recorder:
    """Collects the results of one run in one folder; a context manager.

    Pictures are made and encoded by threads of its own, while the caller infers the next frames. The video appears when
    the block ends; if the block raises, the pictures stay and the video does not appear.

    Args:
        folder: made if it is not there.
        rate: of the video, in frames per second.
        threads: that encode pictures; one more writes the video, whose frames have an order.
        outputs, layout: see `PictureFolder`.

    Raises:
        WriteError: it cannot be made; or a scene could not be written, from any method.
        OptionError, CalibrationError: see `LayoutFolder.table`; from any method.
    """

    def __init__(
        self,
        folder: Path,
        rate: float,
        threads: int = 1,
        outputs: Sequence[str] = (),
        layout: LayoutOptions | None = None,
    ):
        self.pictures = PictureFolder(folder, outputs, layout)
        self._video = Video(folder / VIDEO, rate)
        self._encoding, self._in_order = BackgroundCalls(threads, 2 * threads), BackgroundCalls(1, 2 * threads)
        self._shares: list[float] = []
        self._scores: RegionScores | None = None
        self._layout_scores: LayoutScores | None = None
        self._parts = ExitStack()

    @property
    def folder(self) -> Path:
        """Where the results are."""
        return self.pictures.folder

    @property
    def frames(self) -> int:
        """Frames added so far."""
        return len(self._shares)

    def add(self, frame: Frame, scene: Scene) -> None:
        """Write one scene, now or soon."""
        self._follow(frame, scene, self._encoding.call(self.pictures.write, frame, scene))

    def add_written(self, frame: Frame, scene: Scene) -> None:
        """Take over a frame whose pictures an earlier run has written: it goes into the video and is counted."""
        self._follow(frame, scene, self._encoding.call(self.pictures.show, frame, scene))

    def finish(self) -> Recorded:
        """Wait for all pictures; return what was counted."""
        self._encoding.finish()
        self._in_order.finish()
        scores = [kind.compute() for kind in (self._scores, self._layout_scores) if kind is not None]
        return Recorded(
            self.frames,
            float(np.mean(self._shares)) if self._shares else None,
            finite({name: score for kind in scores for name, score in kind.items()}),
        )

    def __enter__(self) -> Recorder:
        for part in (self._video, self._in_order, self._encoding):
            self._parts.enter_context(part)
        return self

    def __exit__(self, *error: Any) -> None:
        self._parts.__exit__(*error)

    def _follow(self, frame: Frame, scene: Scene, shown: Future[Shown]) -> None:
        """Do later, frame after frame, what has an order."""
        self._in_order.call(self._count, frame, scene, shown, self.frames % _COMPARISON_EVERY == 0)
        self._shares.append(float(scene.foreground.mean()))

    def _count(self, frame: Frame, scene: Scene, shown: Future[Shown], compare: bool) -> None:
        self._video.add(shown.result().picture)
        if frame.truth is not None:
            self._score(frame, scene, frame.truth, shown.result().layout, compare)

    def _score(
        self, frame: Frame, scene: Scene, truth: SyntheticFrame, layout: GroundLayout | None, compare: bool
    ) -> None:
        self._scores = self._scores or RegionScores()
        true_foreground = _resized(truth.foreground, scene.foreground.shape)
        true_background = _resized(truth.background, scene.foreground.shape)
        self._scores.add(scene.foreground, scene.background, true_foreground, true_background)
        layouts: list[GroundLayout] = []
        if self.pictures.layouts is not None and layout is not None:
            table = self.pictures.layouts.table(frame, scene)
            layouts = [layout, lay_out(table, true_foreground, true_background)]
            self._layout_scores = self._layout_scores or LayoutScores()
            self._layout_scores.add(compare_layouts(table, *layouts, true_foreground, true_background))
        if compare:
            self.pictures.write_comparison(frame, scene, true_background, layouts)


def _resized(truth: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return cv2.resize(truth, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST_EXACT)
