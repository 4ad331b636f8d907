"""The pixel formats of ROS image messages as RGB arrays, without ROS: the node and the offline bag reader share it.

A view is the message's own memory, never a copy. What cannot be an image raises `ImageError` before OpenCV sees it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

from sfi_ros.errors import ImageError
from sfi_ros.frames.decoding import decode_deep_photo, decode_photo, upper_eight_bits
from sfi_ros.frames.limits import FILE_MEGAPIXELS, MAX_MEGAPIXELS, MAX_SIGNIFICANT_BITS, check_size

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Encoding:
    """How an encoding lies in memory and how OpenCV turns it into RGB.

    Attributes:
        channels: values per pixel.
        depth: bits per value, 8 or 16.
        to_rgb: 8-bit view -> (H, W, 3) uint8 RGB.
        rows_per_row: rows of memory for one row of pixels; 1.5 for the planar 4:2:0 formats.
        even: width (and height, where rows are shared) must be even.
    """

    channels: int
    depth: int
    to_rgb: Callable[[np.ndarray], np.ndarray]
    rows_per_row: float = 1.0
    even: bool = False


def _itself(view: np.ndarray) -> np.ndarray:
    return view


def _with(code: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda view: cv2.cvtColor(view, code)


_GRAY, _BGR = _with(cv2.COLOR_GRAY2RGB), _with(cv2.COLOR_BGR2RGB)
_RGBA, _BGRA = _with(cv2.COLOR_RGBA2RGB), _with(cv2.COLOR_BGRA2RGB)
_UYVY, _YUYV = _with(cv2.COLOR_YUV2RGB_UYVY), _with(cv2.COLOR_YUV2RGB_YUYV)

# ROS names a Bayer pattern by its first two rows from the corner; OpenCV's older names start at the second pixel of
# the second row, which is why RGGB is "BG" here.
_BAYER = {
    "rggb": _with(cv2.COLOR_BayerBG2RGB),
    "bggr": _with(cv2.COLOR_BayerRG2RGB),
    "gbrg": _with(cv2.COLOR_BayerGR2RGB),
    "grbg": _with(cv2.COLOR_BayerGB2RGB),
}

_ENCODINGS: Final[dict[str, _Encoding]] = {
    "rgb8": _Encoding(3, 8, _itself),
    "bgr8": _Encoding(3, 8, _BGR),
    "rgba8": _Encoding(4, 8, _RGBA),
    "bgra8": _Encoding(4, 8, _BGRA),
    "mono8": _Encoding(1, 8, _GRAY),
    "8UC1": _Encoding(1, 8, _GRAY),
    "8UC3": _Encoding(3, 8, _BGR),
    "8UC4": _Encoding(4, 8, _BGRA),
    "rgb16": _Encoding(3, 16, _itself),
    "bgr16": _Encoding(3, 16, _BGR),
    "rgba16": _Encoding(4, 16, _RGBA),
    "bgra16": _Encoding(4, 16, _BGRA),
    "mono16": _Encoding(1, 16, _GRAY),
    "16UC1": _Encoding(1, 16, _GRAY),
    "16UC3": _Encoding(3, 16, _BGR),
    "16UC4": _Encoding(4, 16, _BGRA),
    "yuv422": _Encoding(2, 8, _UYVY, even=True),
    "uyvy": _Encoding(2, 8, _UYVY, even=True),
    "yuv422_yuy2": _Encoding(2, 8, _YUYV, even=True),
    "yuyv": _Encoding(2, 8, _YUYV, even=True),
    "nv12": _Encoding(1, 8, _with(cv2.COLOR_YUV2RGB_NV12), rows_per_row=1.5, even=True),
    "nv21": _Encoding(1, 8, _with(cv2.COLOR_YUV2RGB_NV21), rows_per_row=1.5, even=True),
    **{f"bayer_{pattern}8": _Encoding(1, 8, to_rgb) for pattern, to_rgb in _BAYER.items()},
    **{f"bayer_{pattern}16": _Encoding(1, 16, to_rgb) for pattern, to_rgb in _BAYER.items()},
}

ENCODINGS: Final = tuple(_ENCODINGS)
"""Names that `to_rgb` accepts in a message of type sensor_msgs/Image."""


def view(message: Any, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Return the pixels of a sensor_msgs/Image where they lie, in the encoding's own channel order.

    Args:
        message: anything with the fields of sensor_msgs/Image; rclpy's and rosbags' messages both fit.
        max_megapixels: larger images are refused.

    Returns:
        (H, W) or (H, W, C) uint8 or uint16 sharing the memory of `message.data`, with its row step; (H * 3 / 2, W) for
        NV12 and NV21. 16-bit values have the message's byte order.

    Raises:
        ImageError: an encoding that is not in `ENCODINGS`, a size of zero or above the limit, or data that do not fit.
    """
    encoding = _ENCODINGS.get(message.encoding)
    if encoding is None:
        raise ImageError(f"unknown encoding {message.encoding!r}; known are {', '.join(ENCODINGS)}")
    height, width, step = int(message.height), int(message.width), int(message.step)
    what = f"{message.encoding} image of {width}x{height}"
    check_size(width, height, what, max_megapixels)
    if encoding.even and (width % 2 or (encoding.rows_per_row != 1 and height % 2)):
        raise ImageError(f"{what}: chroma is shared by pairs of pixels, so its sides must be even")
    itemsize = encoding.depth // 8
    row = width * encoding.channels * itemsize
    if step < row:
        raise ImageError(f"{what} has step {step}, but a row of it needs {row} bytes")
    rows = int(height * encoding.rows_per_row)
    data = np.frombuffer(message.data, dtype=np.uint8)
    if data.size != step * rows:
        raise ImageError(f"{what} with step {step} needs {step * rows} bytes of data; it has {data.size}")
    order = ">" if message.is_bigendian else "<"
    dtype = np.dtype(np.uint8) if itemsize == 1 else np.dtype(f"{order}u2")
    if encoding.channels == 1:
        return np.ndarray((rows, width), dtype, data, strides=(step, itemsize))
    shape = (rows, width, encoding.channels)
    return np.ndarray(shape, dtype, data, strides=(step, encoding.channels * itemsize, itemsize))


