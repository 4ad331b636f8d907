"""The node's ear: subscribes to one camera and leaves the newest frame in a mailbox."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from sfi_ros.ros.mailbox import Mailbox
from sfi_ros.ros.monitor import COMPARABLE, Monitor
from sfi_ros.ros.qos import camera_qos, overridable, publisher_problems

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

_CLOCK_SKEW = 0.05  # seconds that a stamp may lie in the future: clocks of two machines


@dataclass(frozen=True)
class Arrival:
    """A frame as it came.

    Attributes:
        message: not decoded yet.
        info: the newest calibration at that time, None if there is none.
        at: `time.monotonic` seconds.
        transport: seconds from its stamp to its arrival, None where the stamp is not of the node's clock.
    """

    message: Image | CompressedImage
    info: CameraInfo | None
    at: float
    transport: float | None


class Camera:
    """Subscriptions to `image` (or `image/compressed`) and `camera_info`, while they are wanted.

    Args:
        node: to subscribe with.
        transport: raw or compressed.
        mailbox: where frames go.
        monitor: what counts them.
    """

    def __init__(self, node: Node, transport: str, mailbox: Mailbox[Arrival], monitor: Monitor):
        self._node, self._mailbox, self._monitor = node, mailbox, monitor
        topic = node.resolve_topic_name("image")
        # image_transport's convention: the name is remapped first, then the transport is appended.
        self.topic = topic if transport == "raw" else f"{topic}/compressed"
        self._type = Image if transport == "raw" else CompressedImage
        self._qos = camera_qos()
        self._info: CameraInfo | None = None
        self._unheard = False
        self._subscriptions = [
            node.create_subscription(
                self._type,
                self.topic,
                self._receive,
                self._qos,  # overrides are written into it
                event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._note_qos),
                qos_overriding_options=overridable(),
            ),
            node.create_subscription(
                CameraInfo, "camera_info", self._receive_info, camera_qos(), qos_overriding_options=overridable()
            ),
        ]

    def close(self) -> None:
        """End the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self._mailbox.clear()

    def problems(self) -> str:
        """What is wrong with the publishers of the image topic, in one line; "" if nothing is."""
        package, name = self._type.__module__.split(".")[0], self._type.__name__
        return "; ".join(publisher_problems(self._node, self.topic, f"{package}/msg/{name}", self._qos))

    def warn(self) -> None:
        """Say once which publisher cannot be heard; to be called now and then.

        Not said at the event itself: the name of a node becomes known only after its publishers.
        """
        problems = self.problems() if self._unheard else ""
        if problems and "UNKNOWN" not in problems:
            self._unheard = False
            self._node.get_logger().warning(f"{problems}: its frames do not arrive; see qos_overrides in docs/node.md")

    def _receive(self, message: Image | CompressedImage) -> None:
        now = self._node.get_clock().now().nanoseconds * 1e-9
        stamp = Time.from_msg(message.header.stamp).nanoseconds * 1e-9
        behind = now - stamp
        transport = max(behind, 0.0) if -_CLOCK_SKEW <= behind <= COMPARABLE else None
        dropped = self._mailbox.put(Arrival(message, self._info, time.monotonic(), transport))
        self._monitor.arrived(stamp, now, dropped_another=dropped)

    def _receive_info(self, info: CameraInfo) -> None:
        self._info = info

    def _note_qos(self, _: object) -> None:
        self._unheard = True
