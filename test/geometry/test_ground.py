"""Pixels and points of the ground, and the grid."""

from __future__ import annotations

import numpy as np
import pytest
from lenses import LENSES

from sfi_ros.errors import OptionError
from sfi_ros.geometry.calibration import Calibration, camera_matrix
from sfi_ros.geometry.ground import GroundCamera, GroundGrid
from sfi_ros.geometry.pose import CameraPose

FOCAL = 500.0
LEVEL = GroundCamera.of(
    Calibration.pinhole(800, 600, np.array([[FOCAL, 0, 400], [0, FOCAL, 300], [0, 0, 1.0]])), CameraPose(1.5)
)


def test_a_level_camera_sees_what_the_formula_says() -> None:
    pixels = LEVEL.pixels(np.array([10.0, 20.0]), np.array([0.0, 2.0]))
    assert np.allclose(pixels, [[400, 300 + FOCAL * 1.5 / 10], [400 - FOCAL * 2 / 20, 300 + FOCAL * 1.5 / 20]])
    assert np.allclose(LEVEL.ground(pixels), [[10, 0], [20, 2]])


@pytest.mark.parametrize("lens", LENSES)
def test_the_ground_under_a_pixel_is_seen_by_that_pixel(lens: str) -> None:
    camera = GroundCamera.of(LENSES[lens], CameraPose(1.4, 0.2, -0.03, 0.4, 1.7, -0.2))
    columns, rows = np.meshgrid(np.arange(0, 640, 37), np.arange(0, 480, 29))
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1)
    points = camera.ground(pixels)
    seen = np.isfinite(points).all(axis=1)
    assert 0.4 < seen.mean() < 1
    assert np.abs(camera.pixels(points[seen, 0], points[seen, 1]) - pixels[seen]).max() < 0.01


def test_the_horizon_and_the_sky_are_nowhere() -> None:
    points = LEVEL.ground(np.array([[400, 300], [400, 100], [400, 301]]))
    assert np.isnan(points[:2]).all() and np.isfinite(points[2]).all()


def test_a_point_reads_the_pixel_that_it_falls_into() -> None:
    rows = np.array([350.49, 350.51])
    points = LEVEL.ground(np.stack([np.full(2, 123.0), rows], axis=1))
    assert LEVEL.pixel_indices(points[:, 0], points[:, 1]).tolist() == [350 * 800 + 123, 351 * 800 + 123]
    assert LEVEL.pixel_indices(np.array([1.0, -5.0]), np.array([0.0, 0.0])).tolist() == [-1, -1]


def test_a_higher_surface_is_seen_higher() -> None:
    low, high = (LEVEL.pixels(np.array([10.0]), np.array([0.0]), z) for z in (0.0, 0.1))
    assert np.isclose(low[0, 1] - high[0, 1], FOCAL * 0.1 / 10)


def test_the_grid_is_arranged_as_an_occupancy_grid() -> None:
    grid = GroundGrid(0, 4, -1, 2, 0.5)
    assert grid.shape == (6, 8)
    x, y = grid.centres()
    assert x[0, :2].tolist() == [0.25, 0.75] and y[:2, 0].tolist() == [-0.75, -0.25]
    assert grid.cells(x.ravel(), y.ravel()).tolist() == list(range(48))
    assert grid.cells(np.array([-0.1, 4.0, np.nan]), np.array([0.0, 0.0, 0.0])).tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    "wrong", [{"resolution": 0.0}, {"x_max": -1.0}, {"y_max": float("nan")}, {"resolution": 0.001}]
)
def test_impossible_grids_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="grid"):
        GroundGrid(**wrong)


def test_a_camera_matrix_helper_looks_through_the_middle() -> None:
    camera = GroundCamera.of(Calibration.pinhole(100, 80, camera_matrix(100, 80, 60)), CameraPose(1.0))
    assert np.allclose(camera.pixels(np.array([5.0]), np.array([0.0]), 1.0), [[49.5, 39.5]])
