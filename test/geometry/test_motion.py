"""Poses of a vehicle and tracks of them."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from sfi_ros.errors import OptionError
from sfi_ros.geometry.motion import PlanarPose, Track
from sfi_ros.synthetic import SyntheticStreet

SECOND = 10**9


def test_points_go_there_and_back() -> None:
    pose = PlanarPose(3.0, -2.0, math.pi / 2)
    x, y = pose.points(np.array([1.0]), np.array([0.0]))
    assert (x[0], y[0]) == pytest.approx((3.0, -1.0)), "ahead of a vehicle that looks left"
    assert np.allclose(pose.local_points(x, y), [[1.0], [0.0]])


def test_a_step_leads_from_one_pose_to_the_other() -> None:
    here, there = PlanarPose(1.0, 2.0, 0.3), PlanarPose(-4.0, 7.0, 2.0)
    arrived = here.then(there.seen_from(here))
    assert (arrived.x, arrived.y, arrived.yaw) == pytest.approx((there.x, there.y, there.yaw))
    assert here.distance(there) == pytest.approx(math.hypot(5, 5))


def test_odometry_gives_yaw_whatever_the_pitch() -> None:
    yaw, pitch = 0.7, 0.1
    quaternion = (
        -math.sin(yaw / 2) * math.sin(pitch / 2),
        math.cos(yaw / 2) * math.sin(pitch / 2),
        math.sin(yaw / 2) * math.cos(pitch / 2),
        math.cos(yaw / 2) * math.cos(pitch / 2),
    )
    assert PlanarPose.from_odometry((1.0, 2.0, 3.0), quaternion).yaw == pytest.approx(yaw)
    with pytest.raises(OptionError, match="zeros"):
        PlanarPose.from_odometry((0, 0, 0), (0, 0, 0, 0))
    with pytest.raises(OptionError, match="finite"):
        PlanarPose.from_odometry((math.nan, 0, 0), (0, 0, 0, 1))


def test_a_track_is_interpolated_over_short_gaps_only() -> None:
    times = [0, SECOND // 5, 3 * SECOND]
    track = Track(times, [PlanarPose(0, 0, 3.0), PlanarPose(1.0, 2.0, -3.0), PlanarPose(9.0, 9.0, 0.0)])
    halfway = track.at(SECOND // 10)
    assert halfway is not None
    assert (halfway.x, halfway.y) == pytest.approx((0.5, 1.0))
    assert math.cos(halfway.yaw) == pytest.approx(-1.0, abs=1e-6), "the short way round"
    assert track.at(SECOND) is None, "in a gap of three seconds"
    assert track.at(-1) is None and track.at(4 * SECOND) is None
    assert track.at(3 * SECOND) == PlanarPose(9.0, 9.0, track.poses()[-1].yaw)


def test_noise_has_the_size_that_is_asked_for() -> None:
    track = Track(range(101), [PlanarPose(float(metre)) for metre in range(101)])
    ends = [track.noisy(0.01, math.radians(0.1), seed).poses()[-1] for seed in range(200)]
    # Half of the variance is constant and grows with the way, half wanders and grows with its root.
    turn = math.radians(0.1) * math.sqrt(0.5 * 100**2 + 0.5 * 100)
    assert np.std([end.yaw for end in ends]) == pytest.approx(turn, rel=0.2)
    assert track.noisy(0.01, 0.1, 7).poses() == track.noisy(0.01, 0.1, 7).poses()
    assert [pose.x for pose in track.noisy(0, 0).poses()] == pytest.approx([pose.x for pose in track.poses()])


@pytest.mark.parametrize("seed", [0, 3])
def test_the_synthetic_vehicle_moves_as_its_camera_does(seed: int) -> None:
    street = SyntheticStreet(seed, 64, 32)
    travelled = street._drive.travelled
    track = [street.vehicle(index) for index in range(0, 301, 10)]
    driven = sum(after.distance(before) for before, after in pairwise(track))
    assert driven == pytest.approx(travelled(20.0) - travelled(0.0), rel=0.01)
    assert abs(track[0].x) < 1e-9 and track[0].yaw == 0.0


def test_what_stands_on_a_bent_street_stays_where_it_is() -> None:
    street = SyntheticStreet(3, 64, 32)  # bends
    here = street._drive.camera(0.0)
    for seconds in (0.5, 1.0, 2.0):
        there = street._drive.camera(seconds)
        points = []
        for camera, pose in ((here, street.vehicle(0)), (there, street.vehicle(round(seconds * street.rate)))):
            ahead = (here.s + 15.0) - camera.s
            points.append(pose.points(np.array(ahead), np.array(camera.d - 0.5 * camera.bend * ahead**2)))
        assert np.allclose(points[0], points[1], atol=0.15)
