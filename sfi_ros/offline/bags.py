"""Rosbags without a ROS installation: cameras in them as a source, and the engine run over one offline.

rosbags (the Python package) reads rosbag2 with sqlite3 or MCAP storage and ROS 1 bags; it is installed with
`pip install sfi_ros[ros]`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from sfi_ros.errors import ImageError
from sfi_ros.frames.encodings import MAX_SIGNIFICANT_BITS, decode_compressed, to_rgb
from sfi_ros.frames.sources import Frame, SourceError, Unreadable
from sfi_ros.offline.prefetch import READ_AHEAD, ahead
from sfi_ros.visualization import overlay

if TYPE_CHECKING:  # a camera player reads bags without PyTorch
    from sfi_ros.inference import InferenceEngine, Scene

IMAGE, COMPRESSED, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
RESULTS: Final = {
    "/inpaint/foreground_mask": IMAGE,
    "/inpaint/background": IMAGE,
    "/inpaint/background_confidence": IMAGE,
}
"""Topics of an inferred bag and their types: those of the node."""

OVERLAY: Final = "/inpaint/overlay"


class BagError(SourceError):
    """A bag that cannot be read or written; the message says why and what would help."""


@dataclass(frozen=True)
class BagSummary:
    """What `infer_bag` did.

    Attributes:
        topic: the camera's.
        frames: images inferred.
        rejected: reason for each image that could not be decoded.
    """

    topic: str
    frames: int
    rejected: list[str]


def is_bag(path: str | Path) -> bool:
    """Whether a path is a rosbag2 folder or a ROS 1 bag; says nothing about its health."""
    path = Path(path)
    return (path / "metadata.yaml").is_file() or (path.suffix == ".bag" and path.is_file())


class BagSource:
    """The images of one topic of a bag, in order; see `sources.Source`.

    Args:
        path: rosbag2 folder or ROS 1 bag.
        topic: of type sensor_msgs/Image or sensor_msgs/CompressedImage; None if there is only one.

    Raises:
        BagError: no such bag, no such topic, or more than one to choose from.
    """

    def __init__(self, path: str | Path, topic: str | None = None):
        self.path = Path(path)
        with _opened(self.path) as reader:
            images = {c.topic: c for c in reader.connections if c.msgtype in (IMAGE, COMPRESSED)}
            self.topic = _chosen(self.path, topic, images)
            self.length = images[self.topic].msgcount
            seconds = reader.duration * 1e-9
        self.rate = (self.length - 1) / seconds if self.length > 1 and seconds > 0 else 10.0

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        """Decode image after image; names are stamps in nanoseconds."""
        for _, message in self.messages():
            stamp = message.header.stamp
            name = f"{stamp.sec * 10**9 + stamp.nanosec}"
            try:
                yield Frame(name, decode(message))
            except ImageError as error:
                yield Unreadable(name, str(error))

    def messages(self) -> Iterator[tuple[int, Any]]:
        """(time of recording in nanoseconds, image message as recorded)."""
        return self._messages_of(self.topic)

    def calibration(self) -> Any | None:
        """The first sensor_msgs/CameraInfo of the camera, None if none was recorded."""
        return next((message for _, message in self.calibrations()), None)

    def calibrations(self) -> Iterator[tuple[int, Any]]:
        """(time of recording in nanoseconds, CameraInfo) of the camera_info topic beside the image topic."""
        # /camera/image_raw, or /camera/image_raw/compressed, has its calibration in /camera/camera_info
        name = self.topic.rsplit("/", 1)[0]
        for base in (name, name.rsplit("/", 1)[0]):
            with _opened(self.path) as reader:
                found = any(c.topic == f"{base}/camera_info" and c.msgtype == INFO for c in reader.connections)
            if found:
                return self._messages_of(f"{base}/camera_info")
        return iter(())

    def _messages_of(self, topic: str) -> Iterator[tuple[int, Any]]:
        with _opened(self.path) as reader:
            connections = [c for c in reader.connections if c.topic == topic]
            for connection, at, data in reader.messages(connections=connections):
                yield at, reader.deserialize(data, connection.msgtype)


def decode(message: Any, significant_bits: int = MAX_SIGNIFICANT_BITS) -> np.ndarray:
    """An image message of a bag as (H, W, 3) uint8 RGB that may be written to.

    Args:
        message: sensor_msgs/Image or CompressedImage.
        significant_bits: of the values of 16-bit images; see `decoding.upper_eight_bits`.

    Raises:
        ImageError: it cannot be decoded.
    """
    if hasattr(message, "format"):
        image = decode_compressed(message, significant_bits=significant_bits)
    else:
        image = to_rgb(message, significant_bits=significant_bits)
    return np.require(image, requirements="W")  # rosbags' arrays are read-only, which PyTorch does not like


def infer_bag(
    source: str | Path,
    output: str | Path,
    engine: InferenceEngine,
    *,
    topic: str | None = None,
    with_overlay: bool = False,
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BagSummary:
    """Run the engine over the camera of a bag and write the results into a new bag.

    The new bag has the storage of the old one. Its messages carry header and time of recording of the images they
    were made from, so both bags can be played together.

    Args:
        source: rosbag2 folder or ROS 1 bag.
        output: folder to make.
        engine: infers; `output_size` "network" writes small images.
        topic: see `BagSource`.
        with_overlay: write /inpaint/overlay, too (rgb8, three times as large as all others together).
        limit: stop after so many images.
        progress: called with the images done and their number after each.

    Raises:
        BagError: the bag cannot be read, or `output` exists.
    """
    rosbag2, typesys = _rosbags("rosbag2"), _rosbags("typesys")
    output = Path(output)
    if output.exists():
        raise BagError(f"{output} exists already; name a folder that does not")
    camera = BagSource(source, topic)
    total = min(camera.length, limit or camera.length)
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    has_mcap = any(Path(source).glob("*.mcap*"))
    plugin = rosbag2.StoragePlugin.MCAP if has_mcap else rosbag2.StoragePlugin.SQLITE3
    rejected: list[str] = []
    frames = 0
    output.parent.mkdir(parents=True, exist_ok=True)
    with rosbag2.Writer(output, version=9, storage_plugin=plugin) as writer:
        topics = {**RESULTS, OVERLAY: IMAGE} if with_overlay else RESULTS
        connections = {name: writer.add_connection(name, kind, typestore=store) for name, kind in topics.items()}
        results = ahead(_inferred(camera, engine, with_overlay, total), READ_AHEAD)
        for done, (at, header, result) in enumerate(results, start=1):
            if isinstance(result, Exception):
                rejected.append(f"image {done} of {camera.topic}: {result}")
            else:
                for name, picture in result.items():
                    writer.write(connections[name], at, store.serialize_cdr(_image(store, header, picture), IMAGE))
                frames += 1
            progress(done, total)
    return BagSummary(camera.topic, frames, rejected)


def _decoded(camera: BagSource, count: int) -> Iterator[tuple[int, Any, np.ndarray | ImageError]]:
    """Time of recording, header, and pixels or why there are none, of the first images."""
    for at, message in islice(camera.messages(), count):
        try:
            yield at, message.header, decode(message)
        except ImageError as error:  # noqa: PERF203 - one bad image is no reason to lose the others
            yield at, message.header, error


def _inferred(
    camera: BagSource, engine: InferenceEngine, with_overlay: bool, count: int
) -> Iterator[tuple[int, Any, dict[str, np.ndarray] | ValueError]]:
    """Time of recording, header, and results or why there are none, of the first images."""
    for at, header, image in ahead(_decoded(camera, count), READ_AHEAD):
        if isinstance(image, ImageError):
            yield at, header, image
            continue
        try:
            yield at, header, _pictures(engine(image), image, with_overlay)
        except ValueError as error:  # the engine refuses images of an absurd shape
            yield at, header, error


def _pictures(scene: Scene, image: np.ndarray, with_overlay: bool) -> dict[str, np.ndarray]:
    images = (scene.foreground * 255, scene.background, scene.confidence)
    pictures = dict(zip(RESULTS, images, strict=True))
    if with_overlay:
        height, width = scene.foreground.shape
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        pictures[OVERLAY] = overlay(resized, scene.foreground, scene.background)
    return pictures


def _image(store: Any, header: Any, pixels: np.ndarray) -> Any:
    types = store.types
    stamp = types["builtin_interfaces/msg/Time"](sec=header.stamp.sec, nanosec=header.stamp.nanosec)
    return types[IMAGE](
        header=types["std_msgs/msg/Header"](stamp=stamp, frame_id=header.frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding="mono8" if pixels.ndim == 2 else "rgb8",
        is_bigendian=0,
        step=pixels.shape[1] * (1 if pixels.ndim == 2 else 3),
        data=np.ascontiguousarray(pixels).reshape(-1),
    )


def _chosen(path: Path, topic: str | None, images: dict[str, Any]) -> str:
    names = ", ".join(sorted(images)) or "none"
    if topic is not None and topic not in images:
        raise BagError(f"{path} has no image topic {topic}; its image topics: {names}")
    if topic is None and len(images) != 1:
        which = "name one of them" if images else "a camera records sensor_msgs/Image or CompressedImage"
        raise BagError(f"{path} has {len(images)} image topics ({names}); {which}")
    return topic or next(iter(images))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    highlevel, typesys = _rosbags("highlevel"), _rosbags("typesys")
    try:
        reader = highlevel.AnyReader([path], default_typestore=typesys.get_typestore(typesys.Stores.ROS2_JAZZY))
        reader.open()
    except Exception as error:  # rosbags lets whatever its storages raise through
        raise BagError(f"{path} cannot be read as a bag: {error}") from error
    try:
        yield reader
    finally:
        reader.close()


def _rosbags(module: str) -> Any:
    """A module of rosbags, imported when it is needed: those who read no bags need not have it."""
    try:
        return importlib.import_module(f"rosbags.{module}")
    except ImportError as error:
        raise BagError("bags are read with the Python package rosbags: pip install rosbags") from error
