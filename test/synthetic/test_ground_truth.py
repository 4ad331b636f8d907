"""Where the synthetic camera is, and what lies on the ground around it."""

from __future__ import annotations

import numpy as np
import pytest

from sfi_ros.frames.frame import Frame
from sfi_ros.frames.synthetic_street import SyntheticSource
from sfi_ros.geometry.ground import GroundCamera, GroundGrid
from sfi_ros.synthetic import SyntheticStreet

FLAT, CLIMBING = 2_000_001, 2_000_000


@pytest.fixture(scope="module", params=[FLAT, CLIMBING])
def street(request: pytest.FixtureRequest) -> SyntheticStreet:
    return SyntheticStreet(seed=request.param, width=512, height=256)


def test_the_two_kinds_of_street_are_what_they_are_called() -> None:
    assert SyntheticStreet(FLAT, 64, 32).is_flat() and not SyntheticStreet(CLIMBING, 64, 32).is_flat()


@pytest.mark.parametrize("index", [0, 75])
def test_ground_truth_is_what_the_picture_shows(street: SyntheticStreet, index: int) -> None:
    x, y = GroundGrid(4, 30, -8, 8, 0.5).centres()
    truth = street.ground_at(index, x, y)
    columns, rows = np.floor(truth.pixels + 0.5).astype(int).transpose(2, 0, 1)
    inside = (columns >= 0) & (columns < 512) & (rows >= 0) & (rows < 256)
    assert inside.mean() > 0.3
    shown = street.frame(index).background[rows.clip(0, 255), columns.clip(0, 511)]
    assert (shown == truth.classes)[inside & (truth.classes == 0)].mean() > 0.97
    assert (truth.heights == 0).sum() == (truth.classes == 0).sum() > 0


def test_the_pose_projects_the_road_to_where_it_is_seen() -> None:
    street = SyntheticStreet(FLAT, width=512, height=256)
    x, y = GroundGrid(4, 30, -8, 8, 0.5).centres()
    for index in (0, 40):
        camera = GroundCamera.of(street.calibration, street.pose(index))
        truth = street.ground_at(index, x, y)
        road = truth.heights.ravel() == 0
        assert np.abs(camera.pixels(x.ravel(), y.ravel()) - truth.pixels.reshape(-1, 2))[road].max() < 1e-6
    assert street.pose(0) != street.pose(40)


def test_a_synthetic_source_knows_its_camera() -> None:
    frame = next(iter(SyntheticSource(FLAT, start=3)))
    assert isinstance(frame, Frame)
    street = SyntheticStreet(FLAT)
    assert frame.pose == street.pose(3) and frame.calibration == street.calibration
