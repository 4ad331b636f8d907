"""What it costs to drive over a cell, in the numbers of nav_msgs/OccupancyGrid."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from sfi_ros.errors import OptionError
from sfi_ros.geometry.layout import INFERRED, SEEN, GroundLayout

UNKNOWN: Final = -1
OCCUPIED: Final = 100


@dataclass(frozen=True)
class Costs:
    """What cells cost, 0 (free) to 100 (occupied), or -1 to leave them unknown.

    Attributes:
        road, sidewalk, other: of cells that are seen.
        inferred: is added where the class is inferred behind an object; the sum stays below 100 unless that of the
            class is 100 already.

    Raises:
        OptionError: a cost out of range.
    """

    road: int = 0
    sidewalk: int = 50
    other: int = 100
    inferred: int = 20

    def __post_init__(self) -> None:
        for field in fields(self):
            cost = getattr(self, field.name)
            if int(cost) != cost or not -1 <= cost <= OCCUPIED:
                raise OptionError(f"the cost of {field.name} must be a whole number from -1 to 100, not {cost}")

    def of(self, layout: GroundLayout) -> np.ndarray:
        """Return the costs of a layout's cells, int8 of the grid's shape: `data` of an OccupancyGrid, -1 unknown."""
        table = np.full((INFERRED + 1, 256), UNKNOWN, np.int8)
        for number, cost in enumerate((self.road, self.sidewalk, self.other)):
            table[SEEN, number] = cost
            table[INFERRED, number] = self._inferred(cost)
        known = np.where(layout.evidence <= INFERRED, layout.evidence, 0)
        return table[known, layout.classes]

    def _inferred(self, cost: int) -> int:
        if UNKNOWN in (cost, self.inferred):
            return UNKNOWN
        return cost if cost == OCCUPIED else min(cost + self.inferred, OCCUPIED - 1)


def occupied_now(layout: GroundLayout) -> np.ndarray:
    """Return where objects stand, int8 of the grid's shape: 100 at their feet, 0 where cells are seen, else -1."""
    occupancy = np.where(layout.evidence == SEEN, 0, UNKNOWN).astype(np.int8)
    occupancy[layout.objects != 0] = OCCUPIED
    return occupancy
