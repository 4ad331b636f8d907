"""The flat ground that a camera sees: pixels to points, points to pixels, and the grid that a layout lies in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from sfi_ros.errors import OptionError
from sfi_ros.geometry.calibration import Calibration
from sfi_ros.geometry.camera_model import CameraModel
from sfi_ros.geometry.pose import CameraPose

_MOST_CELLS: Final = 20_000_000


@dataclass(frozen=True)
class GroundGrid:
    """A grid on the ground, laid out as nav_msgs/OccupancyGrid: rows count along y, columns along x, from the minimum.

    Attributes:
        x_min, x_max, y_min, y_max: metres in `frame`.
        resolution: side of a cell, metres.
        frame: REP-105 name of the frame.

    Raises:
        OptionError: no cells, or too many.
    """

    x_min: float = 0.0
    x_max: float = 40.0
    y_min: float = -15.0
    y_max: float = 15.0
    resolution: float = 0.1
    frame: str = "base_footprint"

    def __post_init__(self) -> None:
        numbers = (self.x_min, self.x_max, self.y_min, self.y_max, self.resolution)
        if not all(map(math.isfinite, numbers)) or self.resolution <= 0:
            raise OptionError(f"the grid's extent must be finite and its resolution positive, not {numbers}")
        if self.x_max - self.x_min < self.resolution or self.y_max - self.y_min < self.resolution:
            raise OptionError(f"the grid has no cells: {numbers} (x_min, x_max, y_min, y_max, resolution)")
        if self.shape[0] * self.shape[1] > _MOST_CELLS:
            raise OptionError(f"the grid has more than {_MOST_CELLS} cells: choose a larger resolution or less extent")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of its arrays: cells along y, cells along x."""
        rows = round((self.y_max - self.y_min) / self.resolution)
        return rows, round((self.x_max - self.x_min) / self.resolution)

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of the cells' centres: float64 of `shape` each."""
        rows, columns = self.shape
        x = self.x_min + (np.arange(columns) + 0.5) * self.resolution
        y = self.y_min + (np.arange(rows) + 0.5) * self.resolution
        return np.broadcast_to(x, self.shape).copy(), np.broadcast_to(y[:, None], self.shape).copy()

    def cells(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the flat index of the cell that each point lies in, intp; -1 outside and for NaN."""
        rows, columns = self.shape
        column = np.floor((x - self.x_min) / self.resolution)
        row = np.floor((y - self.y_min) / self.resolution)
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        flat = np.where(inside, row * columns + column, -1)
        return flat.astype(np.intp)


@dataclass(frozen=True)
class GroundCamera:
    """A camera over flat ground."""

    model: CameraModel
    pose: CameraPose

    @classmethod
    def of(
        cls,
        calibration: Calibration,
        pose: CameraPose,
        size: tuple[int, int] | None = None,
        *,
        rectified: bool = False,
    ) -> GroundCamera:
        """Return the camera; see `CameraModel.of` for the arguments and errors."""
        return cls(CameraModel.of(calibration, size, rectified=rectified), pose)

    def pixels(self, x: np.ndarray, y: np.ndarray, z: float = 0.0) -> np.ndarray:
        """Project points of the vehicle's frame.

        Args:
            x, y: (N,), metres.
            z: height of all of them above the ground.

        Returns:
            (N, 2) float64 pixels, also outside of the image; NaN where the camera does not look.
        """
        axes = self.pose.rotation
        dx, dy, dz = x - self.pose.x, y - self.pose.y, z - self.pose.height
        # Written out: a matrix product rounds differently for other numbers of points.
        points = np.stack([axes[0, n] * dx + axes[1, n] * dy + axes[2, n] * dz for n in range(3)], axis=1)
        return self.model.pixels(points)

    def pixel_indices(self, x: np.ndarray, y: np.ndarray, z: float = 0.0) -> np.ndarray:
        """Return the flat index of the pixel that each point falls into, (N,) intp; -1 outside. See `pixels`."""
        pixels = self.pixels(x, y, z)
        width, height = self.model.size
        column, row = np.floor(pixels[:, 0] + 0.5), np.floor(pixels[:, 1] + 0.5)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        return np.where(inside, row * width + column, -1).astype(np.intp)

    def ground(self, pixels: np.ndarray) -> np.ndarray:
        """Return where pixels (N, 2) see the ground: (N, 2) float64 of x and y, NaN at the horizon and above."""
        directions = self.model.directions(pixels) @ self.pose.rotation.T
        down = -directions[:, 2]
        reached = down > 1e-6
        scale = self.pose.height / np.where(reached, down, 1.0)
        points = directions[:, :2] * scale[:, None] + self.pose.position[:2]
        points[~reached] = np.nan
        return points
