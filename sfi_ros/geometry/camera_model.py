"""From points to pixels and back, for the distortion models of sensor_msgs/CameraInfo.

Camera axes are those of an optical frame (REP-103): x right, y down, z forward. Pixel centres lie at whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from sfi_ros.geometry.calibration import Calibration, CalibrationError

MODELS: Final = ("plumb_bob", "rational_polynomial", "equidistant")
"""Distortion models that points can be projected with; those of sensor_msgs/distortion_models.hpp."""

_STEEPEST: Final = 12.0  # tangent of the widest angle from the optical axis: 85 degrees
_ITERATIONS: Final = 20
_SOLVED: Final = 1e-5  # pixels
_TOLERANCE: Final = 0.05  # pixels, where the last digit is not reached
_TINY: Final = 1e-6


@dataclass(frozen=True)
class CameraModel:
    """A camera's optics for images of one size.

    Attributes:
        matrix: (3, 3) float64, pixels.
        distortion: coefficients as OpenCV takes them; empty without distortion.
        fisheye: whether they are those of an equidistant camera.
        size: (width, height) of the images.
        reach: tangent of the largest angle from the optical axis that the model holds for. Polynomials fold back
            farther out, and would show what lies outside of the picture in it.
    """

    matrix: np.ndarray
    distortion: np.ndarray
    fisheye: bool
    size: tuple[int, int]
    reach: float

    @classmethod
    def of(
        cls, calibration: Calibration, size: tuple[int, int] | None = None, *, rectified: bool = False
    ) -> CameraModel:
        """Return the model of a calibrated camera.

        Args:
            calibration: of the images as they came.
            size: (width, height) of the image or mask, resized from it; default: as it came.
            rectified: the images were rectified, and so have the projection matrix and no distortion.

        Raises:
            CalibrationError: coefficients of a model that is not in `MODELS`; zeros without a name of it are none.
        """
        calibration = calibration.resized(size or calibration.image_size)
        width, height = size or (calibration.width, calibration.height)
        if rectified:
            return cls(calibration.projection_matrix[:, :3], np.empty(0), False, (width, height), _STEEPEST)
        distortion = np.array(calibration.d)
        unknown = calibration.distortion_model not in MODELS
        # Zeros are no distortion in every known polynomial; those of another model may be a fisheye's.
        if unknown and (distortion.any() or (calibration.distortion_model and len(distortion))):
            raise CalibrationError(
                f"the distortion model is {calibration.distortion_model!r}; known are {', '.join(MODELS)}. "
                "Rectify the images (image_proc), or calibrate with one of them; of images without distortion say that "
                "they are rectified (sfi: --rectified; node: layout.rectified)"
            )
        fisheye = calibration.distortion_model == "equidistant" and len(distortion) > 0
        if not fisheye and not distortion.any():
            distortion = np.empty(0)
        model = cls(calibration.camera_matrix, distortion, fisheye, (width, height), _STEEPEST)
        return cls(model.matrix, distortion, fisheye, model.size, model._find_reach())

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Project points.

        Args:
            points: (N, 3) in camera axes, metres or any other unit.

        Returns:
            (N, 2) float64 pixels, also outside of the image; NaN behind the camera and beyond `reach`.
        """
        z = points[:, 2]
        ahead = z > 1e-9
        depth = np.where(ahead, z, 1.0)
        slopes = points[:, :2] / depth[:, None]
        inside = ahead & (slopes[:, 0] ** 2 + slopes[:, 1] ** 2 <= self.reach**2)
        pixels = self._distorted(slopes)
        pixels[~inside] = np.nan
        return pixels

    def directions(self, pixels: np.ndarray) -> np.ndarray:
        """Return where pixels look: the inverse of `pixels`.

        Args:
            pixels: (N, 2), whole or not.

        Returns:
            (N, 3) float64 in camera axes with z = 1; NaN where no direction within `reach` leads to the pixel.
        """
        pixels = np.asarray(pixels, dtype=np.float64)
        slopes = self._pinhole(pixels)
        if len(self.distortion) and len(pixels):
            slopes = self._undistorted(self._first_guess(slopes, pixels), pixels)
        directions = np.ones((len(pixels), 3))
        directions[:, :2] = slopes
        return directions

    def _pinhole(self, pixels: np.ndarray) -> np.ndarray:
        (fx, _, cx), (_, fy, cy), _ = self.matrix
        return np.stack([(pixels[:, 0] - cx) / fx, (pixels[:, 1] - cy) / fy], axis=1)

    def _first_guess(self, slopes: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        if not self.fisheye:
            return cv2.undistortPoints(pixels[:, None], self.matrix, self.distortion)[:, 0]
        angle = np.maximum(np.hypot(slopes[:, 0], slopes[:, 1]), 1e-12)  # the polynomial is nearly the angle itself
        return slopes * (np.tan(np.minimum(angle, np.arctan(_STEEPEST))) / angle)[:, None]

    def _undistorted(self, guess: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Solve `_distorted(slopes) == pixels` by Newton's method; NaN where there is no solution."""
        found = guess
        left = np.arange(len(pixels))  # not solved yet
        for _ in range(_ITERATIONS):
            here = found[left]
            there = self._distorted(here)
            error = pixels[left] - there
            wrong = np.abs(error).max(axis=1) > _SOLVED
            left, here, there, error = left[wrong], here[wrong], there[wrong], error[wrong]
            if len(left) == 0:
                break
            a, c = ((self._distorted(here + np.array([_TINY, 0.0])) - there) / _TINY).T
            b, d = ((self._distorted(here + np.array([0.0, _TINY])) - there) / _TINY).T
            determinant = np.where(np.abs(a * d - b * c) > 1e-9, a * d - b * c, np.inf)
            step = np.stack([d * error[:, 0] - b * error[:, 1], a * error[:, 1] - c * error[:, 0]], axis=1)
            here = here + np.clip(step / determinant[:, None], -1, 1)
            length = np.maximum(np.hypot(here[:, 0], here[:, 1]), 1e-12)
            found[left] = here * np.minimum(1.0, 1.2 * self.reach / length)[:, None]
        missed = np.ones(len(found), bool)
        missed[np.abs(pixels - self._distorted(found)).max(axis=1) < _TOLERANCE] = False
        missed |= found[:, 0] ** 2 + found[:, 1] ** 2 > self.reach**2
        return np.where(missed[:, None], np.nan, found)

    def _distorted(self, slopes: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) of directions (N, 2) with z = 1."""
        if len(self.distortion) == 0:
            (fx, _, cx), (_, fy, cy), _ = self.matrix
            return np.stack([slopes[:, 0] * fx + cx, slopes[:, 1] * fy + cy], axis=1)
        if len(slopes) == 0:
            return np.empty((0, 2))
        if self.fisheye:
            return cv2.fisheye.distortPoints(slopes[:, None], self.matrix, self.distortion)[:, 0]
        points = np.hstack([slopes, np.ones((len(slopes), 1))])
        pixels, _ = cv2.projectPoints(points[:, None], np.zeros(3), np.zeros(3), self.matrix, self.distortion)
        return pixels[:, 0]

    def _find_reach(self) -> float:
        """Return where the distance from the image's centre stops growing with the angle."""
        if len(self.distortion) == 0:
            return _STEEPEST
        slopes = np.tan(np.linspace(0, np.arctan(_STEEPEST), 2000))
        reach = _STEEPEST
        for x, y in ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)):
            pixels = self._distorted(np.stack([x * slopes, y * slopes], axis=1)) - self.matrix[:2, 2]
            growing = np.diff(pixels @ np.array([x, y])) > 0
            if not growing.all():
                reach = min(reach, float(slopes[int(np.argmin(growing))]))
        return reach
