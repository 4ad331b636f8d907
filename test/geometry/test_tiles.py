"""A raster without borders."""

from __future__ import annotations

import numpy as np
import pytest

from sfi_ros.errors import OptionError
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.layout import INFERRED, OUT_OF_VIEW, SEEN, GroundLayout
from sfi_ros.geometry.tiles import Tiles
from sfi_ros.geometry.whole_map import WholeMap


def test_cells_keep_what_is_written_and_added() -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(-400, 400, (2, 5000))
    reference = np.zeros((2, 800, 800))
    tiles = Tiles(2, np.float64)
    layers, values = rng.integers(0, 2, 5000), rng.random(5000)
    tiles.add(layers, rows, columns, values)
    np.add.at(reference, (layers, rows + 400, columns + 400), values)
    assert np.allclose(tiles.dense(slice(-400, 400), slice(-400, 400)), reference)
    assert np.allclose(tiles.read(rows, columns), reference[:, rows + 400, columns + 400])
    tiles.write(np.array([3, -129]), np.array([5, 7]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert tiles.read(np.array([-129, 3, 100_000]), np.array([7, 5, 0])).tolist() == [[2, 1, 0], [4, 3, 0]]
    down, right = tiles.bounds()
    assert (down.start, down.stop) == (rows.min(), rows.max() + 1)
    assert (right.start, right.stop) == (columns.min(), columns.max() + 1)


def test_no_tiles_have_no_bounds() -> None:
    tiles = Tiles(1, np.uint8, 255)
    assert tiles.bounds() == (slice(0, 0), slice(0, 0)) and not tiles
    assert tiles.read(np.array([1]), np.array([2])).tolist() == [[255]]
    tiles.add(np.empty(0, int), np.empty(0, int), np.empty(0, int), np.empty(0))
    assert not tiles


def window(corner: float, evidence: int) -> GroundLayout:
    grid = GroundGrid(corner, corner + 4, -2, 2, 0.5, "odom")
    values = np.full(grid.shape, 1, np.uint8)
    kinds = np.full(grid.shape, evidence, np.uint8)
    kinds[0] = OUT_OF_VIEW
    return GroundLayout(grid, values, values * 200, kinds, values, values)


def test_windows_are_put_together() -> None:
    whole = WholeMap(0.5, "odom")
    with pytest.raises(OptionError, match="nothing"):
        whole.layout()
    whole.keep(window(-3.0, INFERRED))
    whole.keep(window(0.0, SEEN))
    layout = whole.layout()
    assert layout.grid == GroundGrid(-3.0, 4.0, -1.5, 2.0, 0.5, "odom")
    assert (layout.evidence == SEEN).sum() == 7 * 8 and (layout.evidence == INFERRED).sum() == 7 * 6
    whole.keep(window(30_000.0, SEEN))
    with pytest.raises(OptionError, match="--resolution"):
        WholeMap.layout(_wide(whole))


def _wide(whole: WholeMap) -> WholeMap:
    grid = GroundGrid(0, 4, 30_000, 30_004, 0.5, "odom")
    one = np.ones(grid.shape, np.uint8)
    whole.keep(GroundLayout(grid, one, one, one, one, one))
    return whole
