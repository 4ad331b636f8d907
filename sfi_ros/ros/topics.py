"""The names of a camera's topics, remapped as image_transport does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rclpy.node import Node

TRANSPORTS: Final = ("raw", "compressed")
_COMPRESSED: Final = "/compressed"


def image_topic(node: Node, transport: str, image: str = "image") -> str:
    """Name the topic of a node's camera: `image` as remapped, and for compressed images `/compressed` behind it.

    Args:
        node: whose remappings count.
        transport: raw or compressed.
        image: what the node calls it.
    """
    topic = node.resolve_topic_name(image)
    if transport == "raw" or topic.endswith(_COMPRESSED):  # some remap to the topic itself
        return topic
    return topic + _COMPRESSED


def camera_info_topic(node: Node, image: str = "image", camera_info: str = "camera_info") -> str:
    """Name the topic of the camera's calibration: `camera_info` if that is remapped, else the one beside the image.

    Args:
        node: whose remappings count.
        image, camera_info: what the node calls them.
    """
    named = node.resolve_topic_name(camera_info)
    if named != node.resolve_topic_name(camera_info, only_expand=True):
        return named
    resolved = node.resolve_topic_name(image).removesuffix(_COMPRESSED)
    return node.resolve_topic_name(f"{resolved.rsplit('/', 1)[0]}/camera_info")


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one of a node's cameras.

    Attributes:
        image, camera_info: absolute names.
        results: what stands before the names of results, as the node says it.
        name: the same, absolute: "/inpaint", or "/front/inpaint" for the camera `front` of several.
    """

    image: str
    camera_info: str
    results: str
    name: str


def camera_topics(node: Node, camera: str, transport: str, image: str = "", camera_info: str = "") -> CameraTopics:
    """Name the topics of a camera.

    Args:
        node: in whose namespace they are, and whose remappings count.
        camera: name of the camera; "" for the only one.
        transport: raw or compressed.
        image, camera_info: topics that were named for this camera; "" for those that follow from its name.
    """
    if not camera:
        name = node.get_fully_qualified_name()
        return CameraTopics(image_topic(node, transport), camera_info_topic(node), "~", name)
    image = image or f"{camera}/image_raw"
    calibration = camera_info_topic(node, image, f"{camera}/camera_info")
    results = f"{camera}/{node.get_name()}"
    return CameraTopics(
        image_topic(node, transport, image),
        node.resolve_topic_name(camera_info) if camera_info else calibration,
        results,
        f"{node.get_namespace().rstrip('/')}/{results}",
    )
