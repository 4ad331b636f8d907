"""The ground over time: layouts fused in the frame that the vehicle moves in, within a window that moves with it.

    ground = GroundMap()
    for layout, pose in drive:
        ground.add(layout, pose)
    ground.layout(), ground.agreement.summary()

Each cell keeps how likely each class is, as log-odds to which every frame adds its confidence. Frames from one place
show the same errors, so a vehicle that stands learns little from the next one. What is *seen* outranks what is
*inferred*: the first look at a cell takes the place of all that was inferred for it, which is put aside to count how
often it agreed.

Objects are not mapped: where one stood the map holds the ground that was inferred behind it, and seen when it had left.
So what moves leaves no trail.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from sfi_ros.classes import BACKGROUND_CLASSES, IGNORE
from sfi_ros.errors import OptionError
from sfi_ros.geometry.agreement import Agreement
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.layout import INFERRED, OUT_OF_VIEW, SEEN, GroundLayout
from sfi_ros.geometry.motion import PlanarPose

_CLASSES: Final = len(BACKGROUND_CLASSES)
_SURE: Final = 0.98  # no frame is surer than that
_BOUND: Final = 6.0  # log-odds that a class can lag behind the best: other frames can still change the cell's mind
_JUDGED: Final = 0.9  # probability of the class seen, from which on it can be said whether the inferred one was right
_BLOCK: Final = 64  # cells by which the window moves
_INDEPENDENT: Final = 0.5  # metres of driving behind which a frame counts fully
_STANDING: Final = 0.05  # what the next frame of a standing vehicle counts

Leaving = Callable[[GroundLayout], None]


class GroundMap:
    """A rolling map of the ground.

    Args:
        resolution: side of a cell, metres.
        size: side of the window, metres; it must hold the layouts, however they lie.
        frame: that the poses are in.
        leaving: called with the whole window before it moves, so that somebody can keep what leaves it.

    Attributes:
        agreement: of cells that were inferred first and seen later.

    Raises:
        OptionError: a window without cells, or with too many.
    """

    def __init__(
        self, resolution: float = 0.1, size: float = 80.0, frame: str = "odom", leaving: Leaving | None = None
    ):
        GroundGrid(0.0, size, 0.0, size, resolution, frame)  # checks them
        self.resolution, self.frame = resolution, frame
        self.agreement = Agreement()
        self._leaving = leaving
        side = math.ceil(size / resolution)
        self._side = side
        self._scores = np.zeros((_CLASSES, side * side), np.float32)
        self._evidence = np.zeros(side * side, np.uint8)
        self._depth = np.zeros(side * side, np.uint8)
        # What was inferred for cells that are seen now, until it can be judged.
        self._claims = np.full(side * side, IGNORE, np.uint8)
        self._claimed = np.zeros(side * side, np.uint8)  # its probability, 255 = 1
        self._corner: tuple[int, int] | None = None  # row and column of the first cell, from the frame's origin
        self._last: PlanarPose | None = None
        self._objects: np.ndarray = np.empty(0, np.intp)

    @property
    def grid(self) -> GroundGrid:
        """Where the window's cells lie now, in `frame`."""
        row, column = self._corner or (-self._side // 2, -self._side // 2)
        x, y, length = column * self.resolution, row * self.resolution, self._side * self.resolution
        return GroundGrid(x, x + length, y, y + length, self.resolution, self.frame)

    def add(self, layout: GroundLayout, pose: PlanarPose) -> None:
        """Fuse a layout.

        Args:
            layout: in the vehicle's frame.
            pose: of the vehicle when it was seen.

        Raises:
            OptionError: the layout does not fit into the window.
        """
        window, sources = self._places(layout.grid, pose)
        known = layout.classes.take(sources) != IGNORE
        self._objects = window[layout.objects.take(sources) != 0]
        window, sources = window[known], sources[known]
        seen = layout.evidence.take(sources) == SEEN
        was_seen = self._evidence.take(window) == SEEN
        useful = seen | ~was_seen
        window, sources, seen, was_seen = window[useful], sources[useful], seen[useful], was_seen[useful]

        found = window[seen & ~was_seen]
        self._claim(found[self._evidence[found] == INFERRED])
        gain = _GAINS.take(layout.confidence.take(sources)) * np.float32(self._weight(pose))
        self._learn(window, layout.classes.take(sources), gain)
        self._evidence[window] = np.where(seen, np.uint8(SEEN), np.uint8(INFERRED))
        hidden = ~seen
        self._depth[window[hidden]] = layout.depth.take(sources[hidden])
        self._judge(window[self._claims.take(window) != IGNORE])
        self._last = pose

    def layout(self) -> GroundLayout:
        """Return the window as a layout, for costs and pictures; its objects are those of the last frame."""
        best, confidence = self._decided(slice(None))
        known = self._evidence != OUT_OF_VIEW
        objects = np.zeros(self._side**2, np.uint8)
        objects[self._objects] = 1
        shape = (self._side, self._side)
        return GroundLayout(
            grid=self.grid,
            classes=np.where(known, best, IGNORE).astype(np.uint8).reshape(shape),
            confidence=np.where(known, np.rint(255 * confidence), 0).astype(np.uint8).reshape(shape),
            evidence=self._evidence.reshape(shape).copy(),
            objects=objects.reshape(shape),
            depth=np.where(self._evidence == INFERRED, self._depth, 0).astype(np.uint8).reshape(shape),
        )

    def finish(self) -> None:
        """Hand the window over as it is now: the drive has ended."""
        if self._leaving is not None and self._corner is not None:
            self._leaving(self.layout())

    def _weight(self, pose: PlanarPose) -> float:
        """Return what the next frame counts: how independent it is of the last one."""
        if self._last is None:
            return 1.0
        return min(1.0, max(_STANDING, pose.moved(self._last) / _INDEPENDENT))

    def _claim(self, cells: np.ndarray) -> None:
        """Put aside what was inferred for cells that are seen for the first time."""
        best, confidence = self._decided(cells)
        self._claims[cells] = best
        self._claimed[cells] = np.rint(255 * confidence)
        self._scores[:, cells] = 0

    def _learn(self, cells: np.ndarray, classes: np.ndarray, gain: np.ndarray) -> None:
        scores = [self._scores[number].take(cells) for number in range(_CLASSES)]
        for number, score in enumerate(scores):
            score += gain * (classes == number)
        best = np.maximum.reduce(scores)
        for number, score in enumerate(scores):
            score -= best
            np.maximum(score, -_BOUND, out=score)
            self._scores[number][cells] = score

    def _judge(self, cells: np.ndarray) -> None:
        """Count the cells for which what is seen has become certain."""
        best, confidence = self._decided(cells)
        certain = confidence >= _JUDGED
        cells, best = cells[certain], best[certain]
        self.agreement.add(self._claims[cells], best, self._depth[cells] / 10, self._claimed[cells] / 255)
        self._claims[cells] = IGNORE

    def _decided(self, cells: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Return the best class of cells and its probability."""
        scores = self._scores[:, cells]  # the best one is zero
        return scores.argmax(axis=0), 1 / np.exp(scores).sum(axis=0)

    def _places(self, grid: GroundGrid, pose: PlanarPose) -> tuple[np.ndarray, np.ndarray]:
        """Move the window to a layout; return flat indices of the window's cells in it, and of the layout's cells.

        Each cell of the window takes the layout's cell that its centre lies in, so there are no holes and none twice.
        """
        corners_x = np.array([grid.x_min, grid.x_max, grid.x_max, grid.x_min])
        corners_y = np.array([grid.y_min, grid.y_min, grid.y_max, grid.y_max])
        x, y = pose.points(corners_x, corners_y)
        first_row, last_row = (math.floor(value / self.resolution) for value in (y.min(), y.max()))
        first_column, last_column = (math.floor(value / self.resolution) for value in (x.min(), x.max()))
        self._move_to((first_row, last_row), (first_column, last_column))
        row, column = self._corner or (0, 0)
        rows, columns = np.arange(first_row, last_row + 1), np.arange(first_column, last_column + 1)
        # Both coordinates are a sum of what the row and what the column adds.
        cos, sin = math.cos(pose.yaw) / grid.resolution, math.sin(pose.yaw) / grid.resolution
        dx, dy = (columns + 0.5) * self.resolution - pose.x, (rows + 0.5) * self.resolution - pose.y
        along = (cos * dx - grid.x_min / grid.resolution) + (sin * dy)[:, None]
        across = (-sin * dx - grid.y_min / grid.resolution) + (cos * dy)[:, None]
        inside = (along >= 0) & (along < grid.shape[1]) & (across >= 0) & (across < grid.shape[0])
        taken = np.flatnonzero(inside)
        sources = across.take(taken).astype(np.intp) * grid.shape[1] + along.take(taken).astype(np.intp)
        down, right = np.divmod(taken, len(columns))
        return (down + (first_row - row)) * self._side + right + (first_column - column), sources

    def _move_to(self, rows: tuple[int, int], columns: tuple[int, int]) -> None:
        """Move the window such that it holds these rows and columns, first and last ones."""
        if max(rows[1] - rows[0], columns[1] - columns[0]) >= self._side:
            raise OptionError(
                f"the map's window of {self._side * self.resolution:g} m does not hold a layout that reaches over "
                f"{(max(rows[1] - rows[0], columns[1] - columns[0]) + 1) * self.resolution:.1f} m: make it larger"
            )
        if self._corner is not None and all(
            corner <= first and last < corner + self._side
            for corner, (first, last) in zip(self._corner, (rows, columns), strict=True)
        ):
            return
        wanted = [(first + last + 1 - self._side) // 2 for first, last in (rows, columns)]
        room = [(self._side - (last - first + 1)) // 2 for first, last in (rows, columns)]
        row, column = (
            value // _BLOCK * _BLOCK if free >= _BLOCK else value for value, free in zip(wanted, room, strict=True)
        )
        if self._corner is not None:
            self.finish()
            self._shift(row - self._corner[0], column - self._corner[1])
        self._corner = (row, column)

    def _shift(self, down: int, right: int) -> None:
        side = self._side
        layers: list[tuple[np.ndarray, int]] = [(scores, 0) for scores in self._scores]
        layers += [(self._evidence, OUT_OF_VIEW), (self._depth, 0), (self._claims, IGNORE), (self._claimed, 0)]
        target = (_overlap(-down, side), _overlap(-right, side))
        source = (_overlap(down, side), _overlap(right, side))
        for layer, empty in layers:
            cells = layer.reshape(side, side)
            kept = cells[source].copy()
            cells.fill(empty)
            cells[target] = kept


def _overlap(by: int, side: int) -> slice:
    """Return the part of `side` cells that is still there when they are read `by` cells further on."""
    return slice(min(max(by, 0), side), max(min(side, side + by), 0))


def _gains() -> np.ndarray:
    """float32[256]: confidence of a layout -> what a frame adds to the log-odds of its class over the others."""
    sure = np.clip(np.arange(256) / 255, 1 / _CLASSES, _SURE)
    return np.log(sure * (_CLASSES - 1) / (1 - sure)).astype(np.float32)


_GAINS: Final = _gains()
