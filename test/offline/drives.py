"""Drives for tests: the synthetic street as a recording with calibration and odometry."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from ros_bags import START, STORE
from rosbags.rosbag2 import StoragePlugin, Writer

from sfi_ros.synthetic import SyntheticStreet

ODOMETRY = "nav_msgs/msg/Odometry"


def write_drive(
    path: Path,
    street: SyntheticStreet,
    frames: range,
    *,
    odometry: tuple[str, ...] = ("/odom",),
    info: bool = True,
    bits: int = 8,
) -> Path:
    """Record frames of a street, and its motion at the times of those and between them."""
    types = STORE.types
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        images = writer.add_connection("/front/image_raw", "sensor_msgs/msg/Image", typestore=STORE)
        infos = writer.add_connection("/front/camera_info", "sensor_msgs/msg/CameraInfo", typestore=STORE)
        motions = [writer.add_connection(topic, ODOMETRY, typestore=STORE) for topic in odometry]
        for number in frames:
            at = START + round(number / street.rate * 1e9)
            image = street.frame(number).image
            height, width = image.shape[:2]
            head = _header(at, "front")
            encoding, step, data = "rgb8", 3 * width, image.reshape(-1)
            if bits > 8:
                encoding, step = "rgb16", 2 * step
                data = (data.astype("<u2") << (bits - 8)).view(np.uint8)
            message = types["sensor_msgs/msg/Image"](head, height, width, encoding, 0, step, data)
            calibration = street.calibration
            region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
            matrices = [np.array(values) for values in (calibration.d, calibration.k, calibration.r, calibration.p)]
            camera = types["sensor_msgs/msg/CameraInfo"](head, height, width, "plumb_bob", *matrices, 0, 0, region)
            writer.write(images, at, STORE.serialize_cdr(message, "sensor_msgs/msg/Image"))
            if info:
                writer.write(infos, at, STORE.serialize_cdr(camera, "sensor_msgs/msg/CameraInfo"))
            for motion in motions:
                writer.write(motion, at, STORE.serialize_cdr(_odometry(street, number, at), ODOMETRY))
    return path


def _header(at: int, frame: str) -> object:
    stamp = STORE.types["builtin_interfaces/msg/Time"](sec=at // 10**9, nanosec=at % 10**9)
    return STORE.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame)


def _odometry(street: SyntheticStreet, number: int, at: int) -> object:
    types, pose = STORE.types, street.vehicle(number)
    position = types["geometry_msgs/msg/Point"](pose.x, pose.y, 0.0)
    turned = types["geometry_msgs/msg/Quaternion"](0.0, 0.0, math.sin(pose.yaw / 2), math.cos(pose.yaw / 2))
    still = types["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
    return types[ODOMETRY](
        _header(at, "odom"),
        "base_footprint",
        types["geometry_msgs/msg/PoseWithCovariance"](types["geometry_msgs/msg/Pose"](position, turned), np.zeros(36)),
        types["geometry_msgs/msg/TwistWithCovariance"](types["geometry_msgs/msg/Twist"](still, still), np.zeros(36)),
    )
