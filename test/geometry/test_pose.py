"""Where a camera is over the ground, and in which directions its axes look."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfi_ros.errors import OptionError
from sfi_ros.geometry.pose import CameraPose

RIGHT, DOWN, FORWARD = range(3)


def test_axes_are_those_of_rep_103() -> None:
    level = CameraPose(1.5).rotation
    assert np.allclose(level[:, FORWARD], [1, 0, 0])
    assert np.allclose(level[:, RIGHT], [0, -1, 0])
    assert np.allclose(level[:, DOWN], [0, 0, -1])
    assert CameraPose(1.5, pitch=0.1).rotation[2, FORWARD] < -0.09, "positive pitch looks down"
    assert CameraPose(1.5, yaw=0.1).rotation[1, FORWARD] > 0.09, "positive yaw looks left"
    assert CameraPose(1.5, roll=0.1).rotation[2, RIGHT] < -0.09, "positive roll lowers the right side"


angle = st.floats(-1.4, 1.4)


@given(pitch=angle, roll=angle, yaw=st.floats(-3, 3))
def test_a_rotation_is_read_back(pitch: float, roll: float, yaw: float) -> None:
    pose = CameraPose(1.2, pitch, roll, yaw, 1.7, 0.1)
    again = CameraPose.from_rotation(pose.rotation, pose.position)
    assert np.allclose(again.rotation, pose.rotation) and np.allclose(again.position, pose.position)
    assert math.isclose(again.pitch, pitch, abs_tol=1e-7) and math.isclose(again.yaw, yaw, abs_tol=1e-7)


def test_a_transform_is_understood() -> None:
    level = CameraPose.from_transform((1.7, 0.1, 1.22), (-0.5, 0.5, -0.5, 0.5))  # the usual one of an optical frame
    assert np.allclose(level.rotation, CameraPose(1.22, x=1.7, y=0.1).rotation)
    assert level.height == 1.22
    turned = CameraPose.from_transform((0, 0, 1), (-1, 1, -1, 1))  # not of length 1
    assert np.allclose(turned.rotation, level.rotation)


def test_rounded_poses_are_equal_where_they_tremble() -> None:
    assert CameraPose(1.5004, 0.0301).rounded() == CameraPose(1.5011, 0.0299).rounded()
    assert CameraPose(1.5, 0.03).rounded() != CameraPose(1.5, 0.032).rounded()


@pytest.mark.parametrize(
    ("wrong", "says"), [({"height": 0.0}, "positive"), ({"height": 1.5, "pitch": math.nan}, "pitch")]
)
def test_impossible_poses_are_refused(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        CameraPose(**wrong)


def test_a_transform_without_rotation_is_refused() -> None:
    with pytest.raises(OptionError, match="zeros"):
        CameraPose.from_transform((0, 0, 1), (0, 0, 0, 0))


@given(st.floats(-1.5, 1.5), st.floats(-3.1, 3.1), st.floats(-3.1, 3.1))
def test_a_quaternion_is_read_back(pitch: float, roll: float, yaw: float) -> None:
    pose = CameraPose(1.5, pitch, roll, yaw, 0.3, -0.2)
    again = CameraPose.from_transform((0.3, -0.2, 1.5), pose.quaternion.tolist())
    np.testing.assert_allclose(again.rotation, pose.rotation, atol=1e-6)


def test_the_quaternion_of_half_a_turn() -> None:
    """That of a camera that looks to the right."""
    pose = CameraPose(1.0, yaw=-math.pi / 2)
    assert pose.quaternion[3] == pytest.approx(0.0, abs=1e-7)
    again = CameraPose.from_transform((0, 0, 1), pose.quaternion.tolist())
    np.testing.assert_allclose(again.rotation, pose.rotation, atol=1e-6)
