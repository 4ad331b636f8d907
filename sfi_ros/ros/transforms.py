"""Where a camera is over the ground, as TF says: where tf2_ros is installed."""

from __future__ import annotations

from typing import Any, Final

from rclpy.clock import ClockType
from rclpy.node import Node
from rclpy.time import Time

from sfi_ros.errors import SfiError
from sfi_ros.frames.stamps import nanoseconds
from sfi_ros.geometry.pose import CameraPose

try:
    import tf2_ros
except ImportError:  # not on PyPI
    tf2_ros = None

NEWEST: Final = Time(clock_type=ClockType.ROS_TIME)
"""What tf2 takes for the newest transform that there is."""


class PoseError(SfiError, LookupError):
    """It is not known where the camera is; the message says why."""


class Transforms:
    """Listens to /tf and /tf_static.

    Args:
        buffer: a `tf2_ros.Buffer`.
        listener: what fills it; kept as long as this is.
    """

    def __init__(self, buffer: Any, listener: Any = None):
        self._buffer, self._listener = buffer, listener

    @classmethod
    def of(cls, node: Node) -> Transforms | None:
        """Listen with a node, whose executor is spun by somebody; None where tf2_ros is not installed."""
        if tf2_ros is None:
            return None
        buffer = tf2_ros.Buffer()
        return cls(buffer, tf2_ros.TransformListener(buffer, node))

    def close(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._listener.unregister()
            self._listener = None

    def pose(self, frame: str, camera_frame: str, stamp: int, tolerance: float) -> CameraPose:
        """Return where a camera's optical frame is when an image was taken.

        Args:
            frame: on the ground: its z axis points up, its origin lies on the ground.
            camera_frame: the optical frame, as in the image's header.
            stamp: of the image, nanoseconds.
            tolerance: seconds that the newest transform may be away from it, since it may arrive after the image.

        Raises:
            PoseError: no transform, or only one that is too old.
            OptionError: see `CameraPose`.
        """
        what = f"transform from {camera_frame or 'the images, which name no frame_id,'} to {frame}"
        if not camera_frame:
            raise PoseError(f"no {what}")
        # tf2 raises one of several errors, of which some come from its C++ half.
        try:
            found = self._buffer.lookup_transform(frame, camera_frame, _time(stamp))
        except Exception:
            try:
                found = self._buffer.lookup_transform(frame, camera_frame, NEWEST)
            except Exception as error:
                raise PoseError(f"no {what}: {error}") from error
            away = abs(stamp - nanoseconds(found.header.stamp)) * 1e-9
            if away > tolerance:
                raise PoseError(f"the newest {what} is {away:.2f} s away from the image") from None
        moved, turned = found.transform.translation, found.transform.rotation
        return CameraPose.from_transform((moved.x, moved.y, moved.z), (turned.x, turned.y, turned.z, turned.w))


def _time(stamp: int) -> Time:
    return Time(nanoseconds=max(stamp, 0), clock_type=ClockType.ROS_TIME)
