"""Camera calibrations: read, checked, guessed, and scaled to another image size.

`Calibration` has the fields of sensor_msgs/CameraInfo and its conventions, without ROS. Pixel centres lie at whole
numbers, so an image of width w reaches from -0.5 to w - 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from sfi_ros.errors import SfiError

# How many coefficients OpenCV takes for each model of sensor_msgs/distortion_models.hpp; 0 is an undistorted camera.
# It goes by their number alone, so a rational polynomial that a driver calls plumb_bob is understood everywhere.
_COEFFICIENTS: Final = {
    "plumb_bob": (0, 4, 5, 8, 12, 14),
    "rational_polynomial": (0, 8, 12, 14),
    "equidistant": (0, 4),
}
_IDENTITY: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
_LARGEST_FILE: Final = 2**20  # bytes; a calibration has one or two thousand
_MOST_NUMBERS: Final = 100  # in a matrix or list of coefficients
_LARGEST_NUMBER: Final = 2**32 - 1  # of pixels, in CameraInfo


class CalibrationError(SfiError, ValueError):
    """A calibration that cannot be used; the message says why."""


@dataclass(frozen=True)
class RegionOfInterest:
    """The part of the sensor that the images show, in unbinned pixels; a size of 0 means all of it."""

    x_offset: int = 0
    y_offset: int = 0
    width: int = 0
    height: int = 0
    do_rectify: bool = False


@dataclass(frozen=True)
class Calibration:
    """The calibration of one camera; every instance has been checked.

    Attributes:
        width, height: of the whole sensor, pixels.
        distortion_model: plumb_bob, rational_polynomial or equidistant; others are kept as they are.
        d: coefficients of the distortion; as many as the model takes.
        k: camera matrix of the distorted image, 3 x 3 by rows, pixels.
        r: rectifying rotation, 3 x 3 by rows.
        p: projection matrix of the rectified image, 3 x 4 by rows, pixels.
        binning_x, binning_y: sensor pixels per image pixel; 0 is the same as 1.
        roi: the part of the sensor that the images show.

    Raises:
        CalibrationError: matrices of the wrong size, numbers that are not finite, sizes or focal lengths that are not
            positive. A CameraInfo whose matrices are all zero comes from an uncalibrated camera; the error says so.
    """

    width: int
    height: int
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    r: tuple[float, ...]
    p: tuple[float, ...]
    binning_x: int = 0
    binning_y: int = 0
    roi: RegionOfInterest = RegionOfInterest()

    def __post_init__(self) -> None:
        for name, count in (("k", 9), ("r", 9), ("p", 12)):
            if len(getattr(self, name)) != count:
                raise CalibrationError(f"{name.upper()} has {len(getattr(self, name))} numbers instead of {count}")
        counts = _COEFFICIENTS.get(self.distortion_model)
        if counts is not None and len(self.d) not in counts:
            accepted = " or ".join(map(str, counts))
            raise CalibrationError(f"D has {len(self.d)} numbers; {self.distortion_model} takes {accepted}")
        for name in ("d", "k", "r", "p"):
            if not all(map(math.isfinite, getattr(self, name))):
                raise CalibrationError(f"{name.upper()} has a number that is not finite")
        if not any(self.k):
            raise CalibrationError("the camera is not calibrated: K is all zero (run camera_calibration)")
        if not (self.k[0] > 0 and self.k[4] > 0):
            raise CalibrationError(f"the focal lengths in K are {self.k[0]:g} and {self.k[4]:g}; both must be positive")
        if not (0 < self.width <= _LARGEST_NUMBER and 0 < self.height <= _LARGEST_NUMBER):
            raise CalibrationError(f"its image size is {self.width}x{self.height}; both must be 1 to {_LARGEST_NUMBER}")

    @classmethod
    def pinhole(cls, width: int, height: int, camera_matrix: np.ndarray) -> Calibration:
        """Describe a camera without distortion.

        Args:
            width, height: of its images, pixels.
            camera_matrix: 3 x 3, pixels.
        """
        matrix = np.asarray(camera_matrix, dtype=np.float64)
        projection = np.hstack([matrix, np.zeros((3, 1))])
        return cls(
            width, height, "plumb_bob", (0.0,) * 5, _numbers(matrix.ravel()), _IDENTITY, _numbers(projection.ravel())
        )

    @classmethod
    def from_yaml(cls, path: str | Path) -> Calibration:
        """Read the YAML that camera_calibration writes and camera drivers load.

        Raises:
            CalibrationError: no such file, or not such a calibration; the message names the file.
        """
        document = _document(Path(path))
        try:
            return cls(
                width=_whole(document["image_width"]),
                height=_whole(document["image_height"]),
                distortion_model=str(document["distortion_model"]),
                d=_matrix(document, "distortion_coefficients"),
                k=_matrix(document, "camera_matrix"),
                r=_matrix(document, "rectification_matrix"),
                p=_matrix(document, "projection_matrix"),
            )
        except KeyError as error:
            raise CalibrationError(
                f"{path} is not a calibration as camera_calibration writes it: no {error}"
            ) from error
        except (TypeError, ValueError, OverflowError) as error:
            raise CalibrationError(f"{path} is not a calibration as camera_calibration writes it: {error}") from error

    @classmethod
    def from_message(cls, message: Any) -> Calibration:
        """Take the calibration out of a sensor_msgs/CameraInfo.

        Args:
            message: anything with its fields: of rclpy or of rosbags, also in the spelling of ROS 1 (K, not k).

        Raises:
            CalibrationError: see the class.
        """
        d, k, r, p = (
            _numbers(getattr(message, name if hasattr(message, name) else name.upper()))
            for name in ("d", "k", "r", "p")
        )
        return cls(
            width=int(message.width),
            height=int(message.height),
            distortion_model=str(message.distortion_model),
            d=d,
            k=k,
            r=r,
            p=p,
            binning_x=int(message.binning_x),
            binning_y=int(message.binning_y),
            roi=RegionOfInterest(
                **{field.name: getattr(message.roi, field.name) for field in fields(RegionOfInterest)}
            ),
        )

    @property
    def camera_matrix(self) -> np.ndarray:
        """`k` as a (3, 3) float64 array."""
        return np.array(self.k).reshape(3, 3)

    @property
    def projection_matrix(self) -> np.ndarray:
        """`p` as a (3, 4) float64 array."""
        return np.array(self.p).reshape(3, 4)

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the images that this calibration belongs to: the region of interest, binned."""
        width, height = self.roi.width or self.width, self.roi.height or self.height
        return width // max(self.binning_x, 1), height // max(self.binning_y, 1)

    def scaled(self, image_size: tuple[int, int], size: tuple[int, int]) -> Calibration:
        """Return the calibration of an image after it was resized.

        Args:
            image_size: (width, height) of the image as it came.
            size: (width, height) after resizing.

        Returns:
            A calibration for exactly `size`; region of interest and binning are worked into the matrices where `size`
            differs from `image_size`.

        Raises:
            CalibrationError: this calibration does not belong to an image of `image_size`.
        """
        if self.image_size != tuple(image_size):
            (width, height), (expected_width, expected_height) = image_size, self.image_size
            raise CalibrationError(
                f"camera_info is for images of {expected_width}x{expected_height}, the image has {width}x{height}"
            )
        return self if tuple(size) == tuple(image_size) else self.resized(size)

    def resized(self, size: tuple[int, int]) -> Calibration:
        """Return the calibration of the images after they were resized to `size`, also to their own.

        Region of interest and binning are worked into the matrices, which then belong to the pixels of that image.
        """
        roi = self.roi
        across, down = size[0] / (roi.width or self.width), size[1] / (roi.height or self.height)
        resizing = np.array(  # of pixel coordinates; the image's border stays where it is
            [
                [across, 0, (0.5 - roi.x_offset) * across - 0.5],
                [0, down, (0.5 - roi.y_offset) * down - 0.5],
                [0, 0, 1],
            ]
        )
        return replace(
            self,
            width=size[0],
            height=size[1],
            k=_numbers((resizing @ self.camera_matrix).ravel()),
            p=_numbers((resizing @ self.projection_matrix).ravel()),
            binning_x=0,
            binning_y=0,
            roi=RegionOfInterest(do_rectify=roi.do_rectify),
        )


