"""The layout of a frame: a world that is known from above, seen by a camera, and laid out again."""

from __future__ import annotations

import numpy as np
import pytest
from lenses import LENSES

from benchmarks.layout import differences, ray_by_ray
from sfi_ros.errors import ImageError, OptionError
from sfi_ros.geometry.calibration import Calibration, camera_matrix
from sfi_ros.geometry.ground import GroundCamera, GroundGrid
from sfi_ros.geometry.ground_table import GroundTable, own_vehicle_mask
from sfi_ros.geometry.layout import BLOCKED, INFERRED, OUT_OF_VIEW, SEEN, GroundLayout, LayoutMaker, lay_out
from sfi_ros.geometry.pose import CameraPose

ROAD, SIDEWALK, OTHER, UNKNOWN = 0, 1, 2, 255
CALIBRATION = Calibration.pinhole(960, 540, camera_matrix(960, 540, 75))
POSE = CameraPose(1.5, pitch=0.03, roll=0.01, yaw=-0.02, x=1.7, y=0.1)
GRID = GroundGrid()
CAMERA = GroundCamera.of(CALIBRATION, POSE)
TABLE = GroundTable(CAMERA, GRID, kerb_height=0.0)


def ground_of_all_pixels(camera: GroundCamera) -> np.ndarray:
    """Where each pixel sees the ground: (H, W, 2), NaN at the horizon and above."""
    width, height = camera.model.size
    return camera.ground(np.indices((height, width))[::-1].reshape(2, -1).T).reshape(height, width, 2)


def street(camera: GroundCamera, wall: float = 25.0) -> np.ndarray:
    """Background classes of a street along x: road to 3 m aside, sidewalk to 5 m, and a wall across."""
    ground = ground_of_all_pixels(camera)
    x, y = ground[..., 0], np.abs(ground[..., 1])
    classes = np.where(y < 3, ROAD, np.where(y < 5, SIDEWALK, OTHER)).astype(np.uint8)
    classes[np.isnan(x) | (x > wall)] = OTHER
    return classes


def car(camera: GroundCamera, x: float = 10.0, left: float = 1.0, right: float = -1.0) -> np.ndarray:
    """Mask of an object whose foot is the line from `left` to `right` at `x`, and that hides all behind it."""
    ground = ground_of_all_pixels(camera)
    foot = camera.pixels(np.array([x, x]), np.array([left, right]))
    columns = np.arange(ground.shape[1])
    behind = (ground[..., 0] > x) & (columns >= foot[0, 0]) & (columns <= foot[1, 0])
    return behind.astype(np.uint8)


def at(layout: GroundLayout, name: str, x: float, y: float) -> int:
    cell = layout.grid.cells(np.array([x]), np.array([y]))[0]
    return int(getattr(layout, name).flat[cell])


@pytest.fixture(scope="module")
def layout() -> GroundLayout:
    return lay_out(TABLE, car(CAMERA), street(CAMERA), np.full((540, 960), 230, np.uint8))


def test_classes_lie_where_they_are(layout: GroundLayout) -> None:
    assert at(layout, "classes", 9.0, 0.0) == ROAD and at(layout, "evidence", 9.0, 0.0) == SEEN
    assert at(layout, "classes", 12.0, 4.0) == SIDEWALK and at(layout, "evidence", 12.0, 4.0) == SEEN
    x, y = GRID.centres()
    known = (layout.evidence == SEEN) & (x < 24) & (np.abs(y) < 4.9)
    truth = np.where(np.abs(y) < 3, ROAD, SIDEWALK)
    assert (layout.classes == truth)[known].mean() > 0.995
    assert known.sum() > 10_000


def test_the_ground_behind_an_object_is_inferred(layout: GroundLayout) -> None:
    assert at(layout, "classes", 15.0, 0.0) == ROAD and at(layout, "evidence", 15.0, 0.0) == INFERRED
    near, far = at(layout, "confidence", 11.0, 0.0), at(layout, "confidence", 20.0, 0.0)
    assert near > far > 0
    assert at(layout, "depth", 9.0, 0.0) == 0 and at(layout, "depth", 15.0, 0.0) == pytest.approx(50, abs=3)


