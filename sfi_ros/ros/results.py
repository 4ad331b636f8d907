"""The node's voice: one publisher per result, each filled only while somebody listens."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from sfi_ros.classes import BACKGROUND_CLASSES
from sfi_ros.geometry.calibration import Calibration
from sfi_ros.inference import Scene
from sfi_ros.ros.camera_info import camera_info_message
from sfi_ros.ros.image_messages import image_message
from sfi_ros.ros.qos import latched_qos, overridable, result_qos
from sfi_ros.visualization import colorize, overlay

try:
    from sfi_ros.msg import InpaintedScene
except ImportError:  # not built by colcon
    InpaintedScene = None

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:
    LabelInfo = None


class Results:
    """Publishes scenes.

    Args:
        node: to publish with.
        weights_name: goes into ~/scene.
    """

    def __init__(self, node: Node, weights_name: str):
        self._node, self._weights_name = node, weights_name
        self._mask = self._publisher(Image, "~/foreground_mask")
        self._background = self._publisher(Image, "~/background")
        self._confidence = self._publisher(Image, "~/background_confidence")
        self._color = self._publisher(Image, "~/background_color")
        self._overlay = self._publisher(Image, "~/overlay")
        self._camera_info = self._publisher(CameraInfo, "~/camera_info")
        self._publishers = [
            self._mask,
            self._background,
            self._confidence,
            self._color,
            self._overlay,
            self._camera_info,
        ]
        self._scene: Publisher | None = None
        if InpaintedScene is None:
            node.get_logger().info(
                "~/scene is left out: sfi_ros/msg/InpaintedScene is not built (colcon build makes it)"
            )
        else:
            self._scene = self._publisher(InpaintedScene, "~/scene")
            self._publishers.append(self._scene)
        self._label_info: Publisher | None = None
        if LabelInfo is None:
            node.get_logger().info("~/label_info is left out: vision_msgs is not installed")
        else:
            self._label_info = node.create_publisher(LabelInfo, "~/label_info", latched_qos())
            self._label_info.publish(_label_info(node))

    def wanted(self) -> bool:
        """Whether anybody subscribes to a result."""
        return any(publisher.get_subscription_count() > 0 for publisher in self._publishers)

    def calibration_wanted(self) -> bool:
        """Whether anybody subscribes to ~/camera_info."""
        return _heard(self._camera_info)

    def publish(
        self,
        scene: Scene,
        image: np.ndarray,
        header: Header,
        calibration: Calibration | None,
        alpha: float,
        processing_time: float,
    ) -> None:
        """Publish what somebody subscribes to.

        Args:
            scene: to publish.
            image: (H, W, 3) uint8 RGB of any size, for the overlay.
            header: of the camera's image.
            calibration: of the scene's size, None if the camera has none.
            alpha: share of the tint in the overlay.
            processing_time: seconds since the camera's image arrived.
        """
        mask = background = confidence = None  # ~/scene shares them with the single topics
        scene_wanted = self._scene is not None and _heard(self._scene)
        if scene_wanted or _heard(self._mask):
            mask = image_message(scene.foreground * 255, "mono8", header)
        if scene_wanted or _heard(self._background):
            background = image_message(scene.background, "mono8", header)
        if scene_wanted or _heard(self._confidence):
            confidence = image_message(scene.confidence, "mono8", header)
        if scene_wanted:
            self._scene.publish(
                InpaintedScene(
                    header=header,
                    foreground_mask=mask,
                    background=background,
                    confidence=confidence,
                    class_ids=list(range(len(BACKGROUND_CLASSES))),
                    class_names=list(BACKGROUND_CLASSES),
                    foreground_share=scene.foreground_share,
                    processing_time=processing_time,
                    weights=self._weights_name,
                )
            )
        for publisher, message in (
            (self._mask, mask),
            (self._background, background),
            (self._confidence, confidence),
        ):
            if message is not None and _heard(publisher):
                publisher.publish(message)
        if calibration is not None and _heard(self._camera_info):
            self._camera_info.publish(camera_info_message(calibration, header))
        if _heard(self._color):
            self._color.publish(image_message(colorize(scene.background), "rgb8", header))
        if _heard(self._overlay):
            height, width = scene.foreground.shape
            if image.shape[:2] != (height, width):
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            picture = overlay(image, scene.foreground, scene.background, alpha)
            self._overlay.publish(image_message(picture, "rgb8", header))

    def close(self) -> None:
        """Take the topics back."""
        for publisher in (*self._publishers, self._label_info):
            if publisher is not None:
                self._node.destroy_publisher(publisher)
        self._publishers = []

    def _publisher(self, message_type: Any, topic: str) -> Publisher:
        return self._node.create_publisher(message_type, topic, result_qos(), qos_overriding_options=overridable())


def _heard(publisher: Publisher) -> bool:
    return publisher.get_subscription_count() > 0


def _label_info(node: Node) -> Any:
    message = LabelInfo(threshold=0.0)
    message.header.stamp = node.get_clock().now().to_msg()
    message.class_map = [
        VisionClass(class_id=number, class_name=name) for number, name in enumerate(BACKGROUND_CLASSES)
    ]
    return message
