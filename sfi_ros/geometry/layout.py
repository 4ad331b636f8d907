"""The ground of one frame in metres: what is road and sidewalk, also behind objects, and how that is known.

    camera = GroundCamera.of(calibration, CameraPose(height=1.5, pitch=0.03), (width, height))
    table = GroundTable(camera, GroundGrid())                         # once
    layout = lay_out(table, scene.foreground, scene.background, scene.confidence)

or, for a camera whose calibration, pose or mask size may change, `LayoutMaker`, which keeps its tables.

Along a ray the ground ends at the first *other*: behind a wall is ground that this camera knows nothing of. One sample
of *other* alone ends nothing: it is noise at a border.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np

from sfi_ros.classes import BACKGROUND_CLASSES, IGNORE
from sfi_ros.errors import ImageError
from sfi_ros.geometry.calibration import Calibration
from sfi_ros.geometry.confidence import cell_confidence
from sfi_ros.geometry.ground import GroundCamera, GroundGrid
from sfi_ros.geometry.ground_table import KERB_HEIGHT, GroundTable, own_vehicle_mask
from sfi_ros.geometry.pose import CameraPose

EVIDENCE: Final = ("out of view", "seen", "inferred", "blocked")
"""How a cell is known; the index is the value of `GroundLayout.evidence`."""
OUT_OF_VIEW, SEEN, INFERRED, BLOCKED = range(4)

_ROAD: Final = BACKGROUND_CLASSES.index("road")
_OTHER: Final = BACKGROUND_CLASSES.index("other")
_TABLES_KEPT: Final = 8


@dataclass(frozen=True)
class GroundLayout:
    """The ground in one frame, in the arrangement of nav_msgs/OccupancyGrid: rows count along y, columns along x.

    Attributes:
        grid: where the cells lie.
        classes: uint8, 0 road, 1 sidewalk, 2 other, 255 unknown (out of view, or blocked).
        confidence: uint8, how likely that class is right, 255 = 1; 0 where it is unknown.
        evidence: uint8, index into `EVIDENCE`: seen, inferred (behind an object) or blocked (behind something fixed).
        objects: uint8, 1 where an object stands now: the foot of each, its contact with the ground.
        depth: uint8, tenths of a metre behind the foot of the object, at most 255; 0 where it is not inferred.
    """

    grid: GroundGrid
    classes: np.ndarray
    confidence: np.ndarray
    evidence: np.ndarray
    objects: np.ndarray
    depth: np.ndarray


def lay_out(
    table: GroundTable, foreground: np.ndarray, background: np.ndarray, confidence: np.ndarray | None = None
) -> GroundLayout:
    """Lay one frame out on the ground.

    Args:
        table: of the camera, for masks of this size.
        foreground: (H, W) uint8, not zero on movable objects.
        background: (H, W) uint8 background classes, also behind objects; 255 is unknown.
        confidence: (H, W) uint8, probability of that class, 255 = 1; None: certain.

    Raises:
        ImageError: the size is not that of the table.
    """
    width, height = table.camera.model.size
    for name, image in (("foreground", foreground), ("background", background), ("confidence", confidence)):
        if image is not None and image.shape != (height, width):
            raise ImageError(f"{name} is {image.shape}, the table of the ground is for {(height, width)}")
    mask, classes = foreground.reshape(-1), background.reshape(-1)
    ends = _ends(table, classes)
    covered, begins = _covered(table, mask)

    cell_classes = _classes(table, classes)
    hidden = mask.take(table.pixels) != 0
    past = table.cell_steps - ends.take(table.cell_rays)
    blocked = (past > 1) | ((past == 1) & (cell_classes != _OTHER))
    np.putmask(cell_classes, blocked, IGNORE)
    evidence = hidden.view(np.uint8) + np.uint8(SEEN)
    np.putmask(evidence, blocked, BLOCKED)

    inferred = np.flatnonzero(evidence == INFERRED)
    depth = np.maximum(table.ranges.take(inferred) - _feet_of_cells(table, begins, inferred), 0)
    pixel_confidence = None if confidence is None else confidence.reshape(-1).take(table.pixels)
    certainty = cell_confidence(pixel_confidence, table.log_spread, inferred, depth)
    np.putmask(certainty, cell_classes == IGNORE, 0)
    depths = np.zeros(table.grid.shape, np.uint8)
    depths.reshape(-1)[table.cells.take(inferred)] = np.minimum(10 * depth, 255).astype(np.uint8)

    def in_grid(values: np.ndarray, elsewhere: int) -> np.ndarray:
        cells = np.full(table.grid.shape, elsewhere, np.uint8)
        cells.reshape(-1)[table.cells] = values
        return cells

    return GroundLayout(
        grid=table.grid,
        classes=in_grid(cell_classes, IGNORE),
        confidence=in_grid(certainty, 0),
        evidence=in_grid(evidence, OUT_OF_VIEW),
        objects=_objects(table, begins, covered, ends),
        depth=depths,
    )


def _classes(table: GroundTable, classes: np.ndarray) -> np.ndarray:
    """Return the class of each cell in view, (V,) uint8.

    A cell is road, or unknown, where that is seen at the road's height. All else is looked for one kerb higher: on the
    plane of the road, a sidewalk would seem to lie farther away than it does.
    """
    low, high = classes.take(table.pixels), classes.take(table.raised_pixels)
    np.putmask(high, (low == _ROAD) | (low == IGNORE), low)
    return high


def _ends(table: GroundTable, classes: np.ndarray) -> np.ndarray:
    """Return the step of each ray at which the ground ends, (A,) int16; the number of steps where it does not."""
    other = classes.take(table.samples) == _OTHER
    other &= table.sampled
    other[:, :-1] &= other[:, 1:]
    ends = other.argmax(axis=1)
    ended = other[np.arange(len(ends)), ends]
    return np.where(ended, ends, other.shape[1]).astype(np.int16)


def _objects(table: GroundTable, begins: np.ndarray, covered: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the cells on which objects touch the ground, uint8 of the grid's shape."""
    count = covered.shape[1]
    first = np.flatnonzero(begins)
    rays, steps = np.divmod(first, count)
    first = first[steps <= ends[rays]]  # what rises behind a wall does not show its foot
    second = first[first % count + 1 < count] + 1  # so that the line has no gaps
    cells = table.sample_cells.take(np.concatenate([first, second[covered.take(second)]]))
    objects = np.zeros(table.grid.shape, np.uint8)
    objects.reshape(-1)[cells[cells >= 0]] = 1
    return objects


