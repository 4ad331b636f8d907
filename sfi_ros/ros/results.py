"""The node's publishers: one for each output, each used only while somebody subscribes to it."""

from __future__ import annotations

import array
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from sfi_ros.classes import BACKGROUND_CLASSES
from sfi_ros.geometry.calibration import Calibration
from sfi_ros.network.metadata import Metadata
from sfi_ros.outputs import (
    BACKGROUND,
    BACKGROUND_CONFIDENCE,
    FOREGROUND_CLASSES_OUTPUT,
    FOREGROUND_MASK,
    OUTPUTS,
    Output,
    SceneView,
    outputs_of,
)
from sfi_ros.ros.camera_info import camera_info_message
from sfi_ros.ros.image_messages import image_message
from sfi_ros.ros.qos import latched_qos, publish_on

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
        weights: of the network; what they do not tell has no topic.
        weights_name: goes into ~/scene.
        prefix: of the topics: "~", or that of one of several cameras.
    """

    def __init__(self, node: Node, weights: Metadata, weights_name: str, prefix: str = "~"):
        self._node, self._weights_name, self._prefix = node, weights_name, prefix
        self._images = {output: self._publisher(Image, output.name) for output in outputs_of(weights)}
        for output in OUTPUTS:
            if output not in self._images:
                node.get_logger().info(f"{prefix}/{output.name} is left out: {weights_name} tells no kinds of objects")
        self._camera_info = self._publisher(CameraInfo, "camera_info")
        self._publishers = [*self._images.values(), self._camera_info]
        self._memory: dict[Output, array.array] = {}
        self._scene: Publisher | None = None
        if InpaintedScene is None:
            node.get_logger().info(
                f"{prefix}/scene is left out: sfi_ros/msg/InpaintedScene is not built (colcon build makes it)"
            )
        else:
            self._scene = self._publisher(InpaintedScene, "scene")
            self._publishers.append(self._scene)
        self._label_infos: list[Publisher] = []
        if LabelInfo is None:
            node.get_logger().info(f"{prefix}/label_info is left out: vision_msgs is not installed")
        else:
            self._label_infos = [self._published_label_info(output) for output in self._images if output.classes]

    def wanted(self) -> bool:
        """Whether anybody subscribes to a result."""
        return any(map(_has_subscribers, self._publishers))

    def calibration_wanted(self) -> bool:
        """Whether anybody subscribes to ~/camera_info."""
        return _has_subscribers(self._camera_info)

    def publish(self, view: SceneView, header: Header, calibration: Calibration | None, processing_time: float) -> None:
        """Publish what somebody subscribes to.

        Args:
            view: the scene, and what its pictures are made from.
            header: of the camera's image.
            calibration: of the scene's size, None if the camera has none.
            processing_time: seconds since the camera's image arrived.
        """
        scene_wanted = self._scene is not None and _has_subscribers(self._scene)
        in_scene = (FOREGROUND_MASK, BACKGROUND, BACKGROUND_CONFIDENCE, FOREGROUND_CLASSES_OUTPUT)
        messages = {}
        for output, publisher in self._images.items():
            wanted = _has_subscribers(publisher)
            if wanted or (scene_wanted and output in in_scene):
                pixels, memory = output.make(view), self._memory.get(output)
                messages[output] = image_message(pixels, output.encoding, header, memory)
                self._memory[output] = messages[output].data  # publishing copies it
            if wanted:
                publisher.publish(messages[output])
        if scene_wanted:
            self._scene.publish(
                InpaintedScene(
                    header=header,
                    foreground_mask=messages[FOREGROUND_MASK],
                    background=messages[BACKGROUND],
                    confidence=messages[BACKGROUND_CONFIDENCE],
                    class_ids=list(range(len(BACKGROUND_CLASSES))),
                    class_names=list(BACKGROUND_CLASSES),
                    foreground_share=view.scene.foreground_share,
                    processing_time=processing_time,
                    weights=self._weights_name,
                    **_kinds_in_scene(messages.get(FOREGROUND_CLASSES_OUTPUT)),
                )
            )
        if calibration is not None and _has_subscribers(self._camera_info):
            self._camera_info.publish(camera_info_message(calibration, header))

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (*self._publishers, *self._label_infos):
            self._node.destroy_publisher(publisher)
        self._publishers, self._label_infos = [], []

    def _publisher(self, message_type: Any, topic: str) -> Publisher:
        return publish_on(self._node, message_type, f"{self._prefix}/{topic}")

    def _published_label_info(self, output: Output) -> Publisher:
        """Return a publisher that has said what the values of an output mean, to whoever subscribes later, too."""
        publisher = self._node.create_publisher(LabelInfo, f"{self._prefix}/{output.label_info}", latched_qos())
        message = LabelInfo(threshold=0.0)
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.class_map = [VisionClass(class_id=value, class_name=name) for value, name in enumerate(output.classes)]
        publisher.publish(message)
        return publisher


def _kinds_in_scene(image: Image | None) -> dict[str, Any]:
    """Return the fields of ~/scene about kinds of objects: none where the weights do not tell them."""
    if image is None:
        return {}
    names = FOREGROUND_CLASSES_OUTPUT.classes
    return {
        "foreground_classes": image,
        "foreground_class_ids": list(range(len(names))),
        "foreground_class_names": list(names),
    }


def _has_subscribers(publisher: Publisher) -> bool:
    return publisher.get_subscription_count() > 0
