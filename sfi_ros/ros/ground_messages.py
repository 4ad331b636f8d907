"""The ground as ROS messages: occupancy grids, organised point clouds, and grid maps where they are installed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion
from nav_msgs.msg import MapMetaData, OccupancyGrid
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Float32MultiArray, Header, MultiArrayDimension, MultiArrayLayout

from sfi_ros.classes import IGNORE
from sfi_ros.errors import OptionError
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.layout import GroundLayout
from sfi_ros.ros.image_messages import message_data

try:
    from grid_map_msgs.msg import GridMap
except ImportError:  # not on PyPI
    GridMap = None

POINT: Final = np.dtype(
    {
        "names": ["x", "y", "z", "class", "evidence", "confidence"],
        "formats": ["<f4", "<f4", "<f4", "u1", "u1", "u1"],
        "offsets": [0, 4, 8, 12, 13, 14],
        "itemsize": 16,
    }
)
"""A point of ~/ground_points."""

CELL: Final = np.dtype(
    {
        "names": ["x", "y", "z", "class", "evidence", "confidence", "depth", "object"],
        "formats": ["<f4", "<f4", "<f4", "u1", "u1", "u1", "u1", "u1"],
        "offsets": [0, 4, 8, 12, 13, 14, 15, 16],
        "itemsize": 20,
    }
)
"""A cell of ~/layout_cells."""

_LAYERS: Final = {
    "class": "classes",
    "evidence": "evidence",
    "confidence": "confidence",
    "depth": "depth",
    "object": "objects",
}
"""Field of `CELL` -> attribute of a GroundLayout."""

_FIELD_TYPES: Final = {"f": PointField.FLOAT32, "u": PointField.UINT8}


def occupancy_message(costs: np.ndarray, grid: GroundGrid, stamp: Time) -> OccupancyGrid:
    """Make a nav_msgs/OccupancyGrid.

    Args:
        costs: int8 of the grid's shape, 0 to 100, -1 for unknown.
        grid: where the cells lie.
        stamp: of the image.
    """
    rows, columns = grid.shape
    origin = Pose(position=Point(x=grid.x_min, y=grid.y_min), orientation=Quaternion(w=1.0))
    message = OccupancyGrid(
        header=Header(stamp=stamp, frame_id=grid.frame),
        info=MapMetaData(map_load_time=stamp, resolution=grid.resolution, width=columns, height=rows, origin=origin),
    )
    message.data = message_data(costs, "b")
    return message


def points_message(points: np.ndarray, frame: str, stamp: Time) -> PointCloud2:
    """Make an organised sensor_msgs/PointCloud2.

    Args:
        points: (H, W) of `POINT` or `CELL`, metres; NaN where there is none.
        frame: that they are in.
        stamp: of the image.
    """
    height, width = points.shape
    fields = [
        PointField(name=name, offset=offset, datatype=_FIELD_TYPES[kind.kind], count=1)
        for name, (kind, offset) in points.dtype.fields.items()
    ]
    message = PointCloud2(header=Header(stamp=stamp, frame_id=frame), height=height, width=width, fields=fields)
    message.point_step, message.row_step = points.itemsize, points.itemsize * width
    message.is_dense = False  # NaN among them
    message.data = message_data(points)
    return message


class PointsMessage:
    """An organised sensor_msgs/PointCloud2 of `POINT` that is filled again and again.

    A full HD image has 33 MB of points, and memory that is new costs more time than what is written into it.

    Args:
        shape: (height, width).
        frame: that the points are in.

    Attributes:
        shape: as given.
    """

    def __init__(self, shape: tuple[int, int], frame: str):
        self.shape = shape
        self._message = points_message(np.zeros(shape, POINT), frame, Time())
        self._words = np.frombuffer(self._message.data, "<u4").reshape(*shape, 4)

    def filled(
        self,
        points: Sequence[np.ndarray],
        classes: np.ndarray,
        evidence: np.ndarray,
        confidence: np.ndarray,
        stamp: Time,
    ) -> PointCloud2:
        """Return the message, which the next call changes.

        Args:
            points: x, y and z, (H, W) float32 metres each; NaN where there is none.
            classes, evidence, confidence: (H, W) uint8.
            stamp: of the image.
        """
        for number, values in enumerate(points):
            self._words[..., number] = values.view(np.uint32)
        # Three bytes at once: each pass over so many points takes its time.
        word = confidence.astype(np.uint32)
        for values in (evidence, classes):
            np.bitwise_or(np.left_shift(word, 8, out=word), values, out=word)
        self._words[..., 3] = word
        self._message.header.stamp = stamp
        return self._message


def cells_message(layout: GroundLayout, stamp: Time) -> PointCloud2:
    """Make all layers of a layout one organised sensor_msgs/PointCloud2, rows along y; z is NaN where nothing is known.

    Args:
        layout: the layers.
        stamp: of the image.
    """
    cells = np.empty(layout.grid.shape, CELL)
    cells["x"], cells["y"] = layout.grid.centres()
    cells["z"] = np.where(layout.classes != IGNORE, np.float32(0), np.float32(np.nan))
    for field, name in _LAYERS.items():
        cells[field] = getattr(layout, name)
    return points_message(cells, layout.grid.frame, stamp)


def layout_of(message: PointCloud2) -> GroundLayout:
    """Return the layout that `cells_message` was made of.

    Raises:
        OptionError: the message is something else.
    """
    rows, columns = message.height, message.width
    names = [field.name for field in message.fields]
    wrong = names != list(CELL.names or ()) or message.point_step != CELL.itemsize or message.is_bigendian
    if wrong or min(rows, columns) < 2 or len(message.data) != rows * columns * CELL.itemsize:
        raise OptionError("this PointCloud2 holds no layout; it must come from ~/layout_cells of inpaint_node")
    cells = np.frombuffer(message.data, CELL).reshape(rows, columns)
    # Whole micrometres: the corners were rounded to float32.
    resolution = round((float(cells["x"][0, -1]) - float(cells["x"][0, 0])) / (columns - 1), 6)
    if not (math.isfinite(resolution) and resolution > 0):
        raise OptionError("the cells of this layout have no size")
    x_min, y_min = (round(float(cells[axis][0, 0]) - resolution / 2, 6) for axis in ("x", "y"))
    grid = GroundGrid(
        x_min, x_min + columns * resolution, y_min, y_min + rows * resolution, resolution, message.header.frame_id
    )
    return GroundLayout(grid, **{name: cells[field].copy() for field, name in _LAYERS.items()})


def grid_map_message(layers: Mapping[str, np.ndarray], grid: GroundGrid, stamp: Time) -> GridMap:
    """Make a grid_map_msgs/GridMap, whose rows count from the largest x down and whose columns from the largest y.

    Args:
        layers: name -> float32 of the grid's shape; NaN where there is no value.
        grid: where the cells lie.
        stamp: of the image.
    """
    rows, columns = grid.shape
    message = GridMap(header=Header(stamp=stamp, frame_id=grid.frame), layers=list(layers))
    message.info.resolution = grid.resolution
    message.info.length_x, message.info.length_y = columns * grid.resolution, rows * grid.resolution
    message.info.pose.position.x = (grid.x_min + grid.x_max) / 2
    message.info.pose.position.y = (grid.y_min + grid.y_max) / 2
    message.info.pose.orientation.w = 1.0
    # Column after column, as Eigen keeps matrices: outermost are the columns, along y.
    sizes = (("column_index", rows, rows * columns), ("row_index", columns, columns))
    dimensions = [MultiArrayDimension(label=label, size=size, stride=stride) for label, size, stride in sizes]
    for values in layers.values():
        layer = Float32MultiArray(layout=MultiArrayLayout(dim=dimensions))
        layer.data = message_data(values[::-1, ::-1].astype(np.float32), "f")
        message.data.append(layer)
    return message
