"""Recordings for tests: rosbag2 in both storages and compressions, and ROS 1 bags with several connections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_JAZZY)
TOPIC = "/camera/image_raw"
START = 1_700_000_000 * 10**9
STEP = 10**8
IMAGE = "sensor_msgs/msg/Image"


def pictures(count: int, height: int = 6, width: int = 8) -> list[np.ndarray]:
    """RGB images that differ in every pixel."""
    return [np.full((height, width, 3), (10 * number, 255 - 10 * number, 7), np.uint8) for number in range(count)]


def header(store, stamp: int, number: int = 0):
    time = store.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    sequence = {"seq": number} if store is ROS1 else {}
    return store.types["std_msgs/msg/Header"](**sequence, stamp=time, frame_id="lens")


def image_message(store, picture: np.ndarray, stamp: int, encoding: str = "rgb8"):
    height, width = picture.shape[:2]
    data = np.ascontiguousarray(picture).reshape(-1)
    return store.types[IMAGE](header(store, stamp), height, width, encoding, 0, len(data) // height, data)


def compressed_message(store, picture: np.ndarray, stamp: int, suffix: str = ".png"):
    data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].reshape(-1)
    return store.types["sensor_msgs/msg/CompressedImage"](header(store, stamp), suffix[1:], data)


def write(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    storage: str = "sqlite3",
    stamps: Sequence[int] | None = None,
    compression: CompressionMode | None = None,
    first: int = 0,
    topic: str = TOPIC,
) -> Path:
    """A rosbag2 of images, 10 each second; returns its folder."""
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    writer = Writer2(path, version=9, storage_plugin=plugin)
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection(topic, IMAGE, typestore=ROS2)
        for number, picture in enumerate(images, start=first):
            at = START + number * STEP
            stamp = at if stamps is None else stamps[number - first]
            writer.write(connection, at, ROS2.serialize_cdr(image_message(ROS2, picture, stamp), IMAGE))
    return path


def write_ros1(path: Path, images: Sequence[np.ndarray], *, callers: Sequence[str] = ("/driver",)) -> Path:
    """A ROS 1 bag whose images come from one driver after the other, each with a connection of its own."""
    with Writer1(path) as writer:
        connections = [writer.add_connection(TOPIC, IMAGE, typestore=ROS1, callerid=caller) for caller in callers]
        for number, picture in enumerate(images):
            at = START + number * STEP
            connection = connections[number * len(callers) // len(images)]
            writer.write(connection, at, ROS1.serialize_ros1(image_message(ROS1, picture, at), IMAGE))
    return path


def storage_file(folder: Path) -> Path:
    """The only storage file of a bag."""
    (file,) = (path for path in folder.iterdir() if path.name != "metadata.yaml")
    return file
