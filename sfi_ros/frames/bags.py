"""The images of recordings as sources of frames, without a ROS installation.

Bags are read with the Python package rosbags, which `pip install sfi_ros[ros]` installs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sfi_ros.errors import ImageError
from sfi_ros.frames.bag_storage import Bag, BagError, opened
from sfi_ros.frames.encodings import decode_compressed, to_rgb, warn_of_depth
from sfi_ros.frames.frame import Frame, Unreadable
from sfi_ros.frames.limits import FILE_MEGAPIXELS, MAX_SIGNIFICANT_BITS
from sfi_ros.frames.names import UniqueNames, printable
from sfi_ros.frames.stamps import nanoseconds
from sfi_ros.geometry.calibration import Calibration

IMAGE: Final = "sensor_msgs/msg/Image"
COMPRESSED: Final = "sensor_msgs/msg/CompressedImage"
INFO: Final = "sensor_msgs/msg/CameraInfo"

_USUAL_RATE: Final = 10.0  # frames per second, where the times of recording say nothing


@dataclass(frozen=True)
class RecordedFrame:
    """One image of a recording.

    Attributes:
        at: time of recording, nanoseconds.
        header: of its message, with `stamp` and `frame_id`; None if that cannot be read.
        frame: its pixels, or why there are none.
    """

    at: int
    header: Any
    frame: Frame | Unreadable


class BagSource:
    """The images of one topic of a recording; see `frame.Source`.

    Args:
        path: rosbag2 folder, one of its storage files, or ROS 1 bag.
        topic: of type sensor_msgs/Image or sensor_msgs/CompressedImage; None if there is only one.
        start, stop: images of it.
        significant_bits: of the values of 16-bit images; see `decoding.upper_eight_bits`.

    Raises:
        BagError: no such bag, no such topic, or more than one to choose from.
    """

    def __init__(
        self,
        path: str | Path,
        topic: str | None = None,
        start: int = 0,
        stop: int | None = None,
        significant_bits: int = MAX_SIGNIFICANT_BITS,
    ):
        self.path, self._start, self._stop, self._bits = Path(path), start, stop, significant_bits
        with opened(self.path) as bag:
            images = {c.topic for c in bag.connections if c.msgtype in (IMAGE, COMPRESSED)}
            self.topic = _chosen(self.path, topic, images)
            count = sum(connection.msgcount for connection in _images_of(bag, self.topic))
            seconds = bag.duration * 1e-9
            self._info_topic = info_topic(self.topic, {c.topic for c in bag.connections if c.msgtype == INFO})
        rate = (count - 1) / seconds if count > 1 and seconds > 0 else 0.0
        self.rate = rate if 0 < rate < 1000 else _USUAL_RATE
        self._count = count

    @property
    def length(self) -> int:
        """Number of images, as the storage files say."""
        stop = self._count if self._stop is None else min(self._stop, self._count)
        return max(0, stop - self._start)

    def part(self, start: int, stop: int | None = None) -> BagSource:
        """Return some of the images; see `frame.Source`."""
        stop = self._stop if stop is None else self._start + stop
        return BagSource(self.path, self.topic, self._start + start, stop, self._bits)

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        """Decode image after image; see `recorded`."""
        return (recorded.frame for recorded in self.recorded())

    def recorded(self) -> Iterator[RecordedFrame]:
        """Decode image after image, and tell when it was recorded.

        Names are stamps in nanoseconds, or times of recording where a camera sends none, with a number behind them
        where several images have the same.
        """
        with opened(self.path) as bag:
            unique, told, at = UniqueNames(), 0, 0
            for number, (connection, at, data) in enumerate(bag.messages(_images_of(bag, self.topic))):
                if number == self._stop:
                    return
                message = _deserialized(bag, connection, data)
                # Images that are passed by have names, too: the others shall be called as in the whole.
                name = None if isinstance(message, ImageError) else unique(_name(message.header.stamp, at))
                if number < self._start:
                    continue
                yield from (RecordedFrame(at, None, loss) for loss in bag.losses[told:])
                told = len(bag.losses)
                place = f"image {number + 1} of {self.topic} in {printable(self.path)}"
                if name is None:
                    yield RecordedFrame(at, None, Unreadable(place, str(message)))
                else:
                    if number == self._start:
                        warn_of_depth(f"16-bit images on {self.topic} in {printable(self.path)}", message, self._bits)
                    yield RecordedFrame(at, message.header, _frame(message, self._bits, name, place))
            yield from (RecordedFrame(at, None, loss) for loss in bag.losses[told:])

    def calibration(self) -> Calibration | None:
        """Return the first calibration of the camera, damaged messages left out; None if none was recorded.

        Raises:
            CalibrationError: it cannot be used.
        """
        with opened(self.path) as bag:
            connections = [c for c in bag.connections if c.topic == self._info_topic and c.msgtype == INFO]
            for _, _, data in bag.messages(connections) if connections else ():
                with suppress(ImageError):
                    return Calibration.from_message(bag.deserialize(data, INFO))
        return None


def _deserialized(bag: Bag, connection: Any, data: bytes) -> Any:
    """Return a message, or the ImageError that says what is wrong with it."""
    try:
        return bag.deserialize(data, connection.msgtype)
    except ImageError as error:
        return error


def _frame(message: Any, significant_bits: int, name: str, place: str) -> Frame | Unreadable:
    try:
        return Frame(name, decode(message, significant_bits), place=place)
    except ImageError as error:
        return Unreadable(place, str(error))


def decode(message: Any, significant_bits: int = MAX_SIGNIFICANT_BITS) -> np.ndarray:
    """Decode an image message of a bag to (H, W, 3) uint8 RGB that may be written to.

    Args:
        message: sensor_msgs/Image or CompressedImage.
        significant_bits: of the values of 16-bit images; see `decoding.upper_eight_bits`.

    Raises:
        ImageError: it cannot be decoded.
    """
    if hasattr(message, "format"):
        image = decode_compressed(message, FILE_MEGAPIXELS, significant_bits)
    else:
        image = to_rgb(message, FILE_MEGAPIXELS, significant_bits)
    return np.require(image, requirements="W")  # rosbags' arrays are read-only, which PyTorch does not like


def info_topic(topic: str, infos: Collection[str]) -> str | None:
    """Return the topic of a camera's calibration, which lies beside that of its images, or None.

    Args:
        topic: of the images.
        infos: topics of calibrations.
    """
    # /camera/image_raw, or /camera/image_raw/compressed, has its calibration in /camera/camera_info
    name = topic.rsplit("/", 1)[0]
    beside = (f"{name}/camera_info", f"{name.rsplit('/', 1)[0]}/camera_info")
    return next((info for info in beside if info in infos), None)


def _images_of(bag: Bag, topic: str) -> list[Any]:
    return [c for c in bag.connections if c.topic == topic and c.msgtype in (IMAGE, COMPRESSED)]


def _name(stamp: Any, at: int) -> str:
    return str(nanoseconds(stamp) or at)


def _chosen(path: Path, topic: str | None, images: Collection[str]) -> str:
    names = ", ".join(sorted(images)) or "none"
    if topic is not None and topic not in images:
        raise BagError(f"{printable(path)} has no image topic {topic}; its image topics: {names}")
    if topic is None and len(images) != 1:
        choose, none = "name one (sfi: --topic; camera_player: bag_topic)", "cameras record Image or CompressedImage"
        which = choose if images else none
        raise BagError(f"{printable(path)} has {len(images)} image topics ({names}); {which}")
    return topic or next(iter(images))
