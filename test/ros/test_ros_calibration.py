"""Calibrations of resized images: a point in space must land on the same spot of the picture."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sensor_msgs", reason="ROS messages are not installed (pip install sfi_ros[ros])")

from sensor_msgs.msg import CameraInfo, RegionOfInterest

from sfi_ros.ros.calibration import CalibrationError, camera_matrix, copied, pinhole, read_yaml, scaled, size_of_images

POINTS = np.random.default_rng(0).uniform([-2, -1, 3, 1], [2, 1, 20, 1], (20, 4))


def project(info: CameraInfo) -> np.ndarray:
    """Pixels of POINTS through the projection matrix, which K must agree with."""
    p = np.reshape(info.p, (3, 4))
    np.testing.assert_allclose(p[:, :3], np.reshape(info.k, (3, 3)))
    pixels = POINTS @ p.T
    return pixels[:, :2] / pixels[:, 2:]


def full_size(width=1280, height=720) -> CameraInfo:
    info = pinhole(width, height, camera_matrix(width, height, 75.0))
    info.p[3] = -40.0  # the right camera of a stereo pair
    return info


@pytest.mark.parametrize("size", [(640, 360), (455, 256), (1280, 720), (2000, 300)])
def test_resized(size):
    info = full_size()
    result = scaled(info, (1280, 720), size)
    assert (result.width, result.height) == size
    scale = np.array(size) / (1280, 720)
    np.testing.assert_allclose(project(result), (project(info) + 0.5) * scale - 0.5)


def test_a_binned_region_of_interest():
    info = full_size()
    info.roi = RegionOfInterest(x_offset=100, y_offset=60, width=800, height=400)
    info.binning_x, info.binning_y = 2, 4
    assert size_of_images(info) == (400, 100)
    result = scaled(info, (400, 100), (200, 50))
    np.testing.assert_allclose(project(result), (project(info) - (100, 60) + 0.5) * (200 / 800, 50 / 400) - 0.5)
    assert size_of_images(result) == (200, 50)


def test_an_image_of_the_same_size_keeps_its_calibration():
    info = full_size()
    info.roi = RegionOfInterest(x_offset=100, y_offset=60, width=800, height=400)
    result = scaled(info, (800, 400), (800, 400))
    assert result == info
    assert result is not info


def test_a_calibration_of_another_size_is_refused():
    with pytest.raises(CalibrationError, match="images of 1280x720, the image has 640x480"):
        scaled(full_size(), (640, 480), (320, 240))


def test_copied():
    info = full_size()
    info.roi = RegionOfInterest(x_offset=1, y_offset=2, width=3, height=4, do_rectify=True)
    info.binning_x = 2
    assert copied(info) == info


@pytest.mark.parametrize("text", ["", "a: [", "image_width: 3", "- 1\n- 2", "image_width: wide"])
def test_files_that_are_no_calibration_are_named(tmp_path, text):
    path = tmp_path / "camera.yaml"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=r"camera\.yaml is not a calibration"):
        read_yaml(path)
