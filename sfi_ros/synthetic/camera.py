"""A pinhole camera in street coordinates, and the drive that moves it.

The street bends and climbs gently: seen from the camera, what is `ahead` metres further is shifted by half the
curvature times ahead squared. The same parabola is used for every vertex and, solved for `ahead`, for every ground
pixel, so that everything stands on the ground.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfi_ros.geometry.motion import PlanarPose
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.synthetic.layout import LENGTH, Layout

NEAR = 0.5
"""Metres in front of the camera where geometry is cut off."""

_INTEGRATION_STEP = 0.25
"""Metres of a lane between points at which its direction is taken."""

_VEHICLE_TO_STREET = np.array([[0.0, -1, 0], [0, 0, 1], [1, 0, 0]])
"""A vehicle's axes (forward, left, up) in those of the street (right, up, ahead)."""


@dataclass(frozen=True)
class Camera:
    """Where the camera is in one frame. `matrix` is the 3x3 intrinsic matrix, `rotation` street-to-camera axes."""

    matrix: np.ndarray
    rotation: np.ndarray
    width: int
    height: int
    s: float
    d: float
    y: float
    bend: float
    climb: float

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return float(self.matrix[0, 0])

    @property
    def pose(self) -> CameraPose:
        """Where it is in the frame of its vehicle: on the road below the camera, x along the street."""
        return CameraPose.from_rotation((self.rotation @ _VEHICLE_TO_STREET).T, (0.0, 0.0, self.y))

    def axes(self, ahead: np.ndarray, d: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Camera coordinates (N, 3): right, down, forward in metres."""
        square = 0.5 * ahead * ahead
        local = np.empty((len(ahead), 3))
        local[:, 0] = d - self.d + self.bend * square
        local[:, 1] = y - self.y + self.climb * square
        local[:, 2] = ahead
        return local @ self.rotation.T

    def pixels(self, axes: np.ndarray) -> np.ndarray:
        """Pixel coordinates (N, 2) of camera coordinates (N, 3) that lie beyond NEAR."""
        return axes[:, :2] * (self.focal / axes[:, 2:]) + self.matrix[:2, 2]

    def misses(self, ahead: float, d: float, radius: float) -> bool:
        """Whether something at `d`, `ahead` metres away and within `radius` of there, is surely out of the picture."""
        right = d - self.d + 0.5 * self.bend * ahead * ahead
        turned = right * self.rotation[0, 0] + ahead * self.rotation[0, 2]
        reach = max(ahead, 0.0) * (0.53 * self.width / self.focal + 0.02) + 1.6 * radius
        return ahead < -radius or abs(turned) > reach

    def first_ground_row(self, farthest: float) -> int:
        """Return the first image row on which ground nearer than `farthest` metres can be seen."""
        y = 0.5 * self.climb * farthest**2 - self.y
        edges = np.array([[-0.6 * farthest, y, farthest], [0.6 * farthest, y, farthest]]) @ self.rotation.T
        rows = self.pixels(edges)[:, 1]
        return int(np.clip(np.floor(rows.min()) - 1, 0, self.height))


class Drive:
    """Pose of the camera as a smooth function of time; random access, no state."""

    def __init__(self, rng: np.random.Generator, layout: Layout, width: int, height: int) -> None:
        focal = width * rng.uniform(0.95, 1.2)
        self.matrix = np.array(
            [
                [focal, 0, width * rng.uniform(0.48, 0.52)],
                [0, focal, height * rng.uniform(0.44, 0.54)],
                [0, 0, 1],
            ]
        )
        self._size = (width, height)
        self.speed = float(rng.uniform(2.5, 13.0))
        self._start = float(rng.uniform(0, LENGTH))
        self._y = float(rng.uniform(1.2, 1.7))
        self.lane = int(rng.integers(layout.lanes))
        self._d = layout.lane_centre(1, self.lane) + float(rng.uniform(-0.3, 0.3))
        self._pitch = float(rng.normal(0.005, 0.02))
        self._roll = float(rng.normal(0, 0.006))
        self._sway = rng.uniform([0.05, 0.003, 0.001], [0.25, 0.015, 0.004])
        self._rhythm = rng.uniform([0.2, 0.3, 1.5], [0.6, 0.9, 5.0])
        self._phase = rng.uniform(0, 2 * np.pi, 5)
        self._bend = float(rng.choice([0.0, rng.uniform(0.0003, 0.004)], p=[0.35, 0.65]))
        self._climb = float(rng.choice([0.0, rng.uniform(-0.00015, 0.0006)], p=[0.5, 0.5]))

    def travelled(self, time: float) -> float:
        """Metres along the street at `time` seconds."""
        return self._start + self.speed * time + 0.8 * np.sin(0.35 * time + self._phase[0])

    def camera(self, time: float) -> Camera:
        """Return the camera at `time` seconds."""
        s = self.travelled(time)
        sway, yaw, bounce = self._sway * np.sin(self._rhythm * time + self._phase[:3])
        pitch = self._pitch + bounce
        around = 2 * np.pi * s / LENGTH
        cp, sp, cy, sy, cr, sr = (f(a) for a in (pitch, yaw, self._roll) for f in (np.cos, np.sin))
        to_camera = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, 1]])  # up becomes down
        turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        tilt = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        return Camera(
            matrix=self.matrix,
            rotation=roll @ tilt @ to_camera @ turn,
            width=self._size[0],
            height=self._size[1],
            s=s % LENGTH,
            d=self._d + sway,
            y=self._y,
            bend=self._bend * np.sin(around + self._phase[3]),
            climb=self._climb * (0.6 + 0.4 * np.sin(around + self._phase[4])),
        )

    def vehicle(self, time: float) -> PlanarPose:
        """Return where the camera's vehicle is at `time` seconds: below the camera, x along the street.

        The frame begins where the camera's lane does, x along the street there. The way is that of the lane, whose
        curvature is what the camera shows ahead of it; nearer than 20 m the street is where this says to a few tenths
        of a metre, farther away less so, as the picture bends the street by a parabola.
        """
        start, end = self.travelled(0.0), self.travelled(time)
        count = max(2, int(abs(end - start) / _INTEGRATION_STEP) + 2)
        s, step = np.linspace(start, end, count, retstep=True)
        yaw = self._turned(s) - self._turned(np.array(start))
        middle = 0.5 * (yaw[1:] + yaw[:-1])
        sway = -float(self._sway[0] * np.sin(self._rhythm[0] * time + self._phase[0]))
        lane = PlanarPose(float(np.cos(middle).sum() * step), float(np.sin(middle).sum() * step), float(yaw[-1]))
        return lane.then(PlanarPose(0.0, sway))

    def _turned(self, s: np.ndarray) -> np.ndarray:
        """Return the street's direction at `s`, radians to the left: the integral of its curvature."""
        wave = 2 * np.pi / LENGTH
        return self._bend / wave * np.cos(wave * (s % LENGTH) + self._phase[3])
