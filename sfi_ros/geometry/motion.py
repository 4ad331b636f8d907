"""Where a vehicle is on flat ground, and how it moved: odometry without ROS."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from sfi_ros.errors import OptionError

LONGEST_GAP: Final = 0.5
"""Seconds between two odometry messages across which a pose is interpolated."""

_TURN: Final = 5.0  # metres that a turn by one radian is worth


@dataclass(frozen=True)
class PlanarPose:
    """A vehicle's frame (x forward, y left) in the frame that it moves in, such as `odom`.

    Attributes:
        x, y: of its origin, metres.
        yaw: radians, counter-clockwise.

    Raises:
        OptionError: a number that is not finite.
    """

    x: float = 0.0
    y: float = 0.0
    yaw: float = 0.0

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, astuple(self))):
            raise OptionError(f"a vehicle's pose must be finite, not {astuple(self)}")

    @classmethod
    def from_message(cls, pose: Any) -> PlanarPose:
        """Return that of a geometry_msgs/Pose; see `from_odometry`. rclpy's and rosbags' messages both fit."""
        turned = pose.orientation
        return cls.from_odometry((pose.position.x, pose.position.y), (turned.x, turned.y, turned.z, turned.w))

    @classmethod
    def from_odometry(cls, position: Sequence[float], quaternion: Sequence[float]) -> PlanarPose:
        """Return the pose that nav_msgs/Odometry tells, roll and pitch left out.

        Args:
            position: x and y, metres; what follows is not looked at.
            quaternion: x, y, z, w.

        Raises:
            OptionError: numbers that are not finite, or a quaternion of zeros.
        """
        a, b, c, w = map(float, quaternion)
        if a * a + b * b + c * c + w * w == 0:
            raise OptionError("the odometry has a rotation of zeros")
        yaw = math.atan2(2 * (w * c + a * b), w * w + a * a - b * b - c * c)
        return cls(float(position[0]), float(position[1]), yaw)

    def then(self, step: PlanarPose) -> PlanarPose:
        """Return where the vehicle is after a step in its own frame."""
        x, y = self.points(np.array(step.x), np.array(step.y))
        return PlanarPose(float(x), float(y), self.yaw + step.yaw)

    def seen_from(self, other: PlanarPose) -> PlanarPose:
        """Return the step that leads from another pose to this one: `other.then(pose.seen_from(other))` is `pose`."""
        x, y = other.local_points(np.array(self.x), np.array(self.y))
        return PlanarPose(float(x), float(y), self.yaw - other.yaw)

    def points(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bring points of the vehicle's frame into the frame that it moves in."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return self.x + cos * x - sin * y, self.y + sin * x + cos * y

    def local_points(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bring points into the vehicle's frame: the inverse of `points`."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        dx, dy = x - self.x, y - self.y
        return cos * dx + sin * dy, cos * dy - sin * dx

    def distance(self, other: PlanarPose) -> float:
        """Metres between two poses."""
        return math.hypot(self.x - other.x, self.y - other.y)

    def moved(self, other: PlanarPose) -> float:
        """Metres between two poses, of which a turn by one radian is worth five: how differently a camera sees."""
        return self.distance(other) + _TURN * abs(math.remainder(self.yaw - other.yaw, 2 * math.pi))


class Track:
    """Poses of a vehicle over time.

    Args:
        times: nanoseconds, in any order; of equal ones the last counts.
        poses: one for each.
    """

    def __init__(self, times: Iterable[int], poses: Iterable[PlanarPose]):
        known = sorted(dict(zip(times, poses, strict=True)).items())
        self.times = np.array([time for time, _ in known], np.int64)
        self._poses = np.array([astuple(pose) for _, pose in known], np.float64).reshape(-1, 3)
        self._poses[:, 2] = np.unwrap(self._poses[:, 2])

    def __len__(self) -> int:
        return len(self.times)

    def poses(self) -> list[PlanarPose]:
        """Return all poses in order."""
        return [PlanarPose(*pose) for pose in self._poses.tolist()]

    def at(self, time: int) -> PlanarPose | None:
        """Return the pose at a time in nanoseconds, between two others in proportion.

        None where the odometry does not say: before its first and behind its last message, and in a gap of more than
        `LONGEST_GAP` seconds.
        """
        after = int(np.searchsorted(self.times, time))
        if after < len(self) and self.times[after] == time:
            return PlanarPose(*self._poses[after].tolist())
        if not 0 < after < len(self):
            return None
        before_time, after_time = int(self.times[after - 1]), int(self.times[after])
        if after_time - before_time > LONGEST_GAP * 1e9:
            return None
        share = (time - before_time) / (after_time - before_time)
        pose = (1 - share) * self._poses[after - 1] + share * self._poses[after]
        return PlanarPose(*pose.tolist())

    def noisy(self, distance: float, turn: float, seed: int = 0) -> Track:
        """Return what worse odometry would have told of the same drive.

        Half of the error is one of the whole drive (a worn tyre, a gyroscope's bias), half of it wanders, such that its
        standard deviation over one metre is what is asked for.

        Args:
            distance: standard deviation of the scale of distances, 0.01 for 1 %.
            turn: of the yaw, radians for each metre driven.
            seed: of the draw.
        """
        random = np.random.default_rng(seed)
        scale, bias = random.normal(0, math.sqrt(0.5), 2) * (distance, turn)
        poses = self.poses()
        told = poses[:1]
        for before, after in pairwise(poses):
            step = after.seen_from(before)
            length = math.hypot(step.x, step.y)
            longer, turned = random.normal(0, math.sqrt(0.5 * length), 2) * (distance, turn)
            factor = 1 + scale + (longer / length if length > 0 else 0.0)
            turned += step.yaw + bias * length
            told.append(told[-1].then(PlanarPose(step.x * factor, step.y * factor, turned)))
        return Track(self.times.tolist(), told)
