"""Where a camera sees its own vehicle: an image or a polygon, and what is neither is named."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sfi_ros.errors import OptionError
from sfi_ros.frames.own_vehicle import read_own_vehicle


def test_corners_and_images(tmp_path):
    assert read_own_vehicle("", "--own-vehicle") is None
    corners = read_own_vehicle("0,719 640,650.5 1279,719", "--own-vehicle")
    np.testing.assert_array_equal(corners, [[0, 719], [640, 650.5], [1279, 719]])
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), np.array([[0, 255], [0, 0]], np.uint8))
    np.testing.assert_array_equal(read_own_vehicle(str(path), "--own-vehicle") != 0, [[False, True], [False, False]])


def test_what_is_neither_is_named():
    with pytest.raises(OptionError, match="--own-vehicle has 2 corners"):
        read_own_vehicle("1,2 3,4", "--own-vehicle")
    with pytest.raises(OptionError, match=r"--own-vehicle .* is neither an image \(.*No such file.*\) nor corners"):
        read_own_vehicle("/no/such.png", "--own-vehicle")
