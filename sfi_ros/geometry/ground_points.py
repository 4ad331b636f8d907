"""The ground behind every pixel of an image: what an organised point cloud needs beside class and confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfi_ros.geometry.ground_table import GroundTable
from sfi_ros.geometry.layout import BLOCKED, INFERRED, OUT_OF_VIEW, SEEN, GroundLayout


@dataclass(frozen=True)
class GroundPoints:
    """Where the pixels of a camera's images see the plane of the road, or would if no object stood before it.

    A pixel that shows the top of a sidewalk lies a little nearer than this, one that shows the kerb does not: the plane
    is right for more of them than one at the kerb's height.

    Attributes:
        x, y: (H, W) float32, metres in the grid's frame; NaN at the horizon, above it, and outside of the grid.
        cells: (H, W) intp, flat index of the grid's cell; -1 where there is none.
    """

    x: np.ndarray
    y: np.ndarray
    cells: np.ndarray

    @classmethod
    def of(cls, table: GroundTable) -> GroundPoints:
        """Work them out for the camera and the image size of a table; a full HD image takes some tenths of a second."""
        ground = table.camera.ground_of_all_pixels()
        cells = table.grid.cells(ground[..., 0], ground[..., 1])
        ground[cells < 0] = np.nan
        return cls(ground[..., 0].astype(np.float32), ground[..., 1].astype(np.float32), cells)

    def evidence(self, layout: GroundLayout, foreground: np.ndarray) -> np.ndarray:
        """Tell how each point is known: (H, W) uint8, index into `layout.EVIDENCE`.

        Args:
            layout: of the same frame.
            foreground: (H, W) uint8, not zero on movable objects.
        """
        evidence = np.where(foreground != 0, np.uint8(INFERRED), np.uint8(SEEN))
        evidence[layout.evidence.take(self.cells, mode="clip") == BLOCKED] = BLOCKED
        evidence[self.cells < 0] = OUT_OF_VIEW
        return evidence

    def known(self, evidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return x, y and z of every pixel, (H, W) float32; NaN where no ground is known: out of view, or blocked."""
        hidden = (evidence == BLOCKED) | (evidence == OUT_OF_VIEW)
        x, y = (np.where(hidden, np.float32(np.nan), values) for values in (self.x, self.y))
        return x, y, np.where(hidden, np.float32(np.nan), np.float32(0))
