"""Plays a folder, a video, a rosbag2 or the synthetic street as a camera.

Publishes `image` (sensor_msgs/Image) or `image/compressed` (sensor_msgs/CompressedImage) and `camera_info`. Stamps are
the time of publishing, as those of a camera are. `camera_player` is its executable.
"""

from __future__ import annotations

from collections.abc import Iterator

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from sfi_ros.frames.sources import SYNTHETIC, UNSEEN_SEED, Frame, SyntheticSource, Unreadable, open_source
from sfi_ros.geometry.calibration import Calibration, CalibrationError, camera_matrix
from sfi_ros.offline.bags import BagSource, is_bag
from sfi_ros.ros.camera_info import camera_info_message
from sfi_ros.ros.image_messages import compressed_message, image_message
from sfi_ros.ros.qos import overridable, result_qos


class CameraPlayer(Node):
    """Publishes the frames of one source at its rate.

    Raises:
        SourceError, CalibrationError: the source or the calibration cannot be used.
        ValueError: a parameter was given a value that is not acceptable.
    """

    def __init__(self) -> None:
        super().__init__("camera_player")
        source = self._text("source", SYNTHETIC, "folder of images, video, rosbag2 folder, or 'synthetic'")
        topic = self._text("bag_topic", "", "image topic to play of a rosbag2; empty if it has only one")
        seed = self._number("seed", UNSEEN_SEED, "of the synthetic street", 0, 2**31)
        self._source = BagSource(source, topic or None) if is_bag(source) else open_source(source, seed=seed)
        rate = self._number("rate", 0.0, "frames per second; 0 for the source's own", 0.0, 1000.0)
        self._loop = self.declare_parameter("loop", False, _described("start again at the end")).value
        self._limit = self._number("limit", 0, "frames to publish; 0 for all", 0, 2**31)
        self._patience = self._number(
            "wait_for_subscribers", 0, "begin once so many nodes subscribe to the image", 0, 1000
        )
        self._frame_id = self._text("frame_id", "camera", "of the published messages")
        transport = self._text("image_transport", "raw", "what to publish: raw or compressed")
        if transport not in ("raw", "compressed"):
            raise ValueError(f"image_transport is {transport!r}; accepted are 'raw' and 'compressed'")
        self._compress = transport == "compressed"
        self._field_of_view = self._number(
            "field_of_view", 60.0, "degrees across the image, for camera_info where no calibration is known", 1.0, 179.0
        )
        self._calibration = self._known_calibration()
        if self._compress:
            # image_transport's convention: the name is remapped first, then the transport is appended.
            name = f"{self.resolve_topic_name('image')}/compressed"
            self._images = self.create_publisher(
                CompressedImage, name, result_qos(), qos_overriding_options=overridable()
            )
        else:
            self._images = self.create_publisher(Image, "image", result_qos(), qos_overriding_options=overridable())
        self._infos = self.create_publisher(
            CameraInfo, "camera_info", result_qos(), qos_overriding_options=overridable()
        )
        self.published = 0
        self.finished = False
        self._frames = self._endless() if self._loop else iter(self._source)
        self.get_logger().info(
            f"playing {source} at {rate or self._source.rate:g} frames/s on {self._images.topic_name}"
        )
        self.create_timer(1 / (rate or self._source.rate), self._next, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def exit_status(self) -> int:
        """1 if the source has ended without a readable frame, else 0."""
        return int(self.finished and not self.published)

    def _next(self) -> None:
        if self.finished:
            return
        if self.published == 0 and self._images.get_subscription_count() < self._patience:
            return
        frame = next(self._frames, None)
        if isinstance(frame, Unreadable):
            self.get_logger().warning(f"{frame.name} skipped: {frame.reason}")
        elif frame is not None:
            self._publish(frame)
        if frame is None or self.published == self._limit > 0:
            for publisher in (self._images, self._infos):  # reliable subscribers shall receive the last ones, too
                publisher.wait_for_all_acked(Duration(seconds=5))
            if self.published:
                self.get_logger().info(f"played {self.published} frames")
            else:
                self.get_logger().error("the source gave no readable frame")
            self.finished = True

    def _publish(self, frame: Frame) -> None:
        height, width = frame.image.shape[:2]
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame_id)
        if self._calibration is not None:
            calibration = self._calibration.scaled(self._calibration.image_size, (width, height))
            self._infos.publish(camera_info_message(calibration, header))
        elif not self._uncalibrated:
            guess = Calibration.pinhole(width, height, camera_matrix(width, height, self._field_of_view))
            self._infos.publish(camera_info_message(guess, header))
        if self._compress:
            self._images.publish(compressed_message(frame.image, header))
        else:
            self._images.publish(image_message(frame.image, "rgb8", header))
        self.published += 1

    def _endless(self) -> Iterator[Frame | Unreadable]:
        while True:
            readable = False
            for frame in self._source:
                readable = readable or isinstance(frame, Frame)
                yield frame
            if not readable:
                return

    def _known_calibration(self) -> Calibration | None:
        """From the named file, the bag or the synthetic street; None where it is not known."""
        self._uncalibrated = False
        path = self._text("calibration", "", "YAML as camera_calibration writes it, for camera_info")
        if path:
            return Calibration.from_yaml(path)
        if isinstance(self._source, BagSource):
            return self._recorded_calibration(self._source)
        if isinstance(self._source, SyntheticSource):
            street = self._source.street
            return Calibration.pinhole(street.width, street.height, street.camera_matrix)
        return None

    def _recorded_calibration(self, bag: BagSource) -> Calibration | None:
        """The bag's. Where the one that was recorded cannot be used, none is made up: the camera had none."""
        recorded = bag.calibration()
        if recorded is None:
            return None
        try:
            return Calibration.from_message(recorded)
        except CalibrationError as error:
            self._uncalibrated = True
            self.get_logger().warning(
                f"camera_info is left out: {bag.path} holds one that cannot be used: {error}; "
                "name a calibration file with the parameter calibration"
            )
            return None

    def _text(self, name: str, default: str, description: str) -> str:
        return self.declare_parameter(name, default, _described(description)).value

    def _number(self, name: str, default: float, description: str, low: float, high: float) -> float:
        descriptor = _described(description)
        if isinstance(default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        return self.declare_parameter(name, default, descriptor).value


def _described(description: str) -> ParameterDescriptor:
    return ParameterDescriptor(description=description, read_only=True)
