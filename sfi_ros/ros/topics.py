"""The names of a camera's topics, remapped as image_transport does it."""

from __future__ import annotations

from typing import Final

from rclpy.node import Node

TRANSPORTS: Final = ("raw", "compressed")
_COMPRESSED: Final = "/compressed"


def image_topic(node: Node, transport: str) -> str:
    """Name the topic of a node's camera: `image` as remapped, and for compressed images `/compressed` behind it.

    Args:
        node: whose remappings count.
        transport: raw or compressed.
    """
    topic = node.resolve_topic_name("image")
    if transport == "raw" or topic.endswith(_COMPRESSED):  # some remap to the topic itself
        return topic
    return topic + _COMPRESSED


def camera_info_topic(node: Node) -> str:
    """Name the topic of the camera's calibration: `camera_info` if that is remapped, else the one beside the image."""
    named = node.resolve_topic_name("camera_info")
    if named != node.resolve_topic_name("camera_info", only_expand=True):
        return named
    image = node.resolve_topic_name("image").removesuffix(_COMPRESSED)
    return node.resolve_topic_name(f"{image.rsplit('/', 1)[0]}/camera_info")
