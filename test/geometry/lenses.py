"""A camera with each of the lenses that CameraInfo can describe."""

from __future__ import annotations

from dataclasses import replace

from sfi_ros.geometry.calibration import Calibration, camera_matrix

PINHOLE = Calibration.pinhole(640, 480, camera_matrix(640, 480, 80))
LENSES = {
    "none": PINHOLE,
    "plumb_bob": replace(PINHOLE, d=(-0.28, 0.09, 0.001, -0.0007, -0.012)),
    "rational_polynomial": replace(
        PINHOLE, distortion_model="rational_polynomial", d=(1.2, 0.4, 0.0004, -0.0003, 0.02, 1.5, 0.6, 0.08)
    ),
    "equidistant": replace(PINHOLE, distortion_model="equidistant", d=(-0.02, 0.006, -0.004, 0.0007)),
}
