"""Scenes as ROS 2 messages, made by rosbags: no ROS installation is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

import cv2
import numpy as np

from sfi_ros.frames.bag_storage import rosbags_module
from sfi_ros.frames.bags import COMPRESSED, IMAGE, INFO
from sfi_ros.geometry.calibration import Calibration, RegionOfInterest
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.outputs import Output, SceneView

LABELS: Final = "vision_msgs/msg/LabelInfo"
GRID: Final = "nav_msgs/msg/OccupancyGrid"

_VISION_MSGS: Final = {
    "vision_msgs/msg/VisionClass": "uint16 class_id\nstring class_name",
    LABELS: "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold",
}


class MessageMaker:
    """Makes and serializes messages.

    Args:
        compress: make sensor_msgs/CompressedImage of images.

    Attributes:
        store: rosbags' types, with those of vision_msgs.
    """

    def __init__(self, compress: bool):
        typesys = rosbags_module("typesys")
        self._compress = compress
        self.store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
        for name, definition in _VISION_MSGS.items():
            self.store.register(typesys.get_types_from_msg(definition, name))

    def image_topic(self, name: str) -> tuple[str, str]:
        """Return the topic and message type of an image result."""
        return (f"{name}/compressed", COMPRESSED) if self._compress else (name, IMAGE)

    def image(self, output: Output, view: SceneView, header: Any) -> bytes:
        """Serialize an output of a scene, with the header of the camera's image."""
        pixels = output.make(view)
        if self._compress:
            return self._compressed(output, pixels, header)
        return self._serialized(
            IMAGE,
            header=self._header(header),
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=output.encoding,
            is_bigendian=0,
            step=pixels.shape[1] * output.channels,
            data=np.ascontiguousarray(pixels).reshape(-1),
        )

    def calibration(self, calibration: Calibration, header: Any) -> bytes:
        """Serialize a calibration as sensor_msgs/CameraInfo, with the header of the camera's image."""
        roi = {field.name: getattr(calibration.roi, field.name) for field in fields(RegionOfInterest)}
        return self._serialized(
            INFO,
            header=self._header(header),
            height=calibration.height,
            width=calibration.width,
            distortion_model=calibration.distortion_model,
            d=np.array(calibration.d),
            k=np.array(calibration.k),
            r=np.array(calibration.r),
            p=np.array(calibration.p),
            binning_x=calibration.binning_x,
            binning_y=calibration.binning_y,
            roi=self.store.types["sensor_msgs/msg/RegionOfInterest"](**roi),
        )

    def grid(self, grid: GroundGrid, costs: np.ndarray, header: Any) -> bytes:
        """Serialize costs of cells as nav_msgs/OccupancyGrid, with the stamp of the camera's image.

        Args:
            grid: where the cells lie, and in which frame.
            costs: int8 of the grid's shape.
            header: of the image.
        """
        types = self.store.types
        stamp = self._header(header).stamp
        origin = types["geometry_msgs/msg/Pose"](
            position=types["geometry_msgs/msg/Point"](x=grid.x_min, y=grid.y_min, z=0.0),
            orientation=types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
        )
        rows, columns = grid.shape
        info = types["nav_msgs/msg/MapMetaData"](
            map_load_time=stamp, resolution=grid.resolution, width=columns, height=rows, origin=origin
        )
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=grid.frame)
        return self._serialized(GRID, header=header, info=info, data=np.ascontiguousarray(costs).reshape(-1))

    def labels(self, classes: Sequence[str], at: int) -> bytes:
        """Serialize what the values of an output mean as vision_msgs/LabelInfo.

        Args:
            classes: their names, by value.
            at: time in nanoseconds.
        """
        types = self.store.types
        stamp = types["builtin_interfaces/msg/Time"](sec=at // 10**9, nanosec=at % 10**9)
        class_map = [
            types["vision_msgs/msg/VisionClass"](class_id=number, class_name=name)
            for number, name in enumerate(classes)
        ]
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="")
        return self._serialized(LABELS, header=header, class_map=class_map, threshold=0.0)

    def _compressed(self, output: Output, pixels: np.ndarray, header: Any) -> bytes:
        """Serialize as image_transport's compressed images are: maps without loss, pictures as JPEG."""
        if output.encoding == "mono8":
            form, suffix = "mono8; png compressed ", ".png"
        else:
            form, suffix, pixels = "rgb8; jpeg compressed bgr8", ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(suffix, pixels)
        return self._serialized(COMPRESSED, header=self._header(header), format=form, data=data.reshape(-1))

    def _header(self, header: Any) -> Any:
        types = self.store.types
        stamp = types["builtin_interfaces/msg/Time"](sec=header.stamp.sec, nanosec=header.stamp.nanosec)
        return types["std_msgs/msg/Header"](stamp=stamp, frame_id=header.frame_id)

    def _serialized(self, kind: str, **values: Any) -> bytes:
        return bytes(self.store.serialize_cdr(self.store.types[kind](**values), kind))
