"""Layouts as the numbers that planners read."""

from __future__ import annotations

import numpy as np
import pytest

from sfi_ros.errors import OptionError
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.layout import BLOCKED, INFERRED, OUT_OF_VIEW, SEEN, GroundLayout
from sfi_ros.geometry.occupancy import Costs, occupied_now

LAYOUT = GroundLayout(
    GroundGrid(0, 4, 0, 2, 1.0),
    classes=np.array([[0, 1, 2, 255], [0, 1, 2, 255]], np.uint8),
    confidence=np.full((2, 4), 200, np.uint8),
    evidence=np.array([[SEEN, SEEN, SEEN, BLOCKED], [INFERRED, INFERRED, INFERRED, OUT_OF_VIEW]], np.uint8),
    objects=np.array([[0, 0, 0, 0], [1, 0, 0, 0]], np.uint8),
    depth=np.zeros((2, 4), np.uint8),
)


def test_costs_by_class_and_evidence() -> None:
    assert Costs().of(LAYOUT).tolist() == [[0, 50, 100, -1], [20, 70, 100, -1]]
    assert Costs().of(LAYOUT).dtype == np.int8
    assert Costs(5, -1, 90, 30).of(LAYOUT).tolist() == [[5, -1, 90, -1], [35, -1, 99, -1]]
    assert Costs(inferred=-1).of(LAYOUT).tolist() == [[0, 50, 100, -1], [-1, -1, -1, -1]]


@pytest.mark.parametrize("wrong", [{"road": 101}, {"other": -2}, {"inferred": 0.5}])
def test_costs_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        Costs(**wrong)


def test_what_is_occupied_now() -> None:
    assert occupied_now(LAYOUT).tolist() == [[0, 0, 0, -1], [100, -1, -1, -1]]
