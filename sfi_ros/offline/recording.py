"""The cameras of a recording, read together in the order in which their images were recorded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from sfi_ros.errors import ImageError
from sfi_ros.frames.bag_storage import Bag, BagError, opened, storage_files
from sfi_ros.frames.bags import COMPRESSED, IMAGE, INFO, decode, info_topic
from sfi_ros.frames.encodings import warn_of_depth
from sfi_ros.frames.frame import Unreadable
from sfi_ros.frames.limits import MAX_SIGNIFICANT_BITS
from sfi_ros.frames.names import printable
from sfi_ros.geometry.calibration import Calibration, CalibrationError

_IMAGES: Final = (IMAGE, COMPRESSED)
_RECENT: Final = 8  # messages of camera_info that are kept to find the one with an image's stamp


@dataclass(frozen=True)
class Camera:
    """A camera of a recording.

    Attributes:
        topic: of its images.
        info_topic: of its calibrations, None if they were not recorded.
        results: what the topics of its results begin with.
    """

    topic: str
    info_topic: str | None
    results: str


@dataclass(frozen=True)
class RecordedImage:
    """One image of a recording.

    Attributes:
        index: among the images of all cameras that are read, from 0.
        number: among those of its camera, from 1.
        camera: that took it.
        at: time of recording, nanoseconds.
        header: of the message; None if that could not be read.
        pixels: (H, W, 3) uint8 RGB, or why there are none.
        calibration: that was recorded for it, or why it cannot be used, or None.
    """

    index: int
    number: int
    camera: Camera
    at: int
    header: Any
    pixels: np.ndarray | str
    calibration: Calibration | CalibrationError | None

    @property
    def name(self) -> str:
        """Say which image this is."""
        return f"image {self.number} of {self.camera.topic}"


class Recording:
    """The images of some cameras of a bag, in the order of the bag.

    Args:
        path: rosbag2 folder, one of its storage files, or ROS 1 bag.
        topics: of images; empty for the only one.
        all_topics: take all that hold images.
        significant_bits: of the values of 16-bit images; see `decoding.upper_eight_bits`.

    Attributes:
        storage: "mcap" or "sqlite3", the latter for ROS 1 bags, too.
        cameras: by topic.
        length: number of their images, as the storage files say.

    Raises:
        BagError: no such bag, no such topic, or not clear which.
    """

    def __init__(
        self,
        path: str | Path,
        topics: Sequence[str] = (),
        all_topics: bool = False,
        significant_bits: int = MAX_SIGNIFICANT_BITS,
    ):
        self._path, self._bits = Path(path), significant_bits
        with opened(self._path) as bag:
            images = [each for each in bag.connections if each.msgtype in _IMAGES]
            infos = {each.topic for each in bag.connections if each.msgtype == INFO}
        chosen = _chosen(self._path, topics, all_topics, {each.topic for each in images})
        results = _result_topics(chosen)
        self.cameras = {topic: Camera(topic, info_topic(topic, infos), results[topic]) for topic in chosen}
        self.length = sum(each.msgcount for each in images if each.topic in self.cameras)
        files = storage_files(self._path) if self._path.is_dir() else [self._path]
        self.storage = "mcap" if any(".mcap" in file.suffixes for file in files) else "sqlite3"

    def images(
        self, wanted: Callable[[int], bool], lost: Callable[[Unreadable], None], stop: int | None = None
    ) -> Iterator[RecordedImage]:
        """Read images.

        Args:
            wanted: whether the image with this index shall be decoded; others are passed by.
            lost: called with what of the recording cannot be read.
            stop: index of the first image that is not to be read.
        """
        infos = {camera.info_topic: deque[_Message](maxlen=_RECENT) for camera in self.cameras.values()}
        numbers = dict.fromkeys(self.cameras, 0)
        index = 0
        # An image waits for the next one: its calibration may be recorded after it.
        waiting: Callable[[], RecordedImage] | None = None
        with opened(self._path) as bag:
            for connection, at, data in bag.messages(self._connections(bag)):
                message = _Message(bag, connection.msgtype, at, data)
                if connection.msgtype == INFO:
                    infos[connection.topic].append(message)
                    continue
                if waiting is not None:
                    yield waiting()
                    waiting = None
                if index == stop:
                    break
                camera = self.cameras[connection.topic]
                numbers[camera.topic] += 1
                if wanted(index):
                    number = numbers[camera.topic]
                    waiting = partial(self._recorded_image, index, number, camera, message, infos[camera.info_topic])
                index += 1
            if waiting is not None:
                yield waiting()
            for loss in bag.losses:
                lost(loss)

    def _recorded_image(
        self, index: int, number: int, camera: Camera, message: _Message, infos: Iterable[_Message]
    ) -> RecordedImage:
        image = RecordedImage(index, number, camera, message.at, None, "", None)
        try:
            content = message.content
            if number == 1:
                warn_of_depth(f"16-bit images on {camera.topic} in {printable(self._path)}", content, self._bits)
            image = replace(image, header=content.header)
            return replace(image, pixels=decode(content, self._bits), calibration=_calibration(content.header, infos))
        except ImageError as error:
            return replace(image, pixels=str(error))

    def _connections(self, bag: Bag) -> list[Any]:
        infos = {camera.info_topic for camera in self.cameras.values()}
        images = [each for each in bag.connections if each.topic in self.cameras and each.msgtype in _IMAGES]
        return [*images, *(each for each in bag.connections if each.topic in infos and each.msgtype == INFO)]


class _Message:
    """A message of a bag, deserialized when it is needed."""

    def __init__(self, bag: Bag, kind: str, at: int, data: bytes):
        self._bag, self._kind, self.at, self._data = bag, kind, at, data

    @cached_property
    def content(self) -> Any:
        """The message.

        Raises:
            ImageError: its bytes are damaged.
        """
        return self._bag.deserialize(self._data, self._kind)


def _calibration(header: Any, infos: Iterable[_Message]) -> Calibration | CalibrationError | None:
    """Return the calibration with an image's stamp or, if there is none, the last one."""
    try:
        contents = [info.content for info in infos]
        same = [content for content in contents if content.header.stamp == header.stamp]
        return Calibration.from_message((same or contents)[-1]) if contents else None
    except ImageError as error:
        return CalibrationError(str(error))
    except CalibrationError as error:
        return error