def to_rgb(
    message: Any, max_megapixels: float = MAX_MEGAPIXELS, significant_bits: int = MAX_SIGNIFICANT_BITS
) -> np.ndarray:
    """Convert a sensor_msgs/Image to (H, W, 3) uint8 RGB; for rgb8 return a view of the message.

    Args:
        message: see `view`.
        max_megapixels: see `view`.
        significant_bits: of a 16-bit image; see `decoding.upper_eight_bits`.

    Raises:
        ImageError: see `view`.
    """
    pixels = view(message, max_megapixels)
    encoding = _ENCODINGS[message.encoding]
    pixels = upper_eight_bits(pixels, significant_bits)
    try:
        return encoding.to_rgb(pixels)
    except cv2.error as error:  # a Bayer image of one pixel, for example
        size = f"{message.width}x{message.height}"
        raise ImageError(f"{message.encoding} image of {size} cannot be converted to RGB: {error.err}") from error


def used_bits(message: Any, max_megapixels: float = math.inf) -> int | None:
    """Count the bits that the values of a 16-bit image use, from the low end, 0 to 16.

    A sample of the pixels is looked at, and the brightest thousandth of it left out: hot pixels and lines of metadata
    say nothing about the camera.

    Args:
        message: sensor_msgs/Image or CompressedImage; the latter has to be decoded for it.
        max_megapixels: larger images are refused.

    Returns:
        None for images whose values have eight bits, and for unknown encodings.

    Raises:
        ImageError: see `view` and `decoding.decode_photo`.
    """
    if hasattr(message, "format"):
        pixels = decode_deep_photo(message.data, max_megapixels)
    elif message.encoding in _ENCODINGS:
        pixels = view(message, max_megapixels)
    else:
        return None
    if pixels.dtype.itemsize == 1:
        return None
    colors = pixels[..., :3] if pixels.ndim == 3 else pixels  # an opaque alpha channel is full in any camera
    values = np.sort(colors[::7, ::5], axis=None)
    return int(values[-1 - values.size // 1000]).bit_length()


def depth_problem(what: str, bits: int, significant_bits: int) -> str | None:
    """Say what is wrong with 16-bit images whose values use other bits than they are taken to, None if nothing is.

    The network would see black or white.

    Args:
        what: the images.
        bits: what `used_bits` counts.
        significant_bits: what they are taken to have.
    """
    used = f"{what} use {bits} bits of each value"
    if bits > significant_bits:
        return f"{used}, so with significant_bits = {significant_bits} they are too bright: set it to 16"
    if bits <= significant_bits - 2:
        share = 100 * 2.0 ** (bits - significant_bits)
        return (
            f"{used} and reach only {share:.3g} % of white; if the camera has 10, 12 or 14 bits at the low end, set "
            "significant_bits (of sfi: --significant-bits) to that"
        )
    return None


def warn_of_depth(what: str, message: Any, significant_bits: int) -> None:
    """Log what `depth_problem` says about a message, for a reader of images that may be the first to look at them."""
    try:
        bits = used_bits(message, FILE_MEGAPIXELS)
    except ImageError:  # which decoding will say
        return
    if bits is not None and (problem := depth_problem(what, bits, significant_bits)):
        _log.warning(problem)


def decode_compressed(
    message: Any, max_megapixels: float = MAX_MEGAPIXELS, significant_bits: int = MAX_SIGNIFICANT_BITS
) -> np.ndarray:
    """Decode a sensor_msgs/CompressedImage to (H, W, 3) uint8 RGB; its data tell the format, whatever it is called.

    Args:
        message: anything with the field `data`.
        max_megapixels: larger images are refused before they are decoded.
        significant_bits: of a 16-bit image; see `decoding.upper_eight_bits`.

    Raises:
        ImageError: see `decoding.decode_photo`.
    """
    return decode_photo(message.data, max_megapixels, significant_bits)
