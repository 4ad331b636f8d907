"""The ground over time: what frames add up to, and how often what was inferred was seen later."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sfi_ros.errors import OptionError
from sfi_ros.geometry.agreement import Agreement
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.ground_map import GroundMap
from sfi_ros.geometry.layout import INFERRED, OUT_OF_VIEW, SEEN, GroundLayout
from sfi_ros.geometry.motion import PlanarPose

ROAD, SIDEWALK, OTHER, UNKNOWN = 0, 1, 2, 255
GRID = GroundGrid(0, 20, -5, 5, 0.5)
STAND = PlanarPose()


def frame(
    classes: np.ndarray | int, evidence: np.ndarray | int = SEEN, confidence: int = 230, depth: int = 0
) -> GroundLayout:
    """Return a layout whose cells are all alike where numbers are given."""

    def full(value: np.ndarray | int) -> np.ndarray:
        return np.broadcast_to(np.asarray(value, np.uint8), GRID.shape).copy()

    nothing = np.zeros(GRID.shape, np.uint8)
    return GroundLayout(GRID, full(classes), full(confidence), full(evidence), nothing, full(depth))


def at(ground: GroundMap, name: str, x: float, y: float) -> int:
    layout = ground.layout()
    return int(getattr(layout, name).flat[layout.grid.cells(np.array([x]), np.array([y]))[0]])


@pytest.fixture
def ground() -> GroundMap:
    return GroundMap(0.5, 40.0)


@pytest.mark.parametrize("pose", [STAND, PlanarPose(3.3, -200.7, 2.1), PlanarPose(1e6, -2e6, -0.4)])
def test_every_cell_is_where_the_vehicle_saw_it(ground: GroundMap, pose: PlanarPose) -> None:
    rng = np.random.default_rng(0)
    classes = rng.choice([ROAD, SIDEWALK, OTHER, UNKNOWN], GRID.shape)
    layout = frame(classes, np.where(classes == UNKNOWN, OUT_OF_VIEW, rng.choice([SEEN, INFERRED], GRID.shape)))
    ground.add(layout, pose)
    fused = ground.layout()
    x, y = fused.grid.centres()
    cells = GRID.cells(*pose.local_points(x, y))
    for name, nothing in (("classes", UNKNOWN), ("evidence", OUT_OF_VIEW)):
        expected = np.where(cells >= 0, getattr(layout, name).flat[cells], nothing)
        assert np.array_equal(getattr(fused, name), expected)
    assert (fused.classes != UNKNOWN).sum() > 500


def test_seen_outranks_inferred_and_is_counted_as_a_test_of_it(ground: GroundMap) -> None:
    for _ in range(5):
        ground.add(frame(OTHER, INFERRED, depth=30), STAND)
    assert at(ground, "classes", 5, 0) == OTHER and at(ground, "depth", 5, 0) == 30
    ground.add(frame(ROAD, SEEN, 250), PlanarPose(1.0))
    assert at(ground, "classes", 5, 0) == ROAD and at(ground, "evidence", 5, 0) == SEEN
    counted = ground.agreement.summary()
    assert counted["agreement"] == 0.0
    assert counted["by_class"]["road"]["inferred_as"] == {"road": 0, "sidewalk": 0, "other": counted["cells"]}
    assert counted["by_depth"]["2 to 4 m"]["cells"] == counted["cells"] > 500
    ground.add(frame(ROAD, SEEN, 250), PlanarPose(1.0))
    assert ground.agreement.cells == counted["cells"], "each cell is counted once"


def test_inferred_does_not_touch_what_was_seen(ground: GroundMap) -> None:
    ground.add(frame(SIDEWALK), STAND)
    before = ground.layout()
    for step in range(20):
        ground.add(frame(OTHER, INFERRED), PlanarPose(0, 0, 1e-3 * step))
    assert at(ground, "classes", 5, 0) == SIDEWALK and at(ground, "evidence", 5, 0) == SEEN
    assert at(ground, "confidence", 5, 0) == before.confidence.max()
    assert ground.agreement.cells == 0


def test_doubtful_sightings_are_not_judged_until_they_add_up(ground: GroundMap) -> None:
    ground.add(frame(ROAD, INFERRED, 200), STAND)
    ground.add(frame(ROAD, SEEN, 128), STAND)
    assert ground.agreement.cells == 0
    for _ in range(100):
        ground.add(frame(ROAD, SEEN, 180), STAND)
    assert ground.agreement.cells > 500 and ground.agreement.share == 1.0
    calibration = ground.agreement.summary()["calibration"]["bins"]
    entry = next(one for one in calibration if one["cells"])
    assert entry["confidence"] == pytest.approx(200 / 255, abs=0.01), "of what was inferred, not of what was seen"


def test_one_wrong_frame_changes_nothing_and_many_do(ground: GroundMap) -> None:
    for metre in range(50):
        ground.add(frame(ROAD), PlanarPose(0.1 * metre))
    ground.add(frame(OTHER), PlanarPose(6.0))
    assert at(ground, "classes", 15, 0) == ROAD
    for metre in range(4):
        ground.add(frame(OTHER), PlanarPose(7.0 + metre))
    assert at(ground, "classes", 15, 0) == OTHER, "the street has changed"


def test_a_vehicle_that_stands_does_not_become_sure_of_an_error() -> None:
    standing, driving = GroundMap(0.5, 40.0), GroundMap(0.5, 40.0)
    for number in range(5):
        standing.add(frame(ROAD, confidence=150), STAND)
        driving.add(frame(ROAD, confidence=150), PlanarPose(0.5 * number))
    assert at(standing, "confidence", 10, 0) < at(driving, "confidence", 10, 0)


def test_what_moves_leaves_no_trail(ground: GroundMap) -> None:
    for number in range(12):
        evidence, objects = np.full(GRID.shape, SEEN), np.zeros(GRID.shape, np.uint8)
        evidence[8:12, 2 * number : 2 * number + 8] = INFERRED
        objects[8:12, 2 * number] = 1
        layout = frame(ROAD, evidence)
        layout.objects[:] = objects
        ground.add(layout, STAND)
    fused = ground.layout()
    assert set(np.unique(fused.classes)) == {ROAD, UNKNOWN}
    x, _ = fused.grid.centres()
    assert fused.objects.sum() == 4 and np.ptp(x[fused.objects != 0]) == 0, "only where it is now"
    assert (fused.evidence == INFERRED).sum() == 0, "all of it was seen before or after"


def test_the_window_moves_and_hands_over_what_it_leaves() -> None:
    kept: list[GroundLayout] = []
    ground = GroundMap(0.5, 40.0, leaving=kept.append)
    memory = [value.nbytes for value in vars(ground).values() if isinstance(value, np.ndarray)]
    for metre in range(100):
        ground.add(frame(ROAD if metre < 50 else SIDEWALK), PlanarPose(float(metre)))
    ground.finish()
    assert [value.nbytes for value in vars(ground).values() if isinstance(value, np.ndarray)][:-1] == memory[:-1]
    assert 2 < len(kept) < 20
    ends = [layout.grid.x_max for layout in kept]
    assert ends == sorted(ends) and ends[-1] > 119
    assert all(np.isclose(layout.grid.x_min / 0.5 % 1, 0) for layout in kept), "cells stay where they are"
    assert kept[0].classes[40:60].min() == ROAD


def test_a_layout_larger_than_the_window_is_refused() -> None:
    with pytest.raises(OptionError, match="larger"):
        GroundMap(0.5, 20.0).add(frame(ROAD), PlanarPose(0, 0, math.pi / 4))
    with pytest.raises(OptionError):
        GroundMap(0.0, 20.0)


def test_agreement_by_class_depth_and_confidence() -> None:
    agreement = Agreement()
    assert agreement.share is None and agreement.summary()["calibration"]["expected_calibration_error"] is None
    for _ in range(2):
        agreement.add(
            np.array([ROAD, ROAD, OTHER, OTHER]),
            np.array([ROAD, SIDEWALK, OTHER, OTHER]),
            np.array([0.1, 3.0, 3.0, 25.5]),
            np.array([1.0, 0.55, 0.55, 0.92]),
        )
    summary = agreement.summary()
    assert (summary["cells"], summary["agreement"]) == (8, 0.75)
    assert summary["by_class"]["sidewalk"] == {
        "cells": 2,
        "agreement": 0.0,
        "inferred_as": {"road": 2, "sidewalk": 0, "other": 0},
    }
    assert summary["by_class"]["road"]["agreement"] == summary["by_class"]["other"]["agreement"] == 1.0
    assert summary["by_depth"]["2 to 4 m"] == {"cells": 4, "agreement": 0.5}
    assert summary["by_depth"]["8 and more m"]["cells"] == 2
    doubtful = summary["calibration"]["bins"][1]
    assert doubtful == {"bin": "0.5 to 0.6", "cells": 4, "agreement": 0.5, "confidence": 0.55}
