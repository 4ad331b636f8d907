"""Image messages of ROS: what comes in as RGB arrays, what goes out filled with a single copy."""

from __future__ import annotations

import array

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from sfi_ros.frames.encodings import (
    ENCODINGS,
    MAX_MEGAPIXELS,
    MAX_SIGNIFICANT_BITS,
    ImageError,
    check_size,
    decode_compressed,
    to_rgb,
)

try:
    from cv_bridge import CvBridge
except (ImportError, AttributeError):  # absent, or built for another NumPy
    CvBridge = None

__all__ = ["ImageError", "compressed_message", "image_message", "message_data", "rgb_of"]

_CHANNELS = {"mono8": 1, "rgb8": 3, "bgr8": 3}


def rgb_of(
    message: Image | CompressedImage,
    max_megapixels: float = MAX_MEGAPIXELS,
    significant_bits: int = MAX_SIGNIFICANT_BITS,
) -> np.ndarray:
    """Decode a message to (H, W, 3) uint8 RGB, which may share the message's memory.

    Args:
        message: to decode.
        max_megapixels: larger images are refused.
        significant_bits: of the values of 16-bit images; see `decoding.upper_eight_bits`.

    Raises:
        ImageError: it cannot be decoded; the message names why.
    """
    if isinstance(message, CompressedImage):
        return decode_compressed(message, max_megapixels, significant_bits)
    if message.encoding not in ENCODINGS and CvBridge is not None:
        return _through_cv_bridge(message, max_megapixels)
    return to_rgb(message, max_megapixels, significant_bits)


def _through_cv_bridge(message: Image, max_megapixels: float) -> np.ndarray:
    """Let an installed cv_bridge convert what `encodings` does not know; for all else OpenCV does the same."""
    what = f"{message.encoding} image of {message.width}x{message.height}"
    check_size(message.width, message.height, what, max_megapixels)
    try:
        return CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8")
    except Exception as error:  # its C++ half raises whatever OpenCV does
        raise ImageError(f"{what} is unknown here, and cv_bridge cannot convert it: {error}") from error


def image_message(pixels: np.ndarray, encoding: str, header: Header, memory: array.array | None = None) -> Image:
    """Make a sensor_msgs/Image.

    Args:
        pixels: (H, W) uint8 for mono8, (H, W, 3) uint8 for rgb8 and bgr8.
        encoding: mono8, rgb8 or bgr8.
        header: stamp and frame of the message; shared, not copied.
        memory: data of an earlier message that nobody reads any more; used again where it has the right size.

    Raises:
        ValueError: pixels that do not fit the encoding.
    """
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or _CHANNELS.get(encoding) != channels:
        raise ValueError(f"{pixels.shape} {pixels.dtype} is no {encoding}; known are {', '.join(_CHANNELS)}")
    message = Image(header=header, encoding=encoding, height=pixels.shape[0], width=pixels.shape[1])
    message.step = pixels.shape[1] * channels
    message.data = message_data(pixels, memory=memory)
    return message


def compressed_message(pixels: np.ndarray, header: Header) -> CompressedImage:
    """Make a sensor_msgs/CompressedImage that holds a JPEG.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        header: stamp and frame of the message; shared, not copied.
    """
    _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return CompressedImage(header=header, format="rgb8; jpeg compressed bgr8", data=message_data(data))


def message_data(values: np.ndarray, kind: str = "B", memory: array.array | None = None) -> array.array:
    """Return values as the type that rclpy stores; assigning an ndarray to `.data` would convert every value.

    Args:
        values: of any shape.
        kind: of `array.array`, with the size of a value, or "B" for bytes.
        memory: see `image_message`; bytes.
    """
    if memory is not None and len(memory) == values.nbytes:
        np.copyto(np.frombuffer(memory, np.uint8).reshape(values.shape), values)
        return memory
    data = array.array(kind)
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
    return data