def camera_matrix(width: int, height: int, field_of_view: float) -> np.ndarray:
    """Make the 3 x 3 matrix of a camera that looks through the middle of its image.

    Args:
        width, height: of the image, pixels.
        field_of_view: across the image, degrees.
    """
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def _document(path: Path) -> dict[str, Any]:
    import yaml  # only those who name a file need it

    try:
        if not path.is_file():
            raise CalibrationError(f"{path} cannot be read: " + ("not a file" if path.exists() else "no such file"))
        if path.stat().st_size > _LARGEST_FILE:
            raise CalibrationError(f"{path} is not a calibration: it is larger than a megabyte")
        document = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, CalibrationError):
            raise
        raise CalibrationError(f"{path} is not a calibration: it is not YAML ({_first_line(error)})") from error
    if not isinstance(document, dict):
        raise CalibrationError(f"{path} is not a calibration as camera_calibration writes it: no keys and values")
    return document


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _matrix(document: dict[str, Any], name: str) -> tuple[float, ...]:
    matrix = document[name]
    if not isinstance(matrix, dict) or not isinstance(matrix.get("data"), list):
        raise ValueError(f"{name} has no list 'data'")
    for value in matrix["data"]:
        if isinstance(value, bool) or not isinstance(value, int | float | str):  # YAML reads 1e3 as a text
            raise ValueError(f"{name} holds {value!r:.50}, which is no number")
    return _numbers(matrix["data"])


def _whole(value: Any) -> int:
    number = float(value)
    if isinstance(value, bool) or number != int(number):
        raise ValueError(f"{value!r} is not a number of pixels")
    return int(number)


def _numbers(values: Collection[Any]) -> tuple[float, ...]:
    if len(values) > _MOST_NUMBERS:
        raise CalibrationError(f"it has a list of {len(values)} numbers; no camera model has more than {_MOST_NUMBERS}")
    return tuple(float(value) for value in values)
