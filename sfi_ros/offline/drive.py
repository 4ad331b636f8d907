"""Drives: frames of one camera with its calibration, its pose on the vehicle, and where the vehicle was."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from sfi_ros.errors import ImageError, OptionError
from sfi_ros.frames.bag_storage import BagError, is_bag, opened
from sfi_ros.frames.bags import BagSource
from sfi_ros.frames.frame import Frame, SourceError, Unreadable
from sfi_ros.frames.limits import MAX_SIGNIFICANT_BITS
from sfi_ros.frames.names import printable
from sfi_ros.frames.sources import SYNTHETIC, UNSEEN_SEED
from sfi_ros.frames.stamps import nanoseconds
from sfi_ros.frames.synthetic_street import street_frame
from sfi_ros.geometry.motion import PlanarPose, Track
from sfi_ros.offline.layouts import LayoutOptions
from sfi_ros.offline.run import SYNTHETIC_FRAMES
from sfi_ros.synthetic import SyntheticStreet

ODOMETRY: Final = "nav_msgs/msg/Odometry"
_SYNTHETIC_SECONDS: Final = 600  # of street that are looked through for frames: some kilometres


@dataclass(frozen=True)
class DriveOptions:
    """How a drive is read.

    Attributes:
        spacing: metres between two frames that are taken; those between are passed by.
        limit: frames to take, None for all.
        noise: standard deviations of noise that is added to the odometry; see `Track.noisy`.
        seed: of the synthetic street, and of the noise.
        height: of images of the synthetic street, pixels.
        topic, odometry: of a recording's images and of its nav_msgs/Odometry; None for the only one.
        significant_bits: of the values of a recording's 16-bit images; see `decoding.upper_eight_bits`.
    """

    spacing: float = 0.5
    limit: int | None = None
    noise: tuple[float, float] = (0.0, 0.0)
    seed: int = UNSEEN_SEED
    height: int = 256
    topic: str | None = None
    odometry: str | None = None
    significant_bits: int = MAX_SIGNIFICANT_BITS


class Drive:
    """Frames in order, far enough from each other, with calibration, pose and vehicle; iterating again starts again.

    Args:
        source: "synthetic" or a recording.
        options: see `DriveOptions`.
        layout: calibration and pose of the camera; the synthetic street knows its own.

    Attributes:
        frame_id: of the frame that the vehicle's poses are in.
        length: frames that will be taken at most; None where that is not known.

    Raises:
        SourceError: no such recording, or one without odometry.
        OptionError: a spacing that is negative, or a camera whose calibration or pose is not known.
    """

    def __init__(self, source: str, options: DriveOptions, layout: LayoutOptions | None = None):
        if not (math.isfinite(options.spacing) and options.spacing >= 0):
            raise OptionError(f"the spacing of frames must be 0 or more metres, not {options.spacing:g}")
        self._options = options
        self.frame_id, self.length = "odom", options.limit
        self._frames: Iterable[Frame | Unreadable]
        if source == SYNTHETIC:
            self.length = options.limit or SYNTHETIC_FRAMES
            self._frames = _SyntheticFrames(options, self.length)
        elif is_bag(source):
            recorded = _RecordedFrames(source, options, layout or LayoutOptions())
            self._frames, self.frame_id = recorded, recorded.frame_id
        else:
            raise SourceError(f"{printable(source)} has no odometry: map '{SYNTHETIC}', a rosbag2 or a ROS 1 bag")

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        """Read or render frame after frame."""
        taken = 0
        for frame in self._frames:
            yield frame
            taken += isinstance(frame, Frame)
            if taken == self.length:
                return


class _SyntheticFrames:
    """The synthetic street, whose motion is known."""

    def __init__(self, options: DriveOptions, count: int):
        self._street = SyntheticStreet(options.seed, 2 * options.height, options.height)
        numbers = list(islice(self._spaced(options.spacing), count))
        track = Track(numbers, [self._street.vehicle(number) for number in numbers])
        self._poses = dict(zip(numbers, track.noisy(*options.noise, seed=options.seed).poses(), strict=True))

    def __iter__(self) -> Iterator[Frame]:
        for number, told in self._poses.items():
            yield replace(street_frame(self._street, number), vehicle=told)

    def _spaced(self, spacing: float) -> Iterator[int]:
        """Yield the frames that are far enough from the last one."""
        last: PlanarPose | None = None
        for number in range(round(_SYNTHETIC_SECONDS * self._street.rate)):
            pose = self._street.vehicle(number)
            if last is None or pose.moved(last) >= spacing:
                last = pose
                yield number


class _RecordedFrames:
    """A recording with odometry."""

    def __init__(self, path: str | Path, options: DriveOptions, layout: LayoutOptions):
        self._path, self._options, self._layout = Path(path), options, layout
        self._images = BagSource(path, options.topic, significant_bits=options.significant_bits)
        self.frame_id = "odom"
        self._track = self._read_track()
        self._told = self._track.noisy(*options.noise, seed=options.seed)
        self._calibration = self._images.calibration()
        layout.require_camera(calibrated=self._calibration is not None)

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        last: PlanarPose | None = None
        for image in self._images.recorded():
            if isinstance(image.frame, Unreadable):
                yield image.frame
                continue
            stamp = nanoseconds(image.header.stamp)
            pose, told = self._track.at(stamp), self._told.at(stamp)
            if pose is None or told is None:
                yield Unreadable(image.frame.place or image.frame.name, "there is no odometry for its stamp")
            elif last is None or pose.moved(last) >= self._options.spacing:
                last = pose
                height, width = image.frame.image.shape[:2]
                calibration, camera = self._layout.camera(self._calibration, None, (width, height))
                yield replace(image.frame, calibration=calibration, pose=camera, vehicle=told)

    def _read_track(self) -> Track:
        path, wanted = self._path, self._options.odometry
        times, poses = [], []
        with opened(path) as bag:
            topics = sorted({each.topic for each in bag.connections if each.msgtype == ODOMETRY})
            if len(topics) != 1 if wanted is None else wanted not in topics:
                raise BagError(
                    f"{printable(path)} has these topics of nav_msgs/Odometry: {', '.join(topics) or 'none'}; "
                    + ("name one of them with --odometry" if topics else "a map needs the vehicle's motion")
                )
            topic = wanted or topics[0]
            connections = [each for each in bag.connections if each.topic == topic and each.msgtype == ODOMETRY]
            for connection, _, data in bag.messages(connections):
                try:
                    message = bag.deserialize(data, connection.msgtype)
                    pose = PlanarPose.from_message(message.pose.pose)
                except (ImageError, OptionError):  # a damaged message, or numbers that are none: others are there
                    continue
                times.append(nanoseconds(message.header.stamp))
                poses.append(pose)
                self.frame_id = message.header.frame_id or self.frame_id
        if not poses:
            raise BagError(f"{printable(path)} has no message on {topic} that can be used")
        return Track(times, poses)
