"""Points to pixels and back, for every distortion model of CameraInfo."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from lenses import LENSES, PINHOLE

from sfi_ros.geometry.calibration import CalibrationError, RegionOfInterest
from sfi_ros.geometry.camera_model import CameraModel


def all_pixels(step: int = 23) -> np.ndarray:
    columns, rows = np.meshgrid(np.arange(0, 640, step), np.arange(0, 480, step))
    return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(float)


@pytest.mark.parametrize("lens", LENSES)
def test_a_pixel_is_found_again(lens: str) -> None:
    model = CameraModel.of(LENSES[lens])
    directions = model.directions(all_pixels())
    assert np.isfinite(directions).all() and (directions[:, 2] == 1).all()
    assert np.abs(model.pixels(directions * 7.3) - all_pixels()).max() < 1e-3


@pytest.mark.parametrize("lens", ["plumb_bob", "rational_polynomial"])
def test_projects_as_opencv_does(lens: str) -> None:
    points = np.random.default_rng(0).uniform([-3, -2, 5], [3, 2, 20], (50, 3))
    calibration = LENSES[lens]
    expected, _ = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), calibration.camera_matrix, np.array(calibration.d)
    )
    assert np.allclose(CameraModel.of(calibration).pixels(points), expected[:, 0])


def test_projects_fisheye_as_opencv_does() -> None:
    points = np.random.default_rng(0).uniform([-9, -6, 5], [9, 6, 20], (50, 3))
    calibration = LENSES["equidistant"]
    expected, _ = cv2.fisheye.projectPoints(
        points[:, None], np.zeros(3), np.zeros(3), calibration.camera_matrix, np.array(calibration.d)
    )
    assert np.allclose(CameraModel.of(calibration).pixels(points), expected[:, 0])


@pytest.mark.parametrize("lens", LENSES)
def test_what_lies_behind_or_far_aside_is_not_in_the_picture(lens: str) -> None:
    model = CameraModel.of(LENSES[lens])
    assert np.isnan(model.pixels(np.array([[0.1, 0.1, -1.0], [0.0, 0.0, 0.0]]))).all()
    aside = np.tan(np.linspace(0.9, 1.55, 200))  # strong barrel distortion folds back there
    pixels = model.pixels(np.stack([aside, 0 * aside, np.ones(200)], axis=1))[:, 0]
    assert not ((pixels > 0) & (pixels < 639)).any()


def test_size_and_part_of_the_sensor_are_worked_in() -> None:
    whole = CameraModel.of(PINHOLE)
    points = np.random.default_rng(0).uniform([-3, -2, 5], [3, 2, 20], (20, 3))
    half = CameraModel.of(PINHOLE, (320, 240)).pixels(points)
    assert np.allclose((half + 0.5) * 2 - 0.5, whole.pixels(points))
    part = replace(PINHOLE, roi=RegionOfInterest(40, 60, 300, 200), binning_x=2, binning_y=2)
    model = CameraModel.of(part)
    assert model.size == (150, 100)
    assert np.allclose((model.pixels(points) + 0.5) * 2 - 0.5 + (40, 60), whole.pixels(points))


def test_rectified_images_have_the_projection_matrix() -> None:
    model = CameraModel.of(LENSES["plumb_bob"], rectified=True)
    points = np.random.default_rng(0).uniform([-3, -2, 5], [3, 2, 20], (20, 3))
    assert np.allclose(model.pixels(points), CameraModel.of(PINHOLE).pixels(points))


@pytest.mark.parametrize(("name", "d"), [("omnidirectional", (0.1,)), ("foo", (0.0,) * 5), ("", (0.1, 0, 0, 0, 0))])
def test_an_unknown_lens_is_named_with_the_remedy(name: str, d: tuple[float, ...]) -> None:
    camera = replace(PINHOLE, distortion_model=name, d=d)
    with pytest.raises(CalibrationError, match=rf"'{name}'.*plumb_bob.*Rectify .*--rectified"):
        CameraModel.of(camera)
    assert len(CameraModel.of(camera, rectified=True).distortion) == 0
    assert camera.resized((320, 240)).distortion_model == name, "where pixels are not projected it is passed on"


@pytest.mark.parametrize(("name", "d"), [("", ()), ("", (0.0,) * 5), ("none", ())])
def test_without_coefficients_there_is_no_distortion_whatever_its_model(name: str, d: tuple[float, ...]) -> None:
    model = CameraModel.of(replace(PINHOLE, distortion_model=name, d=d))
    points = np.random.default_rng(0).uniform([-3, -2, 5], [3, 2, 20], (20, 3))
    np.testing.assert_array_equal(model.pixels(points), CameraModel.of(PINHOLE).pixels(points))
