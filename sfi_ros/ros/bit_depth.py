"""16-bit images whose values use other bits than they are taken to: the network would see black or white."""

from __future__ import annotations

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from sfi_ros.frames.encodings import depth_problem, used_bits


class BitDepth:
    """Looks at the images of one camera and warns, once for each trouble.

    Args:
        node: for its log.
        topic: of the camera's images, for the log.
    """

    def __init__(self, node: Node, topic: str):
        self._log, self._topic = node.get_logger(), topic
        self._known_for = self._most = 0  # significant bits, and the most that any image has used since they were set

    def check(self, message: Image | CompressedImage, significant_bits: int) -> None:
        """Warn if the image's values do not fill `significant_bits`, or need more."""
        most = self._most
        if self._known_for != significant_bits:
            most = 0
        elif isinstance(message, CompressedImage):
            return  # looked at once: it has to be decoded again for that
        bits = used_bits(message) or 0
        self._known_for, self._most = significant_bits, max(bits, most)
        if bits <= most:
            return
        if problem := depth_problem(f"16-bit images on {self._topic}", bits, significant_bits):
            self._log.warning(problem)
