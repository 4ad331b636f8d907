"""Layouts of several cameras in one, and the ground behind every pixel."""

from __future__ import annotations

import numpy as np
import pytest

from sfi_ros.geometry.fusion import fuse
from sfi_ros.geometry.ground import GroundCamera, GroundGrid
from sfi_ros.geometry.ground_points import GroundPoints
from sfi_ros.geometry.ground_table import GroundTable
from sfi_ros.geometry.layout import BLOCKED, INFERRED, OUT_OF_VIEW, SEEN, GroundLayout, LayoutMaker, lay_out
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.synthetic import SyntheticStreet

GRID = GroundGrid(0.0, 4.0, -1.0, 1.0, 1.0)


def layout(**cells):
    """A layout of eight cells, out of view but for some: number = (class, confidence, evidence, object, depth)."""
    arrays = np.zeros((5, *GRID.shape), np.uint8)
    arrays[0], arrays[2] = 255, OUT_OF_VIEW
    for name, values in cells.items():
        arrays.reshape(5, -1)[:, int(name[1:])] = values
    classes, confidence, evidence, objects, depth = arrays
    return GroundLayout(GRID, classes, confidence, evidence, objects, depth)


def cell(fused: GroundLayout, number: int) -> tuple[int, ...]:
    arrays = (fused.classes, fused.confidence, fused.evidence, fused.objects, fused.depth)
    return tuple(int(array.flat[number]) for array in arrays)


def test_one_camera_is_what_it_is():
    one = layout(c0=(0, 9, SEEN, 0, 0))
    assert fuse([one]) is one


def test_each_cell_comes_from_the_camera_that_knows_it_best():
    front = layout(
        c0=(0, 100, SEEN, 0, 0),
        c1=(0, 250, INFERRED, 0, 7),
        c2=(1, 90, SEEN, 0, 0),
        c3=(255, 0, BLOCKED, 0, 0),
        c4=(255, 0, BLOCKED, 0, 0),
        c6=(0, 200, SEEN, 0, 0),
    )
    rear = layout(
        c1=(1, 10, SEEN, 0, 0),
        c2=(0, 91, SEEN, 0, 0),
        c3=(1, 30, INFERRED, 0, 12),
        c5=(2, 50, SEEN, 0, 0),
        c6=(0, 10, INFERRED, 1, 0),
    )
    for fused in (fuse([front, rear]), fuse([rear, front])):
        assert cell(fused, 0) == (0, 100, SEEN, 0, 0)
        assert cell(fused, 1) == (1, 10, SEEN, 0, 0)
        assert cell(fused, 2) == (0, 91, SEEN, 0, 0)
        assert cell(fused, 3) == (1, 30, INFERRED, 0, 12)
        assert cell(fused, 4) == (255, 0, BLOCKED, 0, 0)
        assert cell(fused, 5) == (2, 50, SEEN, 0, 0)
        assert cell(fused, 6) == (0, 200, SEEN, 1, 0)  # an object that one camera sees is there
        assert cell(fused, 7) == (255, 0, OUT_OF_VIEW, 0, 0)
    assert cell(front, 1)[0] == 0  # the layouts of the cameras stay as they are


def test_two_grids_are_refused():
    other = GroundGrid(0.0, 4.0, -1.0, 1.0, 0.5)
    arrays = [np.zeros(other.shape, np.uint8) for _ in range(5)]
    with pytest.raises(ValueError, match="different grids"):
        fuse([layout(), GroundLayout(other, *arrays)])


@pytest.fixture(scope="module")
def street():
    """A street, one of its frames with objects, and the layout of its truth."""
    street = next(found for seed in range(50) if (found := SyntheticStreet(seed, 320, 160)).is_flat())
    frame = street.frame(20)
    table = LayoutMaker(GroundGrid()).table(street.calibration, street.pose(20), (320, 160))
    return street, frame, table, lay_out(table, frame.foreground, frame.background)


def test_points_are_where_the_street_really_is(street):
    """Of the points nearer than 20 m, nearly all lie on ground of their class."""
    street, frame, table, made = street
    points = GroundPoints.of(table)
    evidence = points.evidence(made, frame.foreground)
    x, y, z = points.known(evidence)
    known = np.isfinite(x) & (x < 20)
    assert known.sum() > 5000
    truth = street.ground_at(20, x[known].astype(float), y[known].astype(float)).classes
    right = truth == frame.background[known]
    road = frame.background[known] == 0
    assert right[road].mean() > 0.99
    assert right.mean() > 0.97
    assert (z[known] == 0).all()
    assert np.isnan(x[:40]).all()  # the sky
    np.testing.assert_array_equal(np.isnan(x), np.isnan(y))
    np.testing.assert_array_equal(np.isnan(x), np.isnan(z))


def test_evidence_of_points(street):
    _, frame, table, made = street
    points = GroundPoints.of(table)
    evidence = points.evidence(made, frame.foreground)
    x, _, _ = points.known(evidence)
    assert set(np.unique(evidence)) == {OUT_OF_VIEW, SEEN, INFERRED, BLOCKED}
    np.testing.assert_array_equal(np.isnan(x), (evidence == OUT_OF_VIEW) | (evidence == BLOCKED))
    assert (frame.foreground[evidence == INFERRED] == 1).all()
    assert (frame.foreground[evidence == SEEN] == 0).all()


def test_points_of_a_pixel_agree_with_the_projection(street):
    _, _, table, _ = street
    points = GroundPoints.of(table)
    camera: GroundCamera = table.camera
    rows, columns = np.nonzero(points.cells >= 0)
    pixels = camera.pixels(points.x[rows, columns].astype(float), points.y[rows, columns].astype(float))
    np.testing.assert_allclose(pixels, np.stack([columns, rows + points.rows.start], axis=1), atol=0.01)
    assert isinstance(table, GroundTable)


def test_a_camera_that_sees_no_ground_has_no_points(street):
    street, frame, _, _ = street
    up = CameraPose(1.5, pitch=-1.2)
    table = LayoutMaker(GRID).table(street.calibration, up, (320, 160))
    points = GroundPoints.of(table)
    evidence = points.evidence(lay_out(table, frame.foreground, frame.background), frame.foreground)
    assert (evidence == OUT_OF_VIEW).all()
    assert np.isnan(points.known(evidence)).all()


def test_the_own_vehicle_has_no_points(street):
    street, frame, _, _ = street
    bonnet = np.array([[0, 130], [319, 130], [319, 159], [0, 159]])
    table = LayoutMaker(GroundGrid(), bonnet).table(street.calibration, street.pose(20), (320, 160))
    points = GroundPoints.of(table)
    evidence = points.evidence(lay_out(table, frame.foreground, frame.background), frame.foreground)
    assert np.isnan(points.known(evidence)[0][135:]).all()
    assert np.isfinite(points.known(evidence)[0][110:128]).any()