def test_the_ground_ends_at_a_wall(layout: GroundLayout) -> None:
    assert at(layout, "classes", 25.1, 2.0) == OTHER, "the wall itself"
    for name, value in (("classes", UNKNOWN), ("evidence", BLOCKED), ("confidence", 0)):
        assert at(layout, name, 28.0, 2.0) == value
    assert at(layout, "evidence", 28.0, 0.0) == BLOCKED, "also where an object hides the wall"


def test_what_the_camera_does_not_see_is_unknown(layout: GroundLayout) -> None:
    for name, value in (("classes", UNKNOWN), ("evidence", OUT_OF_VIEW), ("confidence", 0), ("objects", 0)):
        assert at(layout, name, 1.0, 10.0) == value


def test_an_object_stands_on_its_foot(layout: GroundLayout) -> None:
    x, y = GRID.centres()
    standing = layout.objects == 1
    assert np.abs(x[standing] - 10).max() < 0.35 and np.abs(y[standing]).max() < 1.15
    assert all(at(layout, "objects", 10.1, aside) or at(layout, "objects", 10.2, aside) for aside in (-0.8, 0.0, 0.8))


def test_what_rises_behind_a_wall_shows_no_foot() -> None:
    wall = street(CAMERA, wall=8.0)
    assert lay_out(TABLE, car(CAMERA), wall).objects.sum() == 0


def test_one_sample_of_other_ends_nothing() -> None:
    background = street(CAMERA)
    column, row = CAMERA.pixels(np.array([6.0]), np.array([0.0]))[0].round().astype(int)
    background[row : row + 2, column - 40 : column + 40] = OTHER
    assert at(lay_out(TABLE, car(CAMERA), background), "classes", 9.0, 0.0) == ROAD


def test_unlabeled_ground_is_unknown_and_ends_nothing() -> None:
    background = street(CAMERA)
    column, row = CAMERA.pixels(np.array([6.0]), np.array([0.0]))[0].round().astype(int)
    background[row - 5 : row + 5, column - 40 : column + 40] = UNKNOWN
    layout = lay_out(TABLE, car(CAMERA), background)
    assert at(layout, "classes", 6.0, 0.0) == UNKNOWN and at(layout, "confidence", 6.0, 0.0) == 0
    assert at(layout, "classes", 9.0, 0.0) == ROAD


def test_confidence_follows_that_of_the_network_and_the_distance() -> None:
    background, mask = street(CAMERA, wall=60), np.zeros((540, 960), np.uint8)
    sure, unsure = (lay_out(TABLE, mask, background, np.full(mask.shape, c, np.uint8)) for c in (250, 180))
    assert at(sure, "confidence", 10, 0) > at(unsure, "confidence", 10, 0)
    assert at(unsure, "confidence", 5, 0) > at(unsure, "confidence", 38, 0)


def test_the_own_bonnet_is_left_out() -> None:
    polygon = np.array([[200, 539], [300, 430], [700, 430], [800, 539]])
    mask = own_vehicle_mask(polygon, (960, 540))
    table = GroundTable(CAMERA, GRID, mask)
    layout = lay_out(table, mask, street(CAMERA))  # a network takes the bonnet for a vehicle
    hidden = lay_out(TABLE, mask, street(CAMERA))
    assert at(hidden, "evidence", 5.5, 0.0) == INFERRED and at(layout, "evidence", 5.5, 0.0) == OUT_OF_VIEW
    assert hidden.objects.sum() > 0 and layout.objects.sum() == 0
    assert at(layout, "classes", 12.0, 0.0) == ROAD
    assert np.array_equal(own_vehicle_mask(mask, (960, 540)), mask)
    half = own_vehicle_mask(polygon, (960, 540), (480, 270))
    assert half.shape == (270, 480) and abs(half.mean() - mask.mean()) < 0.005
    with pytest.raises(OptionError, match="own vehicle"):
        GroundTable(CAMERA, GRID, half)
    with pytest.raises(OptionError, match="polygon"):
        own_vehicle_mask(np.zeros(3), (960, 540))


