"""The node that maps the ground: layouts and odometry of a drive in, a map and its agreement out."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Quaternion
from nav_msgs.msg import OccupancyGrid, Odometry
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_harness import Process, wait_for
from sensor_msgs.msg import PointCloud2

from sfi_ros.errors import OptionError
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.ground_map import GroundMap
from sfi_ros.geometry.layout import GroundLayout, LayoutMaker
from sfi_ros.geometry.occupancy import Costs
from sfi_ros.ros.ground_messages import CELL, cells_message, layout_of, points_message
from sfi_ros.synthetic import SyntheticStreet

pytest_plugins = ["ros_harness"]
pytestmark = pytest.mark.timeout(1200)
GRID = GroundGrid(0.0, 25.0, -10.0, 10.0, 0.2)
STREET = SyntheticStreet(4, 192, 96)
FRAMES = range(0, 30, 6)
MAP = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module")
def layouts() -> list[GroundLayout]:
    """The true layouts of a drive."""
    make, found = LayoutMaker(GRID), []
    for number in FRAMES:
        frame = STREET.frame(number)
        certain = np.full(frame.foreground.shape, 250, np.uint8)
        found.append(make(STREET.calibration, STREET.pose(number), frame.foreground, frame.background, certain))
    return found


def stamp(number: int) -> Time:
    return Time(sec=1_700_000_000 + number // 15, nanosec=number % 15 * 66_666_666)


def odometry(number: int) -> Odometry:
    pose, message = STREET.vehicle(number), Odometry(child_frame_id="base_footprint")
    message.header.stamp, message.header.frame_id = stamp(number), "odom"
    message.pose.pose.position = Point(x=pose.x, y=pose.y)
    message.pose.pose.orientation = Quaternion(z=math.sin(pose.yaw / 2), w=math.cos(pose.yaw / 2))
    return message


def test_a_layout_survives_as_a_message(layouts) -> None:
    back = layout_of(cells_message(layouts[0], stamp(0)))
    assert back.grid == GRID
    for name in ("classes", "confidence", "evidence", "objects", "depth"):
        np.testing.assert_array_equal(getattr(back, name), getattr(layouts[0], name))
    assert back.depth.max() > 0 and back.objects.max() == 1
    with pytest.raises(OptionError, match="no layout"):
        layout_of(PointCloud2(width=3, height=3))
    flat = np.zeros((3, 3), CELL)
    with pytest.raises(OptionError, match="no size"):
        layout_of(points_message(flat, "base_footprint", stamp(0)))


def test_a_drive_becomes_a_map_and_is_judged(probe, layouts, tmp_path) -> None:
    expected = GroundMap(GRID.resolution, 80.0)
    for number, layout in zip(FRAMES, layouts, strict=True):
        expected.add(layout, STREET.vehicle(number))
    cells = probe.node.create_publisher(PointCloud2, "/inpaint/layout_cells", 10)
    motion = probe.node.create_publisher(Odometry, "/odom", 100)
    with (
        Process("map_node", "-p", "rate:=5.0", log=tmp_path / "log") as node,
        probe.listen("/ground_map/map", OccupancyGrid, MAP) as maps,
    ):
        waits = probe.await_status(lambda status: True, "diagnostics", "/ground_map", "ground")
        assert "no layout arrived" in waits["message"] and waits["level"] == "1"
        wait_for(lambda: cells.get_subscription_count() and motion.get_subscription_count(), "the node")

        def fused(count: int) -> None:
            probe.await_status(
                lambda status: status.get("layouts fused") == str(count), f"{count} layouts", "/ground_map", "ground"
            )

        motion.publish(odometry(0))
        cells.publish(PointCloud2(header=cells_message(layouts[0], stamp(0)).header))
        probe.await_status(lambda status: "no layout" in status["message"], "its refusal", "/ground_map", "ground")
        for count, (number, layout) in enumerate(zip(FRAMES, layouts, strict=True), start=1):
            cells.publish(cells_message(layout, stamp(number)))  # the odometry comes later, as it does
            motion.publish(odometry(number))
            fused(count)
        status = probe.await_status(lambda status: status["state"] == "active", "a map", "/ground_map", "ground")
        assert int(status["cells inferred first and seen later"]) == expected.agreement.cells > 100
        assert float(status["agreement"]) == pytest.approx(expected.agreement.share, abs=1e-3)

        costs = Costs().of(expected.layout())
        wait_for(lambda: maps.messages and np.array_equal(np.array(maps.messages[-1].data), costs.ravel()), "the map")
        newest = maps.messages[-1]
        assert newest.header.frame_id == "odom" and newest.header.stamp == stamp(FRAMES[-1])
        origin = newest.info.origin.position
        assert (origin.x, origin.y) == pytest.approx((expected.grid.x_min, expected.grid.y_min))

        before = odometry(0)
        before.header.stamp.sec -= 100  # the drive is played again
        motion.publish(before)
        wait_for(lambda: "began again" in node.log(), "a new map")
    assert node.stop() == 0 and "Traceback" not in node.log()


def test_wrong_parameters_are_refused(tmp_path) -> None:
    with Process("map_node", "-p", "size:=-1.0", log=tmp_path / "log") as node:
        assert node.wait() == 2, node.log()
