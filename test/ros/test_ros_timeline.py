"""When frames are played: with a bag's own gaps, or at a rate."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed (pip install sfi_ros[ros])")
pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

from ros_bags import START, STORE, write_bag
from rosbags.rosbag2 import Writer

from sfi_ros.frames.bags import BagSource
from sfi_ros.frames.sources import Frame, Unreadable
from sfi_ros.ros.timeline import rounds, steps

MILLISECOND = 10**6
TIMES = [START, START + 100 * MILLISECOND, START + 2100 * MILLISECOND, START + 2100 * MILLISECOND]
PICTURES = [np.full((8, 12, 3), 10 * number, np.uint8) for number in range(4)]


@pytest.fixture
def bag(tmp_path):
    return BagSource(write_bag(tmp_path / "bag", PICTURES, times=TIMES, stamps=[0, 5, -5_000_000_000, 7]))


def test_a_bag_keeps_its_gaps_and_headers(bag):
    found = list(steps(bag))
    assert [step.gap for step in found[1:]] == pytest.approx([0.1, 2.0, 0.0])
    assert [step.recorded_at for step in found] == TIMES
    assert [step.header.stamp.sec * 10**9 + step.header.stamp.nanosec for step in found] == [0, 5, -5_000_000_000, 7]
    assert {step.header.frame_id for step in found} == {"front"}
    for step, picture in zip(found, PICTURES, strict=True):
        np.testing.assert_array_equal(step.frame.image, picture)


def test_a_rate_overrules_them(bag):
    found = list(steps(bag, rate=4.0))
    assert [step.gap for step in found] == [0.25] * 4
    assert [step.recorded_at for step in found] == TIMES


def test_between_two_rounds_lies_the_mean_gap(bag):
    found = list(islice(rounds(bag), 6))
    assert [step.gap for step in found[1:]] == pytest.approx([0.1, 2.0, 0.0, 0.7, 0.1])
    assert [step.recorded_at for step in found[3:6]] == [TIMES[3], TIMES[0], TIMES[1]]


def test_what_cannot_be_decoded_keeps_its_place_in_time(tmp_path):
    broken = np.zeros((1, 7, 1), np.uint8)
    source = BagSource(write_bag(tmp_path / "bag", [PICTURES[0], broken, PICTURES[2]], times=TIMES[:3]))
    found = list(steps(source))
    assert isinstance(found[1].frame, Unreadable)
    assert [step.gap for step in found[1:]] == pytest.approx([0.1, 2.0])


def test_a_source_without_times_is_played_at_its_rate():
    frames = [Frame("a", PICTURES[0]), Unreadable("b", "because"), Frame("c", PICTURES[2])]

    class Source:
        rate = 5.0
        length = 3

        def __iter__(self):
            return iter(frames)

    found = list(steps(Source()))
    assert [(step.gap, step.frame, step.header) for step in found] == [(0.2, frame, None) for frame in frames]
    assert [step.gap for step in islice(rounds(Source(), rate=10.0), 7)] == [0.1] * 7


def test_rounds_end_where_nothing_can_be_read():
    class Source:
        rate, length = 5.0, 1

        def __iter__(self):
            return iter([Unreadable("a", "because")])

    assert len(list(rounds(Source()))) == 1


def test_significant_bits_of_a_bag(tmp_path):
    """Images of a 12-bit camera in a bag."""
    kind, types = "sensor_msgs/msg/Image", STORE.types
    header = types["std_msgs/msg/Header"](stamp=types["builtin_interfaces/msg/Time"](sec=1, nanosec=0), frame_id="")
    image = types[kind](header, 1, 2, "mono16", 0, 4, np.array([4095, 2048], "<u2").view(np.uint8))
    with Writer(tmp_path / "deep", version=9) as writer:
        writer.write(writer.add_connection("/image", kind, typestore=STORE), START, STORE.serialize_cdr(image, kind))
    bag = tmp_path / "deep"
    (dark,), (right,) = steps(BagSource(bag)), steps(BagSource(bag, significant_bits=12))
    assert dark.frame.image[0, :, 0].tolist() == [15, 8]
    assert right.frame.image[0, :, 0].tolist() == [255, 128]