def _covered(table: GroundTable, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which samples an object covers, and at which ones it begins, (A, S) bool each."""
    covered = mask.take(table.samples) != 0
    covered &= table.sampled
    begins = covered.copy()
    begins[:, 1:] &= ~covered[:, :-1]
    return covered, begins


def _feet_of_cells(table: GroundTable, begins: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return how far away the foot of the object is that covers a cell, of those in view, float32 metres."""
    steps = np.maximum.accumulate(begins * np.arange(len(table.steps), dtype=np.int16), axis=1)
    return table.steps.take(steps.take(table.cell_samples.take(cells)))


class LayoutMaker:
    """Makes the layouts of a camera, or of several, in one grid; keeps the tables of the last poses and sizes.

    Safe to call from several threads.

    Args:
        grid: of the layouts.
        own_vehicle: polygon or image; see `own_vehicle_mask`.
        kerb_height: see `GroundTable`.
        rectified: the images were rectified; see `CameraModel.of`.
    """

    def __init__(
        self,
        grid: GroundGrid,
        own_vehicle: np.ndarray | None = None,
        *,
        kerb_height: float = KERB_HEIGHT,
        rectified: bool = False,
    ):
        self.grid = grid
        self._own, self._kerb_height, self._rectified = own_vehicle, kerb_height, rectified
        self._lock = threading.Lock()
        self._tables: OrderedDict[tuple[Calibration, CameraPose, tuple[int, int]], GroundTable] = OrderedDict()

    def table(self, calibration: Calibration, pose: CameraPose, size: tuple[int, int]) -> GroundTable:
        """Return the table of a camera for masks of `size` = (width, height); takes some tens of ms the first time.

        Poses that differ by less than `CameraPose.rounded` does share a table.

        Raises:
            CalibrationError, OptionError: see `GroundCamera.of` and `own_vehicle_mask`.
        """
        key = (calibration, pose.rounded(), size)
        with self._lock:
            if key not in self._tables:
                self._tables[key] = self._new_table(*key)
                if len(self._tables) > _TABLES_KEPT:
                    self._tables.popitem(last=False)
            self._tables.move_to_end(key)
            return self._tables[key]

    def _new_table(self, calibration: Calibration, pose: CameraPose, size: tuple[int, int]) -> GroundTable:
        own = None if self._own is None else own_vehicle_mask(self._own, calibration.image_size, size)
        camera = GroundCamera.of(calibration, pose, size, rectified=self._rectified)
        return GroundTable(camera, self.grid, own, self._kerb_height)

    def __call__(
        self,
        calibration: Calibration,
        pose: CameraPose,
        foreground: np.ndarray,
        background: np.ndarray,
        confidence: np.ndarray | None = None,
    ) -> GroundLayout:
        """Lay one frame out; see `lay_out` and `table`.

        Args:
            calibration: of the camera's images as they came.
            pose: of the camera in the grid's frame, when the image was taken.
            foreground, background, confidence: of a scene, at its size.
        """
        height, width = foreground.shape
        return lay_out(self.table(calibration, pose, (width, height)), foreground, background, confidence)
