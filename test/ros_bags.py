"""Bags for tests, written with rosbags."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)
START = 1_700_000_000 * 10**9


def write_bag(
    path: Path,
    images: list[np.ndarray],
    *,
    storage: str = "sqlite3",
    rate: float = 10.0,
    topics: tuple[str, ...] = ("/front/image_raw",),
    camera_info: dict[str, object] | None = None,
    times: list[int] | None = None,
    stamps: list[int] | None = None,
    frame_id: str = "front",
) -> Path:
    """RGB images on each topic and, for /front, a calibration with a focal length of 123 pixels.

    `camera_info` replaces fields of the calibration; `times` are the times of recording and `stamps` those in the
    headers, in nanoseconds, instead of those of an even rate.
    """
    times = times or [START + round(number * 1e9 / rate) for number in range(len(images))]
    stamps = stamps or times
    types = STORE.types
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = {t: writer.add_connection(t, "sensor_msgs/msg/Image", typestore=STORE) for t in topics}
        infos = writer.add_connection("/front/camera_info", "sensor_msgs/msg/CameraInfo", typestore=STORE)
        for image, at, stamp in zip(images, times, stamps, strict=True):
            time = types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
            header = types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)
            height, width = image.shape[:2]
            message = types["sensor_msgs/msg/Image"](
                header=header,
                height=height,
                width=width,
                encoding="rgb8",
                is_bigendian=0,
                step=width * 3,
                data=image.reshape(-1),
            )
            fields = {
                "height": height,
                "width": width,
                "distortion_model": "plumb_bob",
                "d": np.zeros(5),
                "k": np.array([123.0, 0, width / 2, 0, 123, height / 2, 0, 0, 1]),
                "r": np.eye(3).reshape(-1),
                "p": np.array([123.0, 0, width / 2, 0, 0, 123, height / 2, 0, 0, 0, 1, 0]),
                "binning_x": 0,
                "binning_y": 0,
                "roi": types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
            }
            info = types["sensor_msgs/msg/CameraInfo"](header=header, **{**fields, **(camera_info or {})})
            for connection in connections.values():
                writer.write(connection, at, STORE.serialize_cdr(message, "sensor_msgs/msg/Image"))
            writer.write(infos, at, STORE.serialize_cdr(info, "sensor_msgs/msg/CameraInfo"))
    return path


def write_compressed_bag(path: Path, images: list[np.ndarray], quality: int = 95) -> Path:
    """RGB images as JPEG on /front/image_raw/compressed."""
    types, kind = STORE.types, "sensor_msgs/msg/CompressedImage"
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/front/image_raw/compressed", kind, typestore=STORE)
        for number, image in enumerate(images):
            at = START + number * 10**8
            stamp = types["builtin_interfaces/msg/Time"](sec=at // 10**9, nanosec=at % 10**9)
            header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="front")
            picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].reshape(-1)
            message = types[kind](header=header, format="rgb8; jpeg compressed bgr8", data=data)
            writer.write(connection, at, STORE.serialize_cdr(message, kind))
    return path


def read_bag(path: Path) -> dict[str, list[tuple[int, object]]]:
    """topic -> [(time of recording, message)]."""
    from rosbags.highlevel import AnyReader

    found: dict[str, list[tuple[int, object]]] = {}
    with AnyReader([path], default_typestore=STORE) as reader:
        for connection, at, data in reader.messages():
            found.setdefault(connection.topic, []).append((at, reader.deserialize(data, connection.msgtype)))
    return found
