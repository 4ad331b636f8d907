"""Calibrations as messages: what goes out comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("sensor_msgs", reason="ROS messages are not installed (pip install sfi_ros[ros])")

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from sfi_ros.geometry.calibration import Calibration, CalibrationError, RegionOfInterest, camera_matrix
from sfi_ros.ros.camera_info import camera_info_message


def test_a_calibration_survives_the_wire():
    sent = replace(
        Calibration.pinhole(1280, 720, camera_matrix(1280, 720, 75.0)),
        d=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        distortion_model="rational_polynomial",
        binning_x=2,
        roi=RegionOfInterest(x_offset=1, y_offset=2, width=3, height=4, do_rectify=True),
    )
    header = Header(frame_id="front")
    header.stamp.sec = 7
    received = deserialize_message(serialize_message(camera_info_message(sent, header)), CameraInfo)
    assert Calibration.from_message(received) == sent
    assert (received.header.frame_id, received.header.stamp.sec) == ("front", 7)


def test_the_empty_message_of_an_uncalibrated_camera_is_refused():
    with pytest.raises(CalibrationError, match="not calibrated"):
        Calibration.from_message(CameraInfo(width=640, height=480))
