"""What a drive teaches: its photos with the class behind objects as other frames showed it, as a dataset to train on.

    images/NAME.png        the photo
    labels/NAME.png        what is seen: 0 road, 1 sidewalk, 2 other, 10 foreground, 255 not known or doubtful
    background/NAME.png    what lies behind the foreground: 0, 1, 2, and 255 where no frame showed it
    classes.yaml           says so; `dataset: folder` of training/ reads all of it

Foreground and visible classes are what the network said; visible ones only where it was sure, or as sure as in the
surer half of what it took for that class in this drive: a class that it is never sure of would have no label, and who
is trained on the others unlearns it. What lies behind objects is not its opinion of this frame, but what others showed
that had no object in the way; see `geometry.sightings`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from sfi_ros.classes import BACKGROUND_CLASSES, IGNORE
from sfi_ros.files import make_folder, write_bytes
from sfi_ros.frames.frame import Frame
from sfi_ros.geometry.ground import GroundCamera
from sfi_ros.geometry.ground_table import own_vehicle_mask
from sfi_ros.geometry.motion import PlanarPose
from sfi_ros.geometry.sightings import Sightings
from sfi_ros.inference import Scene
from sfi_ros.offline.layouts import LayoutOptions
from sfi_ros.offline.picture_file import write_picture

DATASET: Final = ("images", "labels", "background", "classes.yaml")
"""What the folder holds."""

SCRATCH: Final = ".scenes"
"""What a drive that was killed leaves there, too."""

FOREGROUND: Final = 10
"""Label id of objects."""

_SURE: Final = round(0.9 * 255)  # confidence from which on a visible class is written
_SURER: Final = 0.5  # share of the pixels of each class that is written whatever the confidence
_CLASSES: Final = f"""# Written by `sfi map --labels`: see docs/map.md.
background:
  road: [0]
  sidewalk: [1]
  other: [2]
foreground: [{FOREGROUND}]
ignore: [{IGNORE}]
"""


@dataclass(frozen=True)
class LabelCounts:
    """What was written.

    Attributes:
        images: photos.
        hidden: pixels of foreground.
        shown: class -> how many of them other frames showed to be that.
    """

    images: int
    hidden: int
    shown: dict[str, int]


class DriveLabels:
    """Writes the dataset of a drive: what is seen while it is read, what is hidden when all of it is known.

    Args:
        folder: made if it is not there.
        layout: which ground each frame shows, and what of it is the own vehicle, about which nothing is written.

    Raises:
        WriteError: something cannot be written; from any method.
        OptionError: the image of the own vehicle cannot be read.
    """

    def __init__(self, folder: Path, layout: LayoutOptions):
        self._folder, self._layout = folder, layout
        self._sightings = Sightings(layout.grid, layout.kerb_height)
        self._own_vehicle = layout.own_vehicle_shape()
        self._confidences = np.zeros((len(BACKGROUND_CLASSES), 256), np.int64)  # pixels by class and confidence
        self._frames: list[tuple[str, GroundCamera, PlanarPose]] = []
        for name in (*DATASET[:3], SCRATCH):
            make_folder(folder / name)
        write_bytes(folder / DATASET[3], _CLASSES.encode())

    def add(self, frame: Frame, scene: Scene) -> None:
        """Write photo and labels of a frame, and let it vote."""
        assert frame.calibration is not None and frame.pose is not None and frame.vehicle is not None
        height, width = scene.foreground.shape
        size = (width, height)
        camera = GroundCamera.of(frame.calibration, frame.pose, size, rectified=self._layout.rectified)
        own = np.zeros((height, width), np.uint8)
        if self._own_vehicle is not None:
            own = own_vehicle_mask(self._own_vehicle, frame.calibration.image_size, size)
        self._sightings.add(camera, frame.vehicle, scene.foreground | own, scene.background, scene.confidence)
        photo = frame.image
        if photo.shape[:2] != scene.foreground.shape:
            photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        self._write("images", frame.name, photo)
        visible = np.where(scene.foreground != 0, np.uint8(FOREGROUND), scene.background)
        visible[own != 0] = IGNORE
        for number, counts in enumerate(self._confidences):
            counts += np.bincount(scene.confidence[visible == number], minlength=256)
        self._write(SCRATCH, frame.name, cv2.merge([visible, scene.confidence, own]))
        self._frames.append((frame.name, camera, frame.vehicle))

    def finish(self) -> LabelCounts:
        """Write what is seen, and what lies behind the objects, of all frames."""
        counts = np.zeros(256, np.int64)
        sure = np.zeros(256, np.uint8)
        sure[: len(BACKGROUND_CLASSES)] = [_sure_from(pixels) for pixels in self._confidences]
        for name, camera, vehicle in self._frames:
            scratch = self._path(SCRATCH, name)
            scene = cv2.imdecode(np.fromfile(scratch, np.uint8), cv2.IMREAD_UNCHANGED)
            own, confidence, visible = cv2.split(scene)  # OpenCV reads the last channel first
            self._write("labels", name, np.where(confidence >= sure[visible], visible, IGNORE).astype(np.uint8))
            foreground = ((visible == FOREGROUND) & (own == 0)).astype(np.uint8)
            behind = self._sightings.behind(camera, vehicle, foreground)
            counts += np.bincount(behind[foreground != 0], minlength=256)
            self._write("background", name, behind)
            scratch.unlink()
        shutil.rmtree(self._folder / SCRATCH, ignore_errors=True)
        shown = {name: int(counts[number]) for number, name in enumerate(BACKGROUND_CLASSES)}
        return LabelCounts(len(self._frames), int(counts.sum()), shown)

    def _path(self, kind: str, name: str) -> Path:
        return self._folder / kind / f"{name}.png"

    def _write(self, kind: str, name: str, picture: np.ndarray) -> None:
        write_picture(self._path(kind, name), picture)


def _sure_from(pixels: np.ndarray) -> int:
    """Return the confidence from which on a class is written, of its pixels by confidence (256,)."""
    surer = np.cumsum(pixels[::-1])[::-1]  # pixels at least so sure
    enough = np.flatnonzero(surer >= _SURER * pixels.sum())
    return min(_SURE, int(enough[-1])) if pixels.any() else _SURE
