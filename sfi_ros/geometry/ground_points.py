"""The ground behind every pixel of an image: what an organised point cloud needs beside class and confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfi_ros.geometry.ground_table import GroundTable
from sfi_ros.geometry.layout import INFERRED, OUT_OF_VIEW, SEEN, GroundLayout


@dataclass(frozen=True)
class GroundPoints:
    """Where the pixels of a camera's images see the plane of the road, or would if no object stood before it.

    A pixel that shows the top of a sidewalk lies a little nearer than this, one that shows the kerb does not: the plane
    is right for more of them than one at the kerb's height.

    Attributes:
        size: (width, height) of the images.
        rows: those that show ground of the grid; (R, W) of them are in the arrays.
        x, y: (R, W) float32, metres in the grid's frame; NaN at the horizon, above it, and outside of the grid.
        cells: (R, W) int32, flat index of the grid's cell; -1 where there is none.
    """

    size: tuple[int, int]
    rows: slice
    x: np.ndarray
    y: np.ndarray
    cells: np.ndarray

    @classmethod
    def of(cls, table: GroundTable) -> GroundPoints:
        """Work them out for the camera and the image size of a table; a full HD image takes some tenths of a second."""
        width, height = table.camera.model.size
        read = table.pixels // width
        rows = slice(int(read.min()), int(read.max()) + 1) if len(read) else slice(0, 0)
        pixels = np.indices((height, width), np.float32)[::-1, rows].reshape(2, -1).T
        x, y = table.camera.ground(pixels).T.reshape(2, -1, width)
        cells = table.grid.cells(x, y).astype(np.int32)
        x[cells < 0] = y[cells < 0] = np.nan
        return cls((width, height), rows, x.astype(np.float32), y.astype(np.float32), cells)

    def evidence(self, layout: GroundLayout, foreground: np.ndarray) -> np.ndarray:
        """Tell how each point is known: (H, W) uint8, index into `layout.EVIDENCE`.

        Args:
            layout: of the same frame.
            foreground: (H, W) uint8, not zero on movable objects.
        """
        evidence = np.full(foreground.shape, OUT_OF_VIEW, np.uint8)
        of_cell = layout.evidence.take(self.cells, mode="clip")
        of_cell[self.cells < 0] = OUT_OF_VIEW
        hidden = foreground[self.rows] != 0
        known = (of_cell == SEEN) | (of_cell == INFERRED)
        of_pixel = np.where(hidden, np.uint8(INFERRED), np.uint8(SEEN))
        evidence[self.rows] = np.where(known, of_pixel, of_cell)
        return evidence

    def known(self, evidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return x, y and z of every pixel, (H, W) float32; NaN where no ground is known: out of view, or blocked."""
        points = np.full((3, *evidence.shape), np.nan, np.float32)
        ground = points[:, self.rows]
        visible = (evidence[self.rows] == SEEN) | (evidence[self.rows] == INFERRED)
        for values, given in zip(ground, (self.x, self.y, np.float32(0)), strict=True):
            np.copyto(values, given, where=visible)
        x, y, z = points
        return x, y, z