def _chosen(path: Path, topics: Sequence[str], all_topics: bool, images: set[str]) -> list[str]:
    names = ", ".join(sorted(images)) or "none"
    for topic in topics:
        if topic not in images:
            raise BagError(f"{printable(path)} has no image topic {topic}; its image topics: {names}")
    if all_topics and images:
        # A camera that was recorded twice, raw and compressed, is inferred once.
        return sorted(topic for topic in images if topic.removesuffix("/compressed") not in images - {topic})
    if not topics and len(images) != 1:
        which = "name one or more with --topic, or give --all-topics" if images else "there is nothing to infer"
        raise BagError(f"{printable(path)} has {len(images)} image topics ({names}); {which}")
    return sorted(set(topics or images))


def _result_topics(topics: Sequence[str]) -> dict[str, str]:
    """Return what the results of each image topic begin with.

    They lie where a node in the camera's namespace publishes them: those of /front/image_raw in /front/inpaint. Image
    topics of one namespace each have their own: /front/image_raw/inpaint.
    """
    cameras = {topic: "/" + topic.removesuffix("/compressed").strip("/") for topic in topics}
    spaces = {topic: camera.rsplit("/", 1)[0] for topic, camera in cameras.items()}
    for names in (spaces, cameras):
        if len(set(names.values())) == len(topics):
            return {topic: f"{name}/inpaint" for topic, name in names.items()}
    return {topic: f"/{topic.strip('/')}/inpaint" for topic in topics}
