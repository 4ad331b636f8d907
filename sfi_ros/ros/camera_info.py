"""Calibrations as sensor_msgs/CameraInfo."""

from __future__ import annotations

from dataclasses import asdict

from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

from sfi_ros.geometry.calibration import Calibration


def camera_info_message(calibration: Calibration, header: Header) -> CameraInfo:
    """Make the message of a calibration.

    Args:
        calibration: to publish.
        header: stamp and frame of the image that it belongs to; shared, not copied.
    """
    fields = asdict(calibration)
    return CameraInfo(header=header, roi=RegionOfInterest(**fields.pop("roi")), **fields)
