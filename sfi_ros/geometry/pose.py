"""Where a camera is over the ground, in the vehicle's axes (REP-103: x forward, y left, z up)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Final

import numpy as np

from sfi_ros.errors import OptionError

_OPTICAL_TO_BODY: Final = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""An optical frame's axes (right, down, forward) in a body frame's (forward, left, up)."""


@dataclass(frozen=True)
class CameraPose:
    """A camera over flat ground.

    Attributes:
        height: of the camera above the ground, metres, positive.
        pitch: radians, positive when it looks down.
        roll: radians, positive when its right side is lower.
        yaw: radians, positive when it looks left.
        x, y: metres forward and left of the vehicle's origin on the ground.

    The angles turn about the vehicle's axes in the order roll, pitch, yaw, as in URDF and TF.

    Raises:
        OptionError: a number that is not finite, or a height that is not positive.
    """

    height: float
    pitch: float = 0.0
    roll: float = 0.0
    yaw: float = 0.0
    x: float = 0.0
    y: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not math.isfinite(getattr(self, field.name)):
                raise OptionError(f"{field.name} of the camera's pose must be finite, not {getattr(self, field.name)}")
        if self.height <= 0:
            raise OptionError(f"the camera's height above the ground must be positive, not {self.height:g} m")

    @classmethod
    def from_rotation(cls, rotation: np.ndarray, position: Sequence[float]) -> CameraPose:
        """Return the pose of an optical frame.

        Args:
            rotation: (3, 3), its axes as columns in the vehicle's axes.
            position: x, y and height, metres.
        """
        body = np.asarray(rotation, dtype=np.float64) @ _OPTICAL_TO_BODY.T
        x, y, height = map(float, position)
        return cls(
            height,
            pitch=math.asin(max(-1.0, min(1.0, -body[2, 0]))),
            roll=math.atan2(body[2, 1], body[2, 2]),
            yaw=math.atan2(body[1, 0], body[0, 0]),
            x=x,
            y=y,
        )

    @classmethod
    def from_transform(cls, translation: Sequence[float], quaternion: Sequence[float]) -> CameraPose:
        """Return the pose that TF gives for a camera's optical frame in a frame on the ground.

        Args:
            translation: x, y, z of geometry_msgs/Transform, metres.
            quaternion: x, y, z, w of it.

        Raises:
            OptionError: see the class; or a quaternion of zeros.
        """
        a, b, c, w = np.asarray(quaternion, dtype=np.float64)
        square = a * a + b * b + c * c + w * w
        if not square > 0:
            raise OptionError("the camera's transform has a rotation of zeros")
        s = 2.0 / square
        rotation = np.array(
            [
                [1 - s * (b * b + c * c), s * (a * b - c * w), s * (a * c + b * w)],
                [s * (a * b + c * w), 1 - s * (a * a + c * c), s * (b * c - a * w)],
                [s * (a * c - b * w), s * (b * c + a * w), 1 - s * (a * a + b * b)],
            ]
        )
        return cls.from_rotation(rotation, translation)

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) float64: the optical frame's axes as columns in the vehicle's axes."""
        (cr, cp, cy), (sr, sp, sy) = (
            [function(angle) for angle in (self.roll, self.pitch, self.yaw)] for function in (math.cos, math.sin)
        )
        body = np.array(
            [
                [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
                [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
                [-sp, cp * sr, cp * cr],
            ]
        )
        return body @ _OPTICAL_TO_BODY

    @property
    def quaternion(self) -> np.ndarray:
        """(4,) float64: x, y, z, w of `rotation`, as TF tells it; w is not negative."""
        axes = self.rotation
        w = 0.5 * math.sqrt(max(0.0, 1 + axes.trace()))
        if w > 1e-7:
            (x, y, z) = axes[2, 1] - axes[1, 2], axes[0, 2] - axes[2, 0], axes[1, 0] - axes[0, 1]
            return np.array([x / (4 * w), y / (4 * w), z / (4 * w), w])
        # Half a turn: the axis is the eigenvector of 1.
        values, vectors = np.linalg.eigh(axes + axes.T)
        return np.append(vectors[:, int(np.argmax(values))], 0.0)

    @property
    def position(self) -> np.ndarray:
        """(3,) float64: x, y and height."""
        return np.array([self.x, self.y, self.height])

    def rounded(self, metres: float = 0.005, radians: float = 0.0005) -> CameraPose:
        """Return the pose on a raster, so that one that trembles does not need a new table for every frame."""
        units = {"height": metres, "x": metres, "y": metres}
        values = zip(fields(self), astuple(self), strict=True)
        steps = [(value, units.get(field.name, radians)) for field, value in values]
        height, *others = (round(value / step) * step for value, step in steps)
        return CameraPose(max(height, metres), *others)
