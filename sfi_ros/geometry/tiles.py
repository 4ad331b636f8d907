"""A raster without borders, kept as the tiles that something was written to: what a long drive has shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

_SIDE: Final = 128  # cells
_SHIFT: Final = 7


class Tiles:
    """Layers of numbers over cells that are counted from the origin, also to negative rows and columns.

    Args:
        layers: how many.
        dtype: of all of them.
        empty: the value of cells that nothing was written to.
    """

    def __init__(self, layers: int, dtype: Any, empty: float = 0):
        self._layers, self._dtype, self._empty = layers, np.dtype(dtype), empty
        self._tiles: dict[tuple[int, int], np.ndarray] = {}

    def __bool__(self) -> bool:
        return bool(self._tiles)

    def write(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
        """Write values (layers, N) into cells (N,)."""
        for tile, places, chosen in self._grouped(rows, columns):
            self._tile(tile)[:, places] = values[:, chosen]

    def add(self, layers: np.ndarray, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
        """Add values (N,) to cells (N,) of one layer each; a cell may occur several times."""
        for tile, places, chosen in self._grouped(rows, columns):
            flat = layers[chosen].astype(np.intp) * _SIDE**2 + places
            sums = np.bincount(flat, weights=values[chosen], minlength=self._layers * _SIDE**2)
            self._tile(tile).reshape(-1)[:] += sums.astype(self._dtype)

    def read(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the values of cells (N,): (layers, N)."""
        values = np.full((self._layers, len(rows)), self._empty, self._dtype)
        for tile, places, chosen in self._grouped(rows, columns):
            if tile in self._tiles:
                values[:, chosen] = self._tile(tile)[:, places]
        return values

    def bounds(self) -> tuple[slice, slice]:
        """Return the rows and columns of the smallest rectangle around all that was written, empty where nothing was.

        The number of the first row may be negative.
        """
        rows, columns = [], []
        for (down, right), tile in self._tiles.items():
            written = (tile != self._empty).any(axis=0)
            rows.append(np.flatnonzero(written.any(axis=1)) + down * _SIDE)
            columns.append(np.flatnonzero(written.any(axis=0)) + right * _SIDE)
        extents = []
        for numbers in (rows, columns):
            every = np.concatenate(numbers) if numbers else np.empty(0, int)
            extents.append(slice(int(every.min()), int(every.max()) + 1) if len(every) else slice(0, 0))
        return extents[0], extents[1]

    def dense(self, rows: slice, columns: slice) -> np.ndarray:
        """Return a rectangle as one array (layers, rows, columns)."""
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        values = np.full((self._layers, *shape), self._empty, self._dtype)
        for (down, right), tile in self._tiles.items():
            to_rows, from_rows = _common(down * _SIDE - rows.start, shape[0])
            to_columns, from_columns = _common(right * _SIDE - columns.start, shape[1])
            values[:, to_rows, to_columns] = tile[:, from_rows, from_columns]
        return values

    def _tile(self, tile: tuple[int, int]) -> np.ndarray:
        """(layers, cells of a tile)."""
        if tile not in self._tiles:
            self._tiles[tile] = np.full((self._layers, _SIDE, _SIDE), self._empty, self._dtype)
        return self._tiles[tile].reshape(self._layers, -1)

    @staticmethod
    def _grouped(rows: np.ndarray, columns: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray, np.ndarray]]:
        """Yield tile, places in it and indices of the cells that lie in it."""
        if len(rows) == 0:
            return
        down, right = rows >> _SHIFT, columns >> _SHIFT
        width = int(right.max() - right.min()) + 1
        keys = (down - down.min()) * width + (right - right.min())
        order = np.argsort(keys, kind="stable")
        borders = np.flatnonzero(np.diff(keys[order])) + 1
        places = (rows & (_SIDE - 1)) * _SIDE + (columns & (_SIDE - 1))
        for chosen in np.split(order, borders):
            yield (int(down[chosen[0]]), int(right[chosen[0]])), places[chosen], chosen


def _common(start: int, length: int) -> tuple[slice, slice]:
    """Return where a tile that starts at `start` lies in `length` cells, and which part of it that is."""
    first, last = max(start, 0), min(start + _SIDE, length)
    last = max(first, last)
    return slice(first, last), slice(first - start, last - start)