@pytest.mark.parametrize("lens", LENSES)
def test_equals_ray_by_ray(lens: str) -> None:
    camera = GroundCamera.of(LENSES[lens], CameraPose(1.3, 0.1, 0.02, 0.3, 0.5, -0.4))
    grid = GroundGrid(-2, 25, -12, 12, 0.15)
    table = GroundTable(camera, grid)
    rng = np.random.default_rng(3)
    confidence = rng.integers(60, 256, (480, 640)).astype(np.uint8)
    masks = car(camera, 8.0, 0.5, -2.0), street(camera, wall=18.0), confidence
    layout, slow = lay_out(table, *masks), ray_by_ray(table, *masks)
    assert differences(layout, slow) == 0
    assert np.abs(layout.depth.astype(int) - slow.depth).max() <= 5, "a sample of the ray more or less"
    noise = rng.integers(0, 2, (480, 640)).astype(np.uint8), rng.integers(0, 3, (480, 640)).astype(np.uint8), confidence
    assert differences(lay_out(table, *noise), ray_by_ray(table, *noise)) == 0


def test_a_rear_camera_and_one_that_looks_straight_down() -> None:
    grid = GroundGrid(-20, 20, -20, 20, 0.2)
    rear = LayoutMaker(grid)(CALIBRATION, CameraPose(1.0, 0.1, yaw=np.pi, x=-1.0), *empty_scene())
    assert at(rear, "evidence", -10, 0) == SEEN and at(rear, "evidence", 10, 0) == OUT_OF_VIEW
    down = LayoutMaker(grid)(CALIBRATION, CameraPose(3.0, np.pi / 2), *empty_scene())
    assert at(down, "evidence", 0.1, 0.1) == SEEN and at(down, "evidence", -1.0, 1.0) == SEEN
    assert at(down, "classes", 0.1, 0.1) == ROAD


def empty_scene() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((540, 960), np.uint8), np.zeros((540, 960), np.uint8)


def test_a_camera_that_sees_no_ground_of_the_grid_gives_an_unknown_one() -> None:
    layout = LayoutMaker(GRID)(CALIBRATION, CameraPose(1.5, pitch=-1.2), *empty_scene())
    assert (layout.evidence == OUT_OF_VIEW).all() and (layout.classes == UNKNOWN).all() and layout.objects.sum() == 0


def test_tables_are_kept_while_the_pose_trembles() -> None:
    maker = LayoutMaker(GRID)
    table = maker.table(CALIBRATION, POSE, (960, 540))
    assert maker.table(CALIBRATION, CameraPose(1.5005, 0.0301, 0.01, -0.02, 1.7, 0.1), (960, 540)) is table
    assert maker.table(CALIBRATION, POSE, (480, 270)) is not table
    assert maker.table(CALIBRATION, CameraPose(1.5, 0.05, x=1.7), (960, 540)) is not table


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(ImageError, match=r"background.*\(540, 960\)"):
        lay_out(TABLE, np.zeros((540, 960), np.uint8), np.zeros((54, 96), np.uint8))


def test_a_sidewalk_is_looked_for_on_its_kerb() -> None:
    kerb, pose = 0.12, CameraPose(1.4)
    camera = GroundCamera.of(CALIBRATION, pose)
    ground = ground_of_all_pixels(camera)
    upper = ground_of_all_pixels(GroundCamera.of(CALIBRATION, CameraPose(1.4 - kerb)))
    classes = np.where(np.abs(ground[..., 1]) < 3, ROAD, np.where(np.abs(upper[..., 1]) < 5, SIDEWALK, OTHER))
    classes = classes.astype(np.uint8)
    mask = np.zeros_like(classes)
    raised, plane = (lay_out(GroundTable(camera, GRID, kerb_height=h), mask, classes) for h in (kerb, 0.0))
    x, y = GRID.centres()
    truth = np.where(np.abs(y) < 3, ROAD, SIDEWALK)
    near = (np.abs(y) < 5) & (x < 20) & (raised.evidence == SEEN)
    assert (raised.classes == truth)[near].mean() > 0.99
    edge = (np.abs(y) > 5.1) & (np.abs(y) < 5.3) & (plane.evidence == SEEN)
    assert (plane.classes[edge] == SIDEWALK).mean() > 0.9 and (raised.classes[edge] == SIDEWALK).mean() < 0.1
    with pytest.raises(OptionError, match="kerb"):
        GroundTable(camera, GRID, kerb_height=1.5)
