"""What a street is before anything is drawn: cross-section, side streets and crossings of one block that repeats.

Street coordinates everywhere: `s` metres along the street, `d` metres to the right of its centre line, `y` metres
above the road. Everything fixed to the ground repeats after LENGTH metres, so a drive never ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LENGTH = 163.84
"""Metres after which the street repeats; a multiple of every ground texel size."""

ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE = 7, 8, 11, 12, 13, 17
TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION, TERRAIN, SKY = 19, 20, 21, 22, 23
PERSON, RIDER, CAR, TRUCK, BUS, BICYCLE = 24, 25, 26, 27, 28, 33


@dataclass(frozen=True)
class Side:
    """One side of the street; all distances in metres, counted outwards from the centre line."""

    kerb: float
    parking: float
    cycle: float
    verge: float
    walk: float
    kind: str  # what stands behind the sidewalk: "urban", "suburban" or "park"

    @property
    def line(self) -> float:
        """Distance of the property line, where the sidewalk ends."""
        return self.kerb + self.verge + self.walk


@dataclass(frozen=True)
class SideStreet:
    """An opening in one side (+1 right, -1 left), centred at `s`."""

    s: float
    half_width: float
    walk: float
    side: int


@dataclass(frozen=True)
class Layout:
    """The block: lanes per direction beside an optional raised median, both sides, openings, crossings."""

    lane_width: float
    lanes: int
    median: float
    kerb_height: float
    sides: dict[int, Side]
    side_streets: tuple[SideStreet, ...]
    zebras: tuple[float, ...]
    crowd: float  # 0 empty .. 1 crowded: people
    traffic: float  # 0 empty .. 1 crowded: vehicles

    def lane_centre(self, side: int, lane: int) -> float:
        """Signed `d` of a lane's centre; lane 0 is the innermost."""
        return side * (self.median / 2 + (lane + 0.5) * self.lane_width)

    def is_open(self, s: float, side: int, margin: float) -> bool:
        """Whether `s` lies within `margin` metres of a side street's mouth or (margin > 2) of a crossing."""
        mouths = any(
            street.side == side and abs(street.s - s) < street.half_width + margin for street in self.side_streets
        )
        return mouths or (margin > 2 and any(abs(zebra - s) < margin + 2 for zebra in self.zebras))

    def blocks(self, side: int) -> list[tuple[float, float, bool]]:
        """Return the stretches of one side between its side streets: start, end, and whether a mouth precedes it."""
        start, after_mouth, blocks = 0.0, False, []
        for street in sorted((x for x in self.side_streets if x.side == side), key=lambda x: x.s):
            reach = street.half_width + street.walk
            blocks.append((start, street.s - reach, after_mouth))
            start, after_mouth = street.s + reach, True
        return [*blocks, (start, LENGTH, after_mouth)]


def make_layout(rng: np.random.Generator) -> Layout:
    """Draw one street."""
    lanes = int(rng.choice([1, 1, 1, 2]))
    lane_width = float(rng.uniform(2.9, 3.6))
    median = float(rng.uniform(1.2, 2.4)) if lanes == 2 and rng.random() < 0.5 else 0.0
    sides = {}
    for side in (-1, 1):
        parking = 2.1 if rng.random() < 0.65 else 0.0
        cycle = float(rng.uniform(1.3, 1.8)) if rng.random() < 0.3 else 0.0
        kerb = median / 2 + lanes * lane_width + cycle + parking + float(rng.uniform(0.1, 0.6))
        sides[side] = Side(
            kerb=kerb,
            parking=parking,
            cycle=cycle,
            verge=float(rng.uniform(1.0, 2.2)) if rng.random() < 0.25 else 0.0,
            walk=float(rng.uniform(1.5, 4.8)),
            kind=str(rng.choice(["urban", "urban", "suburban", "park"], p=[0.4, 0.2, 0.27, 0.13])),
        )
    streets, zebras = [], []
    for s in np.sort(rng.uniform(20, LENGTH - 20, rng.integers(1, 4))):
        if streets and s - streets[-1].s < 35:
            continue
        half_width, walk = float(rng.uniform(2.8, 4.5)), float(rng.uniform(1.3, 2.6))
        which = [(-1,), (1,), (-1, 1)][rng.integers(3)]
        streets += [SideStreet(float(s), half_width, walk, side) for side in which]
        if rng.random() < 0.6:
            zebras.append(float(s) - half_width - walk - 2.5)
    if rng.random() < 0.4:
        zebras.append(float(rng.uniform(5, 15)))
    return Layout(
        lane_width=lane_width,
        lanes=lanes,
        median=median,
        kerb_height=float(rng.uniform(0.06, 0.16)),
        sides=sides,
        side_streets=tuple(streets),
        zebras=tuple(zebras),
        crowd=float(rng.beta(1.2, 1.2)),
        traffic=float(rng.beta(1.4, 1.0)),
    )
