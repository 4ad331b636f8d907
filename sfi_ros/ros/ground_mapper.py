"""The ground over time on the robot: layouts and odometry in, a map that moves with the vehicle out.

Subscribes to `inpaint/layout_cells` (sensor_msgs/PointCloud2 of `inpaint_node`) and `odom` (nav_msgs/Odometry),
publishes `~/map` (nav_msgs/OccupancyGrid, transient local, in the odometry's frame) and /diagnostics, where it says how
often what was inferred behind objects was seen to be so later. `map_node` is its executable.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict
from typing import Any, Final

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import OccupancyGrid, Odometry
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2

from sfi_ros.errors import OptionError
from sfi_ros.frames.stamps import nanoseconds
from sfi_ros.geometry.ground_map import GroundMap
from sfi_ros.geometry.motion import PlanarPose, Track
from sfi_ros.geometry.occupancy import Costs
from sfi_ros.ros.diagnostics import OK, WARN, status_of
from sfi_ros.ros.ground_messages import layout_of, occupancy_message
from sfi_ros.ros.parameters import declare_number, warn_of_unknown
from sfi_ros.ros.qos import latched_qos, publish_on, subscribe_to

_REMEMBERED: Final = 1000  # messages of odometry: ten seconds of a fast one
_WAITING: Final = 5  # layouts that wait for the odometry of their stamp
_NEAR: Final = 10**9  # nanoseconds from a layout within which odometry tells about it
_WENT_BACK: Final = 10**9  # nanoseconds that a stamp lies before the newest one where time jumped: another drive
_COSTS: Final = asdict(Costs())
_STALE: Final = 2.0  # seconds without a layout


class GroundMapper(Node):
    """Fuses layouts as `GroundMap` does.

    Raises:
        OptionError: a parameter was given a value that is not acceptable.
    """

    def __init__(self) -> None:
        super().__init__("ground_map")
        self._size = declare_number(self, "size", 80.0, "metres, side of the map's window", 1.0, 1000.0)
        rate = declare_number(self, "rate", 1.0, "maps published per second", 0.01, 50.0)
        for name, cost in _COSTS.items():
            described = "as layout.cost_* of inpaint_node: 0 free, 100 occupied, -1 unknown"
            declare_number(self, f"cost_{name}", cost, described, -1, 100, read_only=False)
        warn_of_unknown(self)
        self._map: GroundMap | None = None
        self._poses: deque[tuple[int, PlanarPose]] = deque(maxlen=_REMEMBERED)
        self._pending: deque[PointCloud2] = deque(maxlen=_WAITING)
        self._frame = ""
        self._fused = self._without_pose = 0
        self._problem = ""
        self._stamp = Time()
        self._last_layout: float | None = None
        self._changed = False
        # The newest layouts only; those that are lost are no loss for a map.
        newest = QoSProfile(depth=_WAITING, reliability=ReliabilityPolicy.BEST_EFFORT)
        subscribe_to(self, PointCloud2, "inpaint/layout_cells", self._take_layout, newest)
        odometry = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
        subscribe_to(self, Odometry, "odom", self._take_odometry, odometry)
        self._maps = publish_on(self, OccupancyGrid, "~/map", latched_qos())
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / rate, self._publish, clock=steady)
        self.create_timer(1.0, self._diagnose, clock=steady)
        self.get_logger().info("waiting for inpaint/layout_cells and odom")

    def _take_odometry(self, message: Odometry) -> None:
        try:
            pose = PlanarPose.from_message(message.pose.pose)
        except OptionError as error:
            self._problem = str(error)
            return
        at = nanoseconds(message.header.stamp)
        if (self._poses and at < self._poses[-1][0] - _WENT_BACK) or message.header.frame_id != self._frame:
            self._start_anew(message.header.frame_id)
        self._poses.append((at, pose))
        self._fuse_pending()

    def _take_layout(self, message: PointCloud2) -> None:
        self._last_layout = time.monotonic()
        self._pending.append(message)
        self._fuse_pending()

    def _start_anew(self, frame: str) -> None:
        if self._map is not None:
            self.get_logger().warning("the odometry began again: the map does, too")
        self._frame, self._map = frame, None
        self._poses.clear()

    def _fuse_pending(self) -> None:
        """Fuse the layouts that the odometry has reached."""
        while self._pending and self._poses and nanoseconds(self._pending[0].header.stamp) <= self._poses[-1][0]:
            message = self._pending.popleft()
            at = nanoseconds(message.header.stamp)
            near = [(time_of, pose) for time_of, pose in self._poses if abs(time_of - at) <= _NEAR]
            pose = Track(*zip(*near, strict=True)).at(at) if near else None
            if pose is None:
                self._without_pose += 1
                continue
            try:
                layout = layout_of(message)
                if self._map is None or self._map.resolution != layout.grid.resolution:
                    self._map = GroundMap(layout.grid.resolution, self._size, self._frame)
                self._map.add(layout, pose)
            except OptionError as error:
                self._problem = str(error)
                continue
            self._problem = ""
            self._fused += 1
            self._stamp, self._changed = message.header.stamp, True

    def _publish(self) -> None:
        if self._map is None or not self._changed or not self._maps.get_subscription_count():
            return
        self._changed = False
        layout = self._map.layout()
        costs = Costs(**{name: self.get_parameter(f"cost_{name}").value for name in _COSTS})
        self._maps.publish(occupancy_message(costs.of(layout), layout.grid, self._stamp))

    def _diagnose(self) -> None:
        state, problem = self._state()
        level = WARN if problem else OK
        values: dict[str, Any] = {
            "state": state,
            "layouts fused": self._fused,
            "layouts without odometry": self._without_pose,
            "frame": self._frame or "-",
        }
        if self._map is not None:
            counted = self._map.agreement.summary()
            values["cells inferred first and seen later"] = counted["cells"]
            values["agreement"] = counted["agreement"]
            for name, entry in counted["by_class"].items():
                values[f"agreement where {name} was seen"] = entry["agreement"]
            values["calibration error"] = counted["calibration"]["expected_calibration_error"]
        name = f"{self.get_fully_qualified_name()[1:]}: ground"
        message = DiagnosticArray(status=[status_of(level, name, "; ".join(filter(None, (state, problem))), values)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _state(self) -> tuple[str, str]:
        """Return a word for the state, and what is wrong."""
        if self._last_layout is None:
            return "waiting", "no layout arrived yet: is layout_cells remapped to that of inpaint_node?"
        if not self._poses:
            return "waiting", "no odometry arrived yet"
        if self._problem:
            return "no map", self._problem
        if time.monotonic() - self._last_layout > _STALE:
            return "stale", f"the last layout arrived {time.monotonic() - self._last_layout:.1f} s ago"
        if self._map is None:
            return "waiting", "no odometry at the stamps of the layouts" if self._without_pose else ""
        return "active", ""
