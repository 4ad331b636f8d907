"""Who is on the street, and where each one is at any moment: parked, driving, walking, crossing, cycling.

Positions are functions of time and of the camera's way, never of earlier frames. Moving traffic repeats every SPAN
metres around the camera, what is parked or walks repeats with the block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sfi_ros.synthetic.camera import Camera, Drive
from sfi_ros.synthetic.ground import Ground
from sfi_ros.synthetic.layout import LENGTH, ROAD, Layout
from sfi_ros.synthetic.people import Figure, Person, make_person
from sfi_ros.synthetic.vehicles import Mesh, Vehicle, make_bus, make_car, make_truck, make_van

SPAN = 150.0
BEHIND = 8.0
Placed = Vehicle | Figure


@dataclass(frozen=True)
class Moment:
    """One frame's time in seconds, metres the camera has travelled, and where it is."""

    time: float
    travelled: float
    camera: Camera


def _around(s: float, period: float) -> float:
    """`s` metres ahead, brought into the period that begins BEHIND metres behind the camera."""
    return (s + BEHIND) % period - BEHIND


class Traffic:
    """All objects of a drive."""

    def __init__(self, rng: np.random.Generator, layout: Layout, ground: Ground, drive: Drive) -> None:
        self._rng, self._layout, self._ground, self._drive = rng, layout, ground, drive
        self._actors: list[Callable[[Moment], Placed | None]] = []
        self._cars = [make_car(rng) for _ in range(9)] + [make_van(rng) for _ in range(2)]
        self._large = [make_truck(rng), make_bus(rng), make_van(rng)]
        for side in (-1, 1):
            self._park(side)
            self._populate(side)
        self._drive_lanes()
        for zebra in layout.zebras:
            for _ in range(rng.poisson(3 * layout.crowd)):
                self._cross(zebra + float(rng.uniform(-1.2, 1.2)))
        for _ in range(rng.poisson(1.5 * layout.crowd)):
            self._cross(float(rng.uniform(0, LENGTH)))

    def at(self, moment: Moment) -> list[Placed]:
        """Everything that may be seen."""
        placed = (actor(moment) for actor in self._actors)
        return [x for x in placed if x is not None]

    def _mesh(self, large: float) -> Mesh:
        pool = self._large if self._rng.random() < large else self._cars
        return pool[self._rng.integers(len(pool))]

    def _vehicle(self, mesh: Mesh, moment: Moment, ahead: float, d: float, heading: float) -> Vehicle | None:
        if not -mesh.size[2] < ahead < 125 or moment.camera.misses(ahead, d, 0.55 * mesh.size[2]):
            return None
        return Vehicle(mesh, ahead, d, 0.0, heading, self._ground.sunlight_at(moment.camera.s + ahead, d))

    def _figure(
        self,
        person: Person,
        moment: Moment,
        ahead: float,
        d: float,
        heading: float,
        phase: float,
        stride: float,
        *,
        cycling: bool = False,
    ) -> Figure | None:
        if not 1.6 < ahead < 80 or moment.camera.misses(ahead, d, 1.0):
            return None
        s = moment.camera.s + ahead
        y = 0.0 if self._ground.label_at(s, d) == ROAD else self._layout.kerb_height
        return Figure(person, ahead, d, y, heading, phase, stride, cycling, self._ground.sunlight_at(s, d))

    def _park(self, side: int) -> None:
        rng, edge = self._rng, self._layout.sides[side]
        share = rng.uniform(0.2, 1.0) if edge.parking else 0.0
        for s in np.arange(2.8, LENGTH - 2, 5.6):
            if rng.random() > share or self._layout.is_open(s, side, 4.5):
                continue
            mesh = self._mesh(0.04)
            while mesh.size[2] > 6.2:
                mesh = self._mesh(0.0)
            turned = np.pi if (rng.random() < 0.1) != (side < 0) else 0.0
            heading = turned + float(rng.normal(0, 0.015))
            s_here = float(s + rng.uniform(-0.3, 0.3)) if mesh.size[2] < 5 else float(s)
            d = side * (edge.kerb - 0.2 - mesh.size[0] / 2 - float(rng.uniform(0, 0.15)))

            def parked(
                moment: Moment, s: float = s_here, d: float = d, heading: float = heading, mesh: Mesh = mesh
            ) -> Placed | None:
                return self._vehicle(mesh, moment, _around(s - moment.camera.s, LENGTH), d, heading)

            self._actors.append(parked)
        for street in self._layout.side_streets:
            if street.side == side and rng.random() < 0.4 + 0.5 * self._layout.traffic:
                mesh, out = self._mesh(0.1), float(rng.uniform(4, 9))
                d, heading = side * (edge.line + out), -side * np.pi / 2
                s_here = street.s + side * street.half_width * 0.45

                def waiting(
                    moment: Moment, s: float = s_here, d: float = d, heading: float = heading, mesh: Mesh = mesh
                ) -> Placed | None:
                    return self._vehicle(mesh, moment, _around(s - moment.camera.s, LENGTH), d, heading)

                self._actors.append(waiting)

    def _drive_lanes(self) -> None:
        rng, layout, drive = self._rng, self._layout, self._drive
        for side in (-1, 1):
            for lane in range(layout.lanes):
                d = layout.lane_centre(side, lane)
                if side > 0 and lane == drive.lane:
                    self._lead(d)
                    continue
                speed = side * drive.speed * float(rng.uniform(0.6, 1.3))
                gap = 9 + 60 * (1 - layout.traffic) ** 1.5
                s = float(rng.uniform(0, gap))
                while s < SPAN - 6:
                    mesh = self._mesh(0.13)
                    self._actors.append(self._driving(mesh, s, speed, d + float(rng.normal(0, 0.12))))
                    s += mesh.size[2] + gap * float(rng.uniform(0.5, 1.6))
        for side in (-1, 1):
            edge = layout.sides[side]
            d = side * (layout.median / 2 + layout.lanes * layout.lane_width + (0.8 if edge.cycle else -0.45))
            if side * drive.lane == layout.lanes - 1 and not edge.cycle:
                d += 0.25
            speed = side * float(rng.uniform(3.0, 6.0))
            for s in rng.uniform(0, SPAN, rng.poisson((1.5 + 4 * bool(edge.cycle)) * layout.crowd)):
                self._actors.append(self._cyclist(float(s), speed, d + float(rng.normal(0, 0.1))))

    def _driving(self, mesh: Mesh, s: float, speed: float, d: float) -> Callable[[Moment], Placed | None]:
        def driving(moment: Moment) -> Placed | None:
            ahead = _around(s + speed * moment.time - moment.travelled, SPAN)
            return self._vehicle(mesh, moment, ahead, d, 0.0 if speed > 0 else np.pi)

        return driving

    def _lead(self, d: float) -> None:
        """Whoever drives before the camera keeps a distance that breathes."""
        rng = self._rng
        if rng.random() > 0.35 + 0.55 * self._layout.traffic:
            return
        distance = 0.0
        for n in range(int(rng.integers(1, 4))):
            mesh = self._mesh(0.2)
            distance += mesh.size[2] / 2 + float(rng.uniform(5.0, 24.0) if n == 0 else rng.uniform(3, 14))
            centre, breath, pace = distance, float(rng.uniform(0.5, 2.5)), float(rng.uniform(0.15, 0.5))
            phase, place = float(rng.uniform(0, 6)), d + float(rng.normal(0, 0.15))
            distance += mesh.size[2] / 2 + breath

            def leading(
                moment: Moment,
                mesh: Mesh = mesh,
                centre: float = centre,
                breath: float = breath,
                pace: float = pace,
                phase: float = phase,
                d: float = place,
            ) -> Placed | None:
                return self._vehicle(mesh, moment, centre + breath * np.sin(pace * moment.time + phase), d, 0.0)

            self._actors.append(leading)

    def _cyclist(self, s: float, speed: float, d: float) -> Callable[[Moment], Placed | None]:
        person, rhythm = make_person(self._rng), float(self._rng.uniform(4, 7))

        def cycling(moment: Moment) -> Placed | None:
            ahead = _around(s + speed * moment.time - moment.travelled, SPAN)
            return self._figure(
                person, moment, ahead, d, 0.0 if speed > 0 else np.pi, rhythm * moment.time + s, 0.0, cycling=True
            )

        return cycling

    def _populate(self, side: int) -> None:
        """Pedestrians on a sidewalk, alone or side by side."""
        rng, edge = self._rng, self._layout.sides[side]
        inner, outer = edge.kerb + edge.verge + 0.6, edge.line - 0.35
        for _ in range(rng.poisson(22 * self._layout.crowd)):
            s, d = float(rng.uniform(0, LENGTH)), float(rng.uniform(inner, max(outer, inner + 0.1)))
            standing = rng.random() < 0.2
            speed = 0.0 if standing else float(rng.choice([-1, 1]) * rng.uniform(0.9, 1.7))
            heading = float(rng.uniform(0, 2 * np.pi)) if standing else (0.0 if speed > 0 else np.pi)
            for n in range(int(rng.choice([1, 1, 1, 2, 3]))):
                beside = float(np.clip(d + 0.65 * n, inner, max(outer, inner + 0.1)))
                self._actors.append(
                    self._walking(
                        s + float(rng.normal(0, 0.35)) + (0.5 * n if beside < d + 0.6 * n else 0),
                        side * beside,
                        speed,
                        heading,
                    )
                )

    def _walking(self, s: float, d: float, speed: float, heading: float) -> Callable[[Moment], Placed | None]:
        person, phase = make_person(self._rng), float(self._rng.uniform(0, 6))
        rhythm = abs(speed) * 4.3 * 1.7 / person.height

        def walking(moment: Moment) -> Placed | None:
            ahead = _around(s + speed * moment.time - moment.camera.s, LENGTH)
            return self._figure(person, moment, ahead, d, heading, phase + rhythm * moment.time, min(1.0, abs(speed)))

        return walking

    def _cross(self, s: float) -> None:
        """Somebody crosses while the camera approaches, and is across before it arrives."""
        rng, layout = self._rng, self._layout
        person, direction = make_person(rng), float(rng.choice([-1, 1]))
        start = -(layout.sides[-1].kerb + 1.2) if direction > 0 else layout.sides[1].kerb + 1.2
        width = layout.sides[-1].kerb + layout.sides[1].kerb + 2.4
        clear = float(rng.uniform(4, 14))
        begin = clear + width * max(self._drive.speed, 4.0) / float(rng.uniform(1.2, 1.9))

        def crossing(moment: Moment) -> Placed | None:
            ahead = _around(s - moment.camera.s, LENGTH)
            done = (begin - ahead) / (begin - clear)
            if done > 1.0 or done < 0.0:
                edge_d = start + direction * width * float(np.clip(done, 0, 1))
                return self._figure(person, moment, ahead, edge_d, direction * np.pi / 2, 0.0, 0.0)
            d = start + direction * width * done
            return self._figure(person, moment, ahead, d, direction * np.pi / 2, width * done * 4.3, 1.0)

        self._actors.append(crossing)
