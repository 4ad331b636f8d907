"""How far the vehicle nods, as its IMU says: braking and bumps move a camera's horizon by a degree and more."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Final

from rclpy.node import Node
from sensor_msgs.msg import Imu

from sfi_ros.frames.stamps import nanoseconds
from sfi_ros.ros.qos import camera_qos, subscribe_to

_KEPT: Final = 400  # messages: seconds of them, so that a late image finds its own


class ImuPitch:
    """Subscribes to an IMU in the vehicle's axes (REP-103) and keeps its pitch.

    On a slope the road is tilted as the vehicle is, so what counts is by how much the pitch differs from its average.

    Args:
        node: to subscribe with.
        topic: of sensor_msgs/Imu messages with orientation.
    """

    def __init__(self, node: Node, topic: str):
        self._node = node
        self.topic = node.resolve_topic_name(topic)
        self._lock = threading.Lock()
        self._newest: deque[tuple[int, float, float]] = deque(maxlen=_KEPT)  # stamp, pitch, its average
        self.mean_over = 10.0
        self._subscription = subscribe_to(node, Imu, self.topic, self._receive, camera_qos(depth=100))

    def close(self) -> None:
        """End the subscription."""
        self._node.destroy_subscription(self._subscription)

    def of(self, stamp: int, tolerance: float) -> float:
        """Return the pitch in radians, positive for nose down, at the time of an image; safe from any thread.

        Args:
            stamp: of the image, nanoseconds.
            tolerance: seconds that a message may be away from it.

        Raises:
            LookupError: no message is that near; says so.
        """
        with self._lock:
            received = list(self._newest)
        if not received:
            raise LookupError(f"no orientation arrived on {self.topic}")
        at, pitch, mean = min(received, key=lambda one: abs(one[0] - stamp))
        away = abs(at - stamp) * 1e-9
        if away > tolerance:
            raise LookupError(f"the nearest message on {self.topic} is {away:.2f} s away from the image")
        return pitch - mean

    def _receive(self, message: Imu) -> None:
        if message.orientation_covariance[0] < 0:  # by convention: it measures none
            return
        at, pitch = nanoseconds(message.header.stamp), pitch_of(message.orientation)
        with self._lock:
            before = self._newest[-1] if self._newest else None
            if before is None or at < before[0]:
                self._newest.clear()
                mean = pitch if self.mean_over else 0.0
            elif self.mean_over:
                share = 1 - math.exp((before[0] - at) * 1e-9 / self.mean_over)
                mean = before[2] + share * (pitch - before[2])
            else:
                mean = 0.0
            self._newest.append((at, pitch, mean))


def pitch_of(orientation: object) -> float:
    """Return the pitch of a geometry_msgs/Quaternion in radians, positive where x points down."""
    x, y, z, w = (getattr(orientation, name) for name in "xyzw")
    square = x * x + y * y + z * z + w * w
    return math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x) / square))) if square > 0 else 0.0
