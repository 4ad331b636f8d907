"""The ground around the vehicle, from all its cameras: ~/layout, ~/layout_objects and what shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from nav_msgs.msg import OccupancyGrid
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from sfi_ros.classes import IGNORE
from sfi_ros.frames.stamps import nanoseconds
from sfi_ros.geometry.fusion import fuse
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.layout import OUT_OF_VIEW, GroundLayout
from sfi_ros.geometry.occupancy import Costs, occupied_now
from sfi_ros.ros.ground_messages import GridMap, cells_message, grid_map_message, occupancy_message
from sfi_ros.ros.image_messages import image_message
from sfi_ros.ros.parameters import Parameters
from sfi_ros.ros.qos import latched_qos, publish_on, result_qos
from sfi_ros.visualization import layout_picture

_COSTS = tuple(field.name for field in fields(Costs))
_WENT_BACK = 500_000_000  # nanoseconds that a stamp lies before the one before it where time jumped


def grid_of(parameters: Parameters) -> GroundGrid:
    """Return the grid of all layouts.

    Raises:
        OptionError: it has no cells, or too many.
    """
    names = ("x_min", "x_max", "y_min", "y_max", "resolution", "frame")
    return GroundGrid(**{name: parameters[f"layout.{name}"] for name in names})


class Layouts:
    """Publishes what the layouts of all cameras say together, while somebody subscribes.

    Args:
        node: to publish with.
        parameters: of the node, read anew for every layout.
        grid: of the layouts.

    Attributes:
        grid: as given.
    """

    def __init__(self, node: Node, parameters: Parameters, grid: GroundGrid):
        self._node, self._parameters, self.grid = node, parameters, grid
        self._newest: dict[str, tuple[int, Time, GroundLayout]] = {}  # by camera
        self._changed = False
        # As a map server offers it: who subscribes later gets the newest.
        self._makers: dict[Publisher, Callable[[GroundLayout, Time], Any]] = {
            self._publisher(OccupancyGrid, "layout", latched_qos()): self._layout,
            self._publisher(OccupancyGrid, "layout_objects", latched_qos()): self._objects,
            self._publisher(Image, "layout_color", result_qos()): self._color,
            self._publisher(PointCloud2, "layout_cells", result_qos()): cells_message,
        }
        if GridMap is not None:
            self._makers[self._publisher(GridMap, "layout_map", result_qos())] = self._map

    def wanted(self) -> bool:
        """Whether anybody subscribes."""
        return any(publisher.get_subscription_count() for publisher in self._makers)

    def add(self, camera: str, layout: GroundLayout, stamp: Time) -> None:
        """Keep the newest layout of a camera; a stamp far before its last one means that time went back."""
        at = nanoseconds(stamp)
        before = self._newest.get(camera)
        if before is not None and at < before[0] - _WENT_BACK:
            self._newest.clear()
        self._newest[camera] = at, stamp, layout
        self._changed = True

    def publish(self) -> None:
        """Publish all layouts in one, if one is new, with the stamp of the newest."""
        if not self._changed or not self.wanted():
            return
        self._changed = False
        newest, stamp, _ = max(self._newest.values(), key=lambda one: one[0])
        oldest = newest - round(self._parameters["layout.max_age"] * 1e9)
        layout = fuse([layout for at, _, layout in self._newest.values() if at >= oldest])
        for publisher, make in self._makers.items():
            if publisher.get_subscription_count():
                publisher.publish(make(layout, stamp))

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._makers:
            self._node.destroy_publisher(publisher)
        self._makers = {}

    def _layout(self, layout: GroundLayout, stamp: Time) -> OccupancyGrid:
        costs = Costs(**{name: self._parameters[f"layout.cost_{name}"] for name in _COSTS})
        return occupancy_message(costs.of(layout), layout.grid, stamp)

    def _objects(self, layout: GroundLayout, stamp: Time) -> OccupancyGrid:
        return occupancy_message(occupied_now(layout), layout.grid, stamp)

    def _color(self, layout: GroundLayout, stamp: Time) -> Image:
        return image_message(layout_picture(layout), "rgb8", Header(stamp=stamp, frame_id=layout.grid.frame))

    def _map(self, layout: GroundLayout, stamp: Time) -> Any:
        known = layout.classes != IGNORE
        layers = {
            "class": np.where(known, layout.classes, np.nan),
            "confidence": np.where(known, layout.confidence / 255, np.nan),
            "evidence": np.where(layout.evidence != OUT_OF_VIEW, layout.evidence, np.nan),
            "objects": layout.objects,
        }
        return grid_map_message(layers, layout.grid, stamp)

    def _publisher(self, message_type: Any, topic: str, qos: Any) -> Publisher:
        return publish_on(self._node, message_type, f"~/{topic}", qos)
