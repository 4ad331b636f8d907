"""Plays a folder, a video, a rosbag2 or the synthetic street as a camera.

Publishes `image` (sensor_msgs/Image) or `image/compressed` (sensor_msgs/CompressedImage) and `camera_info` beside it. A
bag is played with the gaps between its images that were recorded. Stamps are the time of publishing, as those of a
camera are, or the recorded ones; those may come with /clock, as from `ros2 bag play --clock`. The synthetic street also
tells how its vehicle moves (`true_motion`).
`camera_player` is its executable.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from builtin_interfaces.msg import Time
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from sfi_ros.errors import OptionError
from sfi_ros.frames.encodings import MAX_SIGNIFICANT_BITS
from sfi_ros.frames.sources import SYNTHETIC, UNSEEN_SEED, BagSource, SyntheticSource, Unreadable, open_source
from sfi_ros.geometry.calibration import Calibration, CalibrationError, camera_matrix
from sfi_ros.ros.camera_info import camera_info_message
from sfi_ros.ros.image_messages import compressed_message, image_message
from sfi_ros.ros.parameters import declare_number, warn_of_unknown
from sfi_ros.ros.qos import publish_on
from sfi_ros.ros.timeline import Step, rounds, steps
from sfi_ros.ros.topics import TRANSPORTS, camera_info_topic, image_topic
from sfi_ros.ros.true_motion import TrueMotion

_CLOCK_PERIOD = 0.025  # seconds between two messages on /clock; that of `ros2 bag play --clock`
_PATIENCE = 0.02  # seconds between two looks for subscribers
_LONG_GAP = 5.0  # seconds without an image that need an explanation


class CameraPlayer(Node):
    """Publishes the frames of one source at its rate.

    Raises:
        SourceError, CalibrationError: the source or the calibration cannot be used.
        OptionError: a parameter was given a value that is not acceptable.
    """

    def __init__(self) -> None:
        super().__init__("camera_player")
        number = partial(declare_number, self)
        source = self._text("source", SYNTHETIC, "folder of images, video, rosbag2 folder, or 'synthetic'")
        topic = self._text("bag_topic", "", "image topic to play of a rosbag2; empty if it has only one")
        seed = number("seed", UNSEEN_SEED, "of the synthetic street", 0, 2**31)
        significant_bits = number(
            "significant_bits", MAX_SIGNIFICANT_BITS, "of the values of 16-bit images, from the low end", 8, 16
        )
        self._source = open_source(source, topic=topic or None, seed=seed, significant_bits=significant_bits)
        rate = number(
            "rate", 0.0, "frames per second; 0 for the recorded times of a bag or the rate of another source", 0.0, 1e3
        )
        loop = self.declare_parameter("loop", False, _described("start again at the end")).value
        self._limit = number("limit", 0, "frames to publish; 0 for all", 0, 2**31)
        self._subscribers = number(
            "wait_for_subscribers", 0, "begin once so many nodes subscribe to the image", 0, 1000
        )
        self._frame_id = self._text("frame_id", "", "of the published messages; empty for a bag's own, else 'camera'")
        transport = self._choice("image_transport", TRANSPORTS, "what to publish")
        self._compress = transport == "compressed"
        self._original_stamps = self._choice("stamps", ("now", "original"), "of the messages") == "original"
        publish_clock = self.declare_parameter(
            "publish_clock", False, _described("publish a bag's recorded time on /clock, for nodes with use_sim_time")
        ).value
        if self._original_stamps and not isinstance(self._source, BagSource):
            raise OptionError(f"stamps:=original needs a bag; {source} has no recorded stamps")
        if publish_clock and not self._original_stamps:
            raise OptionError("publish_clock needs stamps:=original: /clock tells the time of the recording")
        self._field_of_view = number(
            "field_of_view", 60.0, "degrees across the image, for camera_info where no calibration is known", 1.0, 179.0
        )
        self._calibration = self._known_calibration()
        synthetic = isinstance(self._source, SyntheticSource)
        self._motion = TrueMotion(self, self._source.street, rate or self._source.rate) if synthetic else None
        image_type = CompressedImage if self._compress else Image
        self._images = publish_on(self, image_type, image_topic(self, transport))
        self._infos = publish_on(self, CameraInfo, camera_info_topic(self))
        self.published = 0
        self.finished = False
        self._steps = (rounds if loop else steps)(self._source, rate)
        self._playing: Step | None = None  # what was played last
        self._played_at = 0.0  # when that was
        self._broke_off = False
        self._upcoming = self._read()
        self._due: float | None = None  # when the upcoming step is to be played, None before the first
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(_PATIENCE, self._next, clock=steady)
        self._clock_publisher = self.create_publisher(ClockMessage, "/clock", 10) if publish_clock else None
        if publish_clock:
            self.create_timer(_CLOCK_PERIOD, self._publish_clock, clock=steady)
        warn_of_unknown(self)
        recorded = ", as recorded," if isinstance(self._source, BagSource) and not rate else ""
        self.get_logger().info(
            f"playing {source} at {rate or self._source.rate:g} frames/s{recorded} on {self._images.topic_name}"
        )

    def exit_status(self) -> int:
        """1 if the source could not be read to its end or gave no frame that can be read, else 0."""
        return int(self.finished and (self._broke_off or not self.published))

    def _next(self) -> None:
        """Play the upcoming step, read the one after it and wait until that is due."""
        if self.finished:
            return
        if self._due is None:
            if self._images.get_subscription_count() < self._subscribers:
                return
            self._due = time.monotonic()
        step = self._upcoming
        if step is not None:
            self._play(step)
            self._upcoming = self._read()
        if self._upcoming is None or self.published == self._limit > 0:
            self._finish()
            return
        now = time.monotonic()
        # What came late does not make the next gap shorter.
        self._due = max(self._due + self._upcoming.gap, now)
        if self._due - now > _LONG_GAP:
            self.get_logger().info(f"the next image comes in {self._due - now:.0f} s, as recorded; see rate")
        self._timer.timer_period_ns = max(round((self._due - now) * 1e9), 1)
        self._timer.reset()

    def _read(self) -> Step | None:
        try:
            return next(self._steps, None)
        except Exception as error:  # a disk that is gone, or whatever a damaged file makes its reader raise
            self._broke_off = True
            self.get_logger().error(f"the source cannot be read any further: {type(error).__name__}: {error}")
            return None

    def _finish(self) -> None:
        for publisher in (self._images, self._infos):  # reliable subscribers shall receive the last ones, too
            publisher.wait_for_all_acked(Duration(seconds=5))
        if self.published:
            self.get_logger().info(f"played {self.published} frames")
        else:
            self.get_logger().error("the source gave no readable frame")
        self.finished = True

    def _play(self, step: Step) -> None:
        self._playing, self._played_at = step, time.monotonic()
        if isinstance(step.frame, Unreadable):
            self.get_logger().warning(f"{step.frame.name} skipped: {step.frame.reason}")
            return
        self._publish_clock()
        header = self._header(step)
        height, width = step.frame.image.shape[:2]
        if self._calibration is not None:
            calibration = self._calibration.scaled(self._calibration.image_size, (width, height))
            self._infos.publish(camera_info_message(calibration, header))
        elif not self._uncalibrated:
            guess = Calibration.pinhole(width, height, camera_matrix(width, height, self._field_of_view))
            self._infos.publish(camera_info_message(guess, header))
        if self._motion is not None:
            self._motion.publish(step.frame, header)
        if self._compress:
            self._images.publish(compressed_message(step.frame.image, header))
        else:
            self._images.publish(image_message(step.frame.image, "rgb8", header))
        self.published += 1

    def _header(self, step: Step) -> Header:
        recorded = step.header
        frame_id = self._frame_id or (recorded.frame_id if recorded is not None else "") or "camera"
        if self._original_stamps:
            stamp = Time(sec=recorded.stamp.sec, nanosec=recorded.stamp.nanosec)
        else:
            stamp = self.get_clock().now().to_msg()
        return Header(stamp=stamp, frame_id=frame_id)

    def _publish_clock(self) -> None:
        """Tell the time of the recording; between two images it passes as they are played."""
        step, upcoming = self._playing, self._upcoming
        if self._clock_publisher is None or step is None:
            return
        now = step.recorded_at
        if upcoming is not None and upcoming is not step and upcoming.recorded_at > now and upcoming.gap > 0:
            passed = min((time.monotonic() - self._played_at) / upcoming.gap, 1.0)
            now += int(passed * (upcoming.recorded_at - now))
        self._clock_publisher.publish(ClockMessage(clock=Time(sec=now // 10**9, nanosec=now % 10**9)))

    def _known_calibration(self) -> Calibration | None:
        """From the named file, the bag or the synthetic street; None where it is not known."""
        self._uncalibrated = False
        path = self._text("calibration", "", "YAML as camera_calibration writes it, for camera_info")
        if path:
            return Calibration.from_yaml(path)
        if isinstance(self._source, BagSource):
            return self._recorded_calibration(self._source)
        if isinstance(self._source, SyntheticSource):
            return self._source.street.calibration
        return None

    def _recorded_calibration(self, bag: BagSource) -> Calibration | None:
        """Return the bag's. Where the one that was recorded cannot be used, none is made up: the camera had none."""
        try:
            return bag.calibration()
        except CalibrationError as error:
            self._uncalibrated = True
            self.get_logger().warning(
                f"camera_info is left out: {bag.path} holds one that cannot be used: {error}; "
                "name a calibration file with the parameter calibration"
            )
            return None

    def _text(self, name: str, default: str, description: str) -> str:
        return self.declare_parameter(name, default, _described(description)).value

    def _choice(self, name: str, choices: Sequence[str], description: str) -> str:
        value = self._text(name, choices[0], f"{description}: {' or '.join(choices)}")
        if value not in choices:
            raise OptionError(f"{name} is {value!r}; accepted are {' and '.join(map(repr, choices))}")
        return value


def _described(description: str) -> ParameterDescriptor:
    return ParameterDescriptor(description=description, read_only=True)
