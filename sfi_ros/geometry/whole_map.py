"""The map of a whole drive: what a rolling window leaves behind, put together again."""

from __future__ import annotations

from typing import Final

import numpy as np

from sfi_ros.classes import IGNORE
from sfi_ros.errors import OptionError
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.layout import OUT_OF_VIEW, GroundLayout
from sfi_ros.geometry.tiles import Tiles

MOST_CELLS: Final = 20_000_000
"""Of a map that is put together; memory of the drive itself is only taken where it has been."""


class WholeMap:
    """Collects windows; give `keep` to `GroundMap(leaving=...)`.

    Args:
        resolution: of the windows.
        frame: that they are in.
    """

    def __init__(self, resolution: float, frame: str):
        self._resolution, self._frame = resolution, frame
        self._tiles = Tiles(3, np.uint8)  # class, confidence, evidence

    def keep(self, window: GroundLayout) -> None:
        """Take over what a window knows."""
        rows, columns = np.nonzero(window.evidence != OUT_OF_VIEW)
        layers = (window.classes, window.confidence, window.evidence)
        values = np.stack([layer[rows, columns] for layer in layers])
        first_row, first_column = (round(value / self._resolution) for value in (window.grid.y_min, window.grid.x_min))
        self._tiles.write(rows + first_row, columns + first_column, values)

    def layout(self) -> GroundLayout:
        """Return the smallest layout that holds all of it; its objects and depths are zero.

        Raises:
            OptionError: nothing was mapped, or over too wide an area for one array.
        """
        rows, columns = self._tiles.bounds()
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        if not shape[0] * shape[1]:
            raise OptionError("nothing was mapped: no frame has shown any ground")
        if shape[0] * shape[1] > MOST_CELLS:
            metres = [length * self._resolution for length in shape]
            raise OptionError(
                f"a map of {metres[0]:.0f} m x {metres[1]:.0f} m at {self._resolution:g} m has more than "
                f"{MOST_CELLS} cells: choose a coarser --resolution, or map the drive in parts"
            )
        classes, confidence, evidence = self._tiles.dense(rows, columns)
        classes[evidence == OUT_OF_VIEW] = IGNORE
        (y_min, y_max), (x_min, x_max) = (
            (part.start * self._resolution, part.stop * self._resolution) for part in (rows, columns)
        )
        grid = GroundGrid(x_min, x_max, y_min, y_max, self._resolution, self._frame)
        nothing = np.zeros(shape, np.uint8)
        return GroundLayout(grid, classes, confidence, evidence, nothing, nothing.copy())
