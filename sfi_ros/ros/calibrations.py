"""The calibrations that a camera publishes, and which of them belongs to an image."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo

from sfi_ros.frames.stamps import nanoseconds
from sfi_ros.geometry.calibration import Calibration, CalibrationError
from sfi_ros.ros.qos import camera_qos, latched_qos, subscribe_to

_KEPT: Final = 30  # messages, about a second of them
_NEAR: Final = 10**9  # nanoseconds that the stamps of one camera's image and calibration may lie apart


class Calibrations:
    """Subscribes to a camera's calibration and keeps the newest.

    Most cameras publish one with the stamp of each image, others one for all images when they start: once (latched or
    not) or now and then. So the subscription lasts as long as the node is active, also while nobody wants images.

    Args:
        node: to subscribe with.
        topic: to subscribe to, absolute.

    Attributes:
        topic: that is subscribed to.
        problem: why the newest result had no calibration; "" if it had one or there is none yet.
    """

    def __init__(self, node: Node, topic: str):
        self._node = node
        self.topic = topic
        self.problem = self._logged_problem = ""
        self._lock = threading.Lock()
        self._newest_first: deque[tuple[int, Calibration | str]] = deque(maxlen=_KEPT)  # or a problem
        self._latched: Subscription | None = None
        self._subscription = subscribe_to(node, CameraInfo, self.topic, self._receive, camera_qos(depth=10))

    def close(self) -> None:
        """End the subscriptions and forget what was received."""
        for subscription in (self._subscription, self._latched):
            if subscription is not None:
                self._node.destroy_subscription(subscription)
        self._subscription = self._latched = None
        with self._lock:
            self._newest_first.clear()

    def follow_publishers(self) -> None:
        """Ask latched publishers for what they sent earlier; to be called now and then.

        Asked of other publishers, this would make them and their users wonder about incompatible QoS.
        """
        if self._latched is not None or self._subscription is None:
            return
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        if any(publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for publisher in publishers):
            self._latched = self._node.create_subscription(CameraInfo, self.topic, self._receive, latched_qos())

    def of(self, stamp: int) -> Calibration | None:
        """Find the calibration of an image; safe from any thread.

        Args:
            stamp: of the image, nanoseconds.

        Returns:
            The one with this stamp; else the nearest within a second; else the newest. None if none was received.

        Raises:
            CalibrationError: the camera's message is not a calibration.
        """
        with self._lock:
            received = list(self._newest_first)
        if not received:
            return None
        nearest_stamp, nearest = min(received, key=lambda one: abs(one[0] - stamp))  # of several, the newest
        _, newest = received[0]
        calibration = nearest if abs(nearest_stamp - stamp) <= _NEAR else newest
        if isinstance(calibration, str):
            raise CalibrationError(calibration)
        return calibration

    def of_result(self, stamp: int, image: tuple[int, int], result: tuple[int, int]) -> Calibration | None:
        """Find the calibration of a result, None if there is none that can be used; `problem` then says why.

        Asked for last, since a calibration may arrive after its image.

        Args:
            stamp: of the image, nanoseconds.
            image, result: their width and height in pixels.
        """
        try:
            calibration = self.of(stamp)
            if calibration is None:
                self.problem = f"no message arrived on {self.topic}"
                return None
            scaled = calibration.scaled(image, result)
        except CalibrationError as error:
            problem = f"{self.topic}: {error}"
            if problem != self._logged_problem:  # an uncalibrated camera stays so: once is enough
                self._node.get_logger().warning(f"~/camera_info is left out: {problem}")
            self.problem = self._logged_problem = problem
            return None
        self.problem = ""
        return scaled

    def _receive(self, message: CameraInfo) -> None:
        calibration: Calibration | str
        try:
            calibration = Calibration.from_message(message)
        except CalibrationError as error:  # told only if an image needs it
            calibration = str(error)
        with self._lock:
            self._newest_first.appendleft((nanoseconds(message.header.stamp), calibration))
