"""One drive down a synthetic street: the world is built once from a seed, frames are rendered in any order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from sfi_ros.classes import BACKGROUND_LOOKUP, FOREGROUND_LOOKUP
from sfi_ros.geometry.calibration import Calibration
from sfi_ros.geometry.motion import PlanarPose
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.synthetic.backdrop import Backdrop
from sfi_ros.synthetic.camera import Camera, Drive
from sfi_ros.synthetic.canvas import Canvas
from sfi_ros.synthetic.ground import Ground
from sfi_ros.synthetic.layout import ROAD, make_layout
from sfi_ros.synthetic.light import Sensor, make_light
from sfi_ros.synthetic.people import Figure, shape_figures
from sfi_ros.synthetic.scenery import Scenery
from sfi_ros.synthetic.shadows import darken_ground
from sfi_ros.synthetic.traffic import Moment, Placed, Traffic
from sfi_ros.synthetic.vehicles import Vehicle, shape_vehicles

_MIN_SIZE, _MAX_SIZE = 16, 8192


@dataclass(frozen=True)
class SyntheticFrame:
    """What the camera sees and what is really there; all arrays are the caller's own.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8 Cityscapes label ids of what is seen.
        foreground: (H, W) uint8, 1 on people and vehicles, else 0.
        background: (H, W) uint8 background classes 0-2 of the street without any object, so also behind objects.
    """

    image: np.ndarray
    labels: np.ndarray
    foreground: np.ndarray
    background: np.ndarray


@dataclass(frozen=True)
class GroundTruth:
    """The ground at some points, as it really is.

    Attributes:
        classes: uint8 background classes.
        heights: metres above the road, without the street's climb.
        pixels: (..., 2) where the camera has these points, also outside of the image and where something stands in
            front of them; NaN behind it.
    """

    classes: np.ndarray
    heights: np.ndarray
    pixels: np.ndarray


class SyntheticStreet:
    """One drive, determined by `seed`: same seed, size and rate give the same bytes on the same machine.

    Args:
        seed: which street, traffic, weather and camera; any integer from 0.
        width: image width in pixels, 16 to 8192.
        height: image height in pixels, 16 to 8192.
        rate: frames per second of street time, above 0.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, seed: int = 0, width: int = 512, height: int = 256, rate: float = 15.0) -> None:
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}")
        for name, value in (("width", width), ("height", height)):
            if not _MIN_SIZE <= value <= _MAX_SIZE or int(value) != value:
                raise ValueError(
                    f"{name} must be a whole number of pixels from {_MIN_SIZE} to {_MAX_SIZE}, got {value}"
                )
        if not (np.isfinite(rate) and rate > 0):
            raise ValueError(f"rate must be a number of frames per second above 0, got {rate}")
        self.seed, self.width, self.height, self.rate = int(seed), int(width), int(height), float(rate)
        # One generator per part: a change in one part leaves the others of a seed as they were.
        parts = [np.random.default_rng([self.seed, n]) for n in range(7)]
        layout = make_layout(parts[0])
        self._kerb_height = layout.kerb_height
        self._light = make_light(parts[1])
        self._scenery = Scenery(parts[2], layout, self._light)
        self._ground = Ground(parts[3], layout, self._light, self._scenery.shadows)
        self._drive = Drive(parts[4], layout, self.width, self.height)
        self._backdrop = Backdrop(parts[5], self._light, self.width, self.height, float(self.camera_matrix[0, 0]))
        self._traffic = Traffic(parts[6], layout, self._ground, self._drive)
        self._veils: dict[int, np.ndarray] = {}
        self._sensor = Sensor(parts[1], self.width, self.height)

    @property
    def camera_matrix(self) -> np.ndarray:
        """The 3x3 float64 pinhole matrix in pixels."""
        return self._drive.matrix.copy()

    def vehicle(self, index: int) -> PlanarPose:
        """Return where the vehicle is in frame `index`; see `Drive.vehicle`."""
        return self._drive.vehicle(index / self.rate)

    @property
    def calibration(self) -> Calibration:
        """The calibration of its images: a pinhole camera."""
        return Calibration.pinhole(self.width, self.height, self.camera_matrix)

    def pose(self, index: int) -> CameraPose:
        """Return where the camera is in frame `index`: see `Camera.pose`."""
        return self._camera(index).pose

    def is_flat(self) -> bool:
        """Whether the street climbs nowhere; it has kerbs all the same."""
        return self._camera(0).climb == 0.0

    def ground_at(self, index: int, x: np.ndarray, y: np.ndarray) -> GroundTruth:
        """Return what lies on the ground in frame `index`, seen from above, below everything that stands on it.

        Args:
            index: of the frame.
            x, y: points in the vehicle's frame (see `pose`), metres, arrays of one shape; x from 0.
        """
        camera = self._camera(index)
        right = -y - 0.5 * camera.bend * x * x
        labels = self._ground.labels_at(camera.s + x, camera.d + right)
        heights = np.where(labels == ROAD, 0.0, self._kerb_height)
        axes = camera.axes(x.ravel(), (camera.d + right).ravel(), heights.ravel())
        ahead = axes[:, 2] > 0.1
        pixels = np.full((x.size, 2), np.nan)
        pixels[ahead] = camera.pixels(axes[ahead])
        return GroundTruth(BACKGROUND_LOOKUP[labels], heights, pixels.reshape(*x.shape, 2))

    def _camera(self, index: int) -> Camera:
        return self._drive.camera(index / self.rate)

    def frames(self, count: int) -> Iterator[SyntheticFrame]:
        """Return the first `count` frames."""
        return (self.frame(index) for index in range(count))

    def frame(self, index: int) -> SyntheticFrame:
        """Render frame `index` (from 0), `index / rate` seconds after the start.

        Raises:
            ValueError: `index` is negative.
        """
        if index < 0:
            raise ValueError(f"frame index must be 0 or more, got {index}")
        time = index / self.rate
        moment = Moment(time, self._drive.travelled(time), self._drive.camera(time))
        canvas = self._render(moment, self._traffic.at(moment))
        labels = canvas.paint[:, :, 3].copy()
        colour = cv2.cvtColor(canvas.paint, cv2.COLOR_RGBA2RGB)
        return SyntheticFrame(
            image=self._sensor.expose(colour, np.random.default_rng([self.seed, 7, index])),
            labels=labels,
            foreground=FOREGROUND_LOOKUP[labels],
            background=BACKGROUND_LOOKUP[canvas.still],
        )

    def _render(self, moment: Moment, objects: list[Placed]) -> Canvas:
        """Paint sky, ground with shadows, then fixed things and objects from far to near."""
        camera = moment.camera
        canvas = Canvas(camera, self._light, self._backdrop.view(camera), self._veils)
        top, colours, labels, brightness, seen = self._ground.view(camera)
        if len(brightness):
            darken_ground(objects, canvas, top, brightness)
            shade = cv2.cvtColor(cv2.blur(brightness, (3, 3)), cv2.COLOR_GRAY2RGB)
            canvas.ground(top, cv2.multiply(colours, shade, scale=1 / 255), labels, seen)
        waiting = shape_vehicles([x for x in objects if isinstance(x, Vehicle)], canvas)
        waiting += shape_figures([x for x in objects if isinstance(x, Figure)], canvas)
        waiting.sort(key=lambda shapes: shapes.ahead)  # nearest first, so that pop() gives the farthest
        for ahead, thing, axes, pixels in self._scenery.view(camera):
            while waiting and waiting[-1].ahead > ahead:
                waiting.pop().draw(canvas)
            thing.draw(canvas, axes, pixels)
        while waiting:
            waiting.pop().draw(canvas)
        return canvas
