"""Subscribes to one camera's images and leaves the newest in a mailbox."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.subscription import Subscription
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image

from sfi_ros.frames.stamps import nanoseconds
from sfi_ros.ros.dds import lost_images_remedy
from sfi_ros.ros.mailbox import Mailbox
from sfi_ros.ros.monitor import COMPARABLE, Monitor
from sfi_ros.ros.qos import camera_qos, publisher_problems, subscribe_to

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

_CLOCK_SKEW = 0.05  # seconds that a stamp may lie in the future: clocks of two machines
_SAY_EVERY = 30.0  # seconds between two log messages about the same trouble


@dataclass(frozen=True)
class Arrival:
    """A frame as it came.

    Attributes:
        message: not decoded yet.
        stamp: of the message, nanoseconds.
        at: `time.monotonic` seconds.
        transport: seconds from its stamp to its arrival, None where the stamp is not of the node's clock.
    """

    message: Image | CompressedImage
    stamp: int
    at: float
    transport: float | None


class Camera:
    """A subscription to the images of one camera, while they are wanted.

    Args:
        node: to subscribe with.
        topic: of the images, absolute.
        transport: raw or compressed.
        mailbox: where frames go.
        monitor: what counts them.
    """

    def __init__(self, node: Node, topic: str, transport: str, mailbox: Mailbox[Arrival], monitor: Monitor):
        self._node, self._mailbox, self._monitor = node, mailbox, monitor
        self.topic = topic
        self._type = Image if transport == "raw" else CompressedImage
        self._qos = camera_qos()
        self._incompatible = False
        try:
            self._subscription: Subscription | None = self._subscribe(message_lost=self._count_lost)
        except rclpy_implementation.UnsupportedEventTypeError:  # not every RMW knows what it lost
            self._subscription = self._subscribe()

    def close(self) -> None:
        """End the subscription."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        self._mailbox.clear()

    def problems(self) -> str:
        """Return what is wrong with the publishers of the image topic, in one line; "" if nothing is."""
        package, name = self._type.__module__.split(".")[0], self._type.__name__
        return "; ".join(publisher_problems(self._node, self.topic, f"{package}/msg/{name}", self._qos))

    @property
    def remedy_for_loss(self) -> str:
        """What to do about images that are lost on their way here."""
        return lost_images_remedy(get_rmw_implementation_identifier())

    def warn(self) -> None:
        """Log what keeps images from arriving; to be called now and then.

        Not said at the events themselves: the name of a node becomes known only after its publishers, and a rate of
        loss only after several images.
        """
        log = self._node.get_logger()
        problems = self.problems() if self._incompatible else ""
        if problems and "UNKNOWN" not in problems:
            self._incompatible = False
            log.warning(f"{problems}: its frames do not arrive; see qos_overrides in docs/node.md")
        if loss := self._monitor.snapshot().loss():
            log.warning(f"{self.topic}: {loss}; {self.remedy_for_loss}", throttle_duration_sec=_SAY_EVERY)

    def _subscribe(self, **events: Any) -> Subscription:
        callbacks = SubscriptionEventCallbacks(incompatible_qos=self._note_qos, **events)
        # Overrides are written into the QoS.
        return subscribe_to(self._node, self._type, self.topic, self._receive, self._qos, event_callbacks=callbacks)

    def _receive(self, message: Image | CompressedImage) -> None:
        now = self._node.get_clock().now().nanoseconds
        stamp = nanoseconds(message.header.stamp)
        if stamp < 0:
            self._node.get_logger().warning(
                f"images on {self.topic} have stamps before 1970 ({stamp * 1e-9:g} s); their results have them, too",
                throttle_duration_sec=_SAY_EVERY,
            )
        behind = (now - stamp) * 1e-9
        transport = max(behind, 0.0) if -_CLOCK_SKEW <= behind <= COMPARABLE else None
        dropped = self._mailbox.put(Arrival(message, stamp, time.monotonic(), transport))
        self._monitor.arrived(stamp * 1e-9, now * 1e-9, dropped_another=dropped)

    def _count_lost(self, event: Any) -> None:
        self._monitor.lost(event.total_count_change)

    def _note_qos(self, _: object) -> None:
        self._incompatible = True
