"""Rosbags without a ROS installation: cameras in them as a source, and the engine run over one offline.

rosbags (the Python package) reads rosbag2 with sqlite3 or MCAP storage and ROS 1 bags; it is installed with
`pip install sfi_ros[ros]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from sfi_ros.errors import ImageError
from sfi_ros.frames.bags import IMAGE, BagError, BagSource, rosbags_module
from sfi_ros.frames.sources import Frame
from sfi_ros.offline.prefetch import READ_AHEAD, ahead
from sfi_ros.visualization import overlay

if TYPE_CHECKING:  # a camera player reads bags without PyTorch
    from sfi_ros.inference import InferenceEngine, Scene

RESULTS: Final = {
    "/inpaint/foreground_mask": IMAGE,
    "/inpaint/background": IMAGE,
    "/inpaint/background_confidence": IMAGE,
}
"""Topics of an inferred bag and their types: those of the node."""

OVERLAY: Final = "/inpaint/overlay"


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
    rosbag2, typesys = rosbags_module("rosbag2"), rosbags_module("typesys")
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
    for recorded in islice(camera.recorded(), count):
        frame = recorded.frame
        pixels = frame.image if isinstance(frame, Frame) else ImageError(frame.reason)
        yield recorded.at, recorded.header, pixels


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
