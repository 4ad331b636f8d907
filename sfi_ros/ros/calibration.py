"""Camera calibrations as sensor_msgs/CameraInfo: read, guessed, and scaled to another image size."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sensor_msgs.msg import CameraInfo, RegionOfInterest


class CalibrationError(ValueError):
    """A calibration that cannot be used; the message says why."""


def pinhole(width: int, height: int, camera_matrix: np.ndarray) -> CameraInfo:
    """A camera without distortion.

    Args:
        width, height: of its images, pixels.
        camera_matrix: 3 x 3, pixels.
    """
    info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    matrix = np.asarray(camera_matrix, dtype=np.float64)
    info.k = matrix.ravel()
    info.r = np.eye(3).ravel()
    info.p = np.hstack([matrix, np.zeros((3, 1))]).ravel()
    return info


def camera_matrix(width: int, height: int, field_of_view: float) -> np.ndarray:
    """3 x 3 matrix of a camera that looks through the middle of its image, `field_of_view` degrees across."""
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def read_yaml(path: str | Path) -> CameraInfo:
    """Read the YAML that camera_calibration writes and camera drivers load.

    Raises:
        CalibrationError: no such file, or not such a calibration.
    """
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        info = CameraInfo(
            width=int(document["image_width"]),
            height=int(document["image_height"]),
            distortion_model=str(document["distortion_model"]),
            d=_floats(document["distortion_coefficients"]),
        )
        info.k = np.array(_floats(document["camera_matrix"]))
        info.r = np.array(_floats(document["rectification_matrix"]))
        info.p = np.array(_floats(document["projection_matrix"]))
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AssertionError) as error:
        raise CalibrationError(f"{path} is not a calibration as camera_calibration writes it: {error!r}") from error
    return info


def copied(other: Any) -> CameraInfo:
    """The calibration in a message that has the fields of sensor_msgs/CameraInfo but is of another library."""
    info = CameraInfo(
        width=int(other.width),
        height=int(other.height),
        distortion_model=str(other.distortion_model),
        d=[float(value) for value in other.d],
        binning_x=int(other.binning_x),
        binning_y=int(other.binning_y),
    )
    info.k, info.r, info.p = (np.array(matrix, dtype=np.float64) for matrix in (other.k, other.r, other.p))
    region = other.roi
    info.roi = RegionOfInterest(
        x_offset=int(region.x_offset),
        y_offset=int(region.y_offset),
        width=int(region.width),
        height=int(region.height),
        do_rectify=bool(region.do_rectify),
    )
    return info


def size_of_images(info: CameraInfo) -> tuple[int, int]:
    """(width, height) of the images that a calibration belongs to: the region of interest, binned."""
    width, height = info.roi.width or info.width, info.roi.height or info.height
    return width // max(info.binning_x, 1), height // max(info.binning_y, 1)


def scaled(info: CameraInfo, image_size: tuple[int, int], size: tuple[int, int]) -> CameraInfo:
    """The calibration of an image after it was resized.

    Args:
        info: of the camera that took the image.
        image_size: (width, height) of the image as it came.
        size: (width, height) after resizing.

    Returns:
        A calibration for exactly `size`; region of interest and binning are worked into the matrices where they differ.

    Raises:
        CalibrationError: `info` does not belong to an image of `image_size`.
    """
    expected = size_of_images(info)
    if expected != tuple(image_size):
        raise CalibrationError(
            f"camera_info is for images of {expected[0]}x{expected[1]}, the image has {image_size[0]}x{image_size[1]}"
        )
    result = deepcopy(info)
    if tuple(size) == tuple(image_size):
        return result
    region = info.roi
    left, top = region.x_offset, region.y_offset
    across, down = size[0] / (region.width or info.width), size[1] / (region.height or info.height)
    # Pixel centres lie at whole numbers and the image's border at -0.5: the border stays where it is.
    k, p = np.array(info.k, dtype=np.float64).reshape(3, 3), np.array(info.p, dtype=np.float64).reshape(3, 4)
    for matrix in (k, p):
        matrix[0, 2] = (matrix[0, 2] - left + 0.5) * across - 0.5
        matrix[1, 2] = (matrix[1, 2] - top + 0.5) * down - 0.5
        matrix[0, :2] *= across
        matrix[1, :2] *= down
    p[0, 3] *= across
    p[1, 3] *= down
    result.k, result.p = k.ravel(), p.ravel()
    result.width, result.height = size
    result.roi = RegionOfInterest(do_rectify=region.do_rectify)
    result.binning_x = result.binning_y = 0
    return result


def _floats(matrix: dict[str, Any]) -> list[float]:
    return [float(value) for value in matrix["data"]]
