"""Cars, vans, trucks and buses: lofted bodies with windows, lights and wheels, shaded by face."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sfi_ros.synthetic.camera import NEAR
from sfi_ros.synthetic.canvas import Canvas, Shapes, cut_near, fixed_point
from sfi_ros.synthetic.layout import BUS, CAR, TRUCK

_TYRE, _RIM = np.array([22.0, 22, 24]), np.array([130.0, 130, 132])
_PAINTS = [
    (28, 29, 32), (60, 62, 66), (120, 124, 128), (168, 172, 176), (215, 216, 214), (235, 235, 232), (30, 45, 95),
    (45, 75, 130), (130, 22, 24), (165, 32, 30), (38, 70, 50), (150, 120, 80), (190, 150, 40), (85, 60, 48),
    (70, 120, 140),
]  # fmt: skip


@dataclass(frozen=True)
class Mesh:
    """Faces of one vehicle in its own axes: right, up, forward; painted in the order given if they face the camera."""

    vertices: np.ndarray
    faces: tuple[slice, ...]  # of vertices
    centres: np.ndarray
    normals: np.ndarray
    colours: np.ndarray
    fine: np.ndarray  # faces too small to matter from far away
    size: tuple[float, float, float]  # width, height, length
    label: int


class _Builder:
    """Collects faces; normals point away from the inside of the part that is being built."""

    def __init__(self) -> None:
        self._points: list[np.ndarray] = []
        self._rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, bool]] = []
        self.inside = np.zeros(3)

    def face(self, points: np.ndarray, colour: np.ndarray, *, fine: bool = False) -> np.ndarray:
        points = np.asarray(points, dtype=float)
        centre = points.mean(axis=0)
        normal = np.cross(points[1] - points[0], points[2] - points[0])
        normal /= max(float(np.linalg.norm(normal)), 1e-9)
        if normal @ (centre - self.inside) < 0:
            normal = -normal
        self._points.append(points)
        self._rows.append((centre, normal, np.asarray(colour, dtype=float), fine))
        return points

    def inset(self, quad: np.ndarray, x: tuple[float, float], y: tuple[float, float], colour: np.ndarray) -> None:
        """Return a detail on a quad (bottom a, bottom b, top b, top a), between fractions `x` along and `y` up."""
        a, b, c, d = quad
        at = [(1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c) for u, v in
              ((x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]))]  # fmt: skip
        self.face(np.array(at), colour, fine=True)

    def loft(
        self, stations: list[tuple[float, float, float, float, float]], colour: np.ndarray
    ) -> dict[str, list[np.ndarray]]:
        """Return the quads of a closed body by where they face, each as bottom a, bottom b, top b, top a.

        It runs through cross-sections (forward, bottom, top, half width below, half width above), rear first.
        """
        rings = [
            np.array([[-low, bottom, z], [low, bottom, z], [high, top, z], [-high, top, z]])
            for z, bottom, top, low, high in stations
        ]
        self.inside = np.mean([ring.mean(axis=0) for ring in rings], axis=0)
        quads: dict[str, list[np.ndarray]] = {"left": [], "right": [], "top": [], "rear": [], "front": []}
        for a, b in pairwise(rings):
            quads["top"].append(self.face(np.array([a[3], a[2], b[2], b[3]]), colour))
            quads["left"].append(self.face(np.array([a[0], b[0], b[3], a[3]]), colour))
            quads["right"].append(self.face(np.array([a[1], b[1], b[2], a[2]]), colour))
        quads["rear"].append(self.face(rings[0], colour))
        quads["front"].append(self.face(rings[-1], colour))
        return quads

    def wheels(self, z: float, radius: float, half: float) -> None:
        """Return the treads of one axle; the discs come last, by `discs`."""
        for x in (-half + 0.1, half - 0.1):
            self.inside = np.array([x, radius, z])
            for end in (-1, 1):
                tread = [
                    (x + dx, y, z + end * radius * 0.75)
                    for dx, y in ((-0.1, 0), (0.1, 0), (0.1, radius), (-0.1, radius))
                ]
                self.face(np.array(tread), _TYRE)

    def discs(self, z: float, radius: float, half: float) -> None:
        angles = np.arange(12) * (np.pi / 6)
        for x in (-half, half):
            self.inside = np.array([0.0, radius, z])
            for size, colour, fine in ((1.0, _TYRE, False), (0.62, _RIM, True)):
                circle = [np.full(12, x), radius + size * radius * np.sin(angles), z + size * radius * np.cos(angles)]
                self.face(np.stack(circle, axis=1), colour, fine=fine)

    def mesh(self, size: tuple[float, float, float], label: int) -> Mesh:
        starts = np.cumsum([0, *(len(points) for points in self._points)])
        centres, normals, colours, fine = zip(*self._rows, strict=True)
        return Mesh(
            vertices=np.concatenate(self._points),
            faces=tuple(slice(a, b) for a, b in pairwise(starts.tolist())),
            centres=np.array(centres),
            normals=np.array(normals),
            colours=np.array(colours),
            fine=np.array(fine),
            size=size,
            label=label,
        )


def make_car(rng: np.random.Generator) -> Mesh:
    """Return a saloon, hatchback, estate or sports utility."""
    build, paint = _Builder(), np.array(_PAINTS[rng.integers(len(_PAINTS))]) * rng.uniform(0.85, 1.15)
    kind = rng.choice(["saloon", "hatchback", "estate", "suv"], p=[0.28, 0.34, 0.18, 0.2])
    length = {"saloon": 4.6, "hatchback": 3.9, "estate": 4.6, "suv": 4.4}[str(kind)] * rng.uniform(0.95, 1.06)
    lift = 0.16 if kind == "suv" else 0.0
    half, belt, roof = rng.uniform(0.84, 0.92), rng.uniform(0.88, 0.96) + lift, rng.uniform(1.4, 1.5) + 1.5 * lift
    rear, front, sill, wheel = -length / 2, length / 2, 0.24 + lift, 0.31 + 0.3 * lift
    axles = (rear + 0.2 * length, front - 0.19 * length)
    for axle in axles:
        build.wheels(axle, wheel, half)
    body = build.loft(
        [
            (rear, sill + 0.02, belt - 0.12, half - 0.1, half - 0.14),
            (rear + 0.18, sill, belt, half - 0.02, half - 0.02),
            (front - 0.34 * length, sill, belt, half, half - 0.03),
            (front - 0.28, sill, belt - 0.16, half - 0.02, half - 0.08),
            (front, sill, belt - 0.3, half - 0.14, half - 0.18),
        ],
        paint,
    )
    dark, glass = np.array([34.0, 35, 37]), rng.uniform(28, 95) * np.array([0.92, 1.0, 1.06])
    red, lamp, plate = np.array([150.0, 14, 16]), np.array([225.0, 225, 215]), np.array([225.0, 222, 205])
    for end, light in (("rear", red), ("front", lamp)):
        build.inside = np.array([0.0, 0.6, 0.0])
        quad = body[end][0]
        build.inset(quad, (0.0, 1.0), (0.0, 0.22), dark if rng.random() < 0.6 else paint * 0.8)
        build.inset(quad, (0.0, 0.24), (0.58, 0.95), light)
        build.inset(quad, (0.76, 1.0), (0.58, 0.95), light)
        build.inset(quad, (0.36, 0.64), (0.3, 0.52), plate)
        if end == "front":
            build.inset(quad, (0.27, 0.73), (0.6, 0.9), dark)
    for side in ("left", "right"):
        build.inset(body[side][1], (0.0, 1.0), (0.0, 0.14), dark)
        for x in (0.42, 0.97):
            build.inset(body[side][1], (x - 0.006, x), (0.15, 0.98), paint * 0.55)
    back = {"saloon": rear + 0.19 * length, "hatchback": rear + 0.1, "estate": rear + 0.1, "suv": rear + 0.1}[str(kind)]
    windscreen = front - 0.27 * length
    slope_rear = {"saloon": 0.16, "hatchback": 0.1, "estate": 0.06, "suv": 0.06}[str(kind)] * length
    top_half = half - rng.uniform(0.17, 0.24)
    cabin = build.loft(
        [
            (back, belt - 0.02, belt, half - 0.06, half - 0.06),
            (back + slope_rear, belt - 0.02, roof - 0.02, half - 0.06, top_half),
            (windscreen - 0.17 * length, belt - 0.02, roof, half - 0.06, top_half),
            (windscreen, belt - 0.02, belt, half - 0.06, half - 0.08),
        ],
        paint,
    )
    build.inside = np.array([0.0, belt, 0.0])
    build.inset(cabin["top"][0], (0.09, 0.91), (0.1, 0.93), glass)
    build.inset(cabin["top"][2], (0.06, 0.94), (0.06, 0.97), glass)
    for side in ("left", "right"):
        rear_glass, main, front_glass = cabin[side]
        build.inset(main, (0.02, 0.46), (0.14, 0.88), glass)
        build.inset(main, (0.53, 1.0), (0.14, 0.88), glass)
        a, b, c, _ = front_glass
        build.face(
            np.array([a + 0.12 * (c - a), b + 0.16 * (a - b) + 0.1 * (c - b), a + 0.86 * (_ - a)]), glass, fine=True
        )
        a, b, c, d = rear_glass
        if slope_rear > 0.3:
            build.face(
                np.array([b + 0.12 * (c - b), a + 0.3 * (b - a) + 0.1 * (d - a), b + 0.84 * (c - b)]), glass, fine=True
            )
    for axle in axles:
        build.discs(axle, wheel, half)
    return build.mesh((2 * half, roof, length), CAR)


def make_van(rng: np.random.Generator) -> Mesh:
    """Return a delivery van or minibus; Cityscapes calls it a car."""
    build = _Builder()
    paint = np.array(_PAINTS[rng.choice([2, 3, 4, 5, 5, 5, 7, 12])]) * rng.uniform(0.85, 1.1)
    length, half, roof = rng.uniform(4.7, 6.0), rng.uniform(0.94, 1.02), rng.uniform(1.95, 2.6)
    rear, front, belt = -length / 2, length / 2, 1.15
    axles = (rear + 0.21 * length, front - 0.9)
    for axle in axles:
        build.wheels(axle, 0.35, half)
    build.loft(
        [
            (front - 1.2, 0.3, belt, half, half),
            (front - 0.25, 0.3, belt - 0.1, half, half - 0.06),
            (front, 0.38, belt - 0.3, half - 0.12, half - 0.16),
        ],
        paint,
    )
    body = build.loft(
        [
            (rear, 0.3, roof - 0.05, half - 0.02, half - 0.08),
            (front - 1.75, 0.3, roof, half, half - 0.07),
            (front - 0.9, 0.3, belt, half, half - 0.04),
        ],
        paint,
    )
    dark, glass = np.array([34.0, 35, 37]), rng.uniform(28, 95) * np.array([0.92, 1.0, 1.06])
    build.inset(body["top"][1], (0.06, 0.94), (0.05, 0.95), glass)
    build.inset(body["rear"][0], (0.49, 0.51), (0.1, 0.95), paint * 0.55)
    build.inset(body["rear"][0], (0.0, 1.0), (0.0, 0.08), dark)
    for x in ((0.02, 0.12), (0.88, 0.98)):
        build.inset(body["rear"][0], x, (0.22, 0.42), np.array([150.0, 14, 16]))
    build.inset(body["rear"][0], (0.38, 0.62), (0.12, 0.18), np.array([225.0, 222, 205]))
    windows = rng.random() < 0.5
    if windows:
        for x in ((0.08, 0.46), (0.54, 0.92)):
            build.inset(body["rear"][0], x, (0.55, 0.88), glass)
    for side in ("left", "right"):
        panel = body[side][0]
        build.inset(panel, (0.0, 1.0), (0.0, 0.08), dark)
        build.inset(panel, (0.55, 0.56), (0.1, 0.95), paint * 0.6)
        if windows:
            build.inset(panel, (0.05, 0.5), (0.55, 0.88), glass)
        build.inset(panel, (0.6, 0.98), (0.55, 0.88), glass)
    for axle in axles:
        build.discs(axle, 0.35, half)
    return build.mesh((2 * half, roof, length), CAR)


def make_truck(rng: np.random.Generator) -> Mesh:
    """Return a cab with a box body."""
    build = _Builder()
    paint, cargo = (
        np.array(_PAINTS[rng.integers(4, 15)]),
        np.array(_PAINTS[rng.choice([3, 4, 5, 5, 7, 9, 12])]) * rng.uniform(0.8, 1.1),
    )
    length, half, height = rng.uniform(6.0, 9.0), rng.uniform(1.1, 1.25), rng.uniform(2.9, 3.6)
    rear, front = -length / 2, length / 2
    axles = (rear + 0.22 * length, front - 1.1)
    for axle in axles:
        build.wheels(axle, 0.46, half)
    cab = build.loft(
        [
            (front - 2.0, 0.5, 2.5, half - 0.06, half - 0.08),
            (front - 0.1, 0.5, 2.4, half - 0.06, half - 0.12),
            (front, 0.55, 1.4, half - 0.08, half - 0.1),
        ],
        paint,
    )
    glass, dark = np.array([38.0, 43, 48]), np.array([40.0, 40, 42])
    build.inset(cab["top"][1], (0.06, 0.94), (0.05, 0.95), glass)
    build.inset(cab["front"][0], (0.15, 0.85), (0.2, 0.7), dark)
    for side in ("left", "right"):
        build.inset(cab[side][0], (0.35, 0.95), (0.52, 0.88), glass)
    box = build.loft([(rear, 0.85, height, half, half), (front - 2.1, 0.85, height, half, half)], cargo)
    build.inset(box["rear"][0], (0.49, 0.51), (0.03, 0.97), cargo * 0.6)
    stripe = rng.uniform(30, 220, 3)
    for side in ("left", "right"):
        if rng.random() < 0.6:
            build.inset(box[side][0], (0.1, 0.9), (0.4, 0.7), stripe)
    build.loft([(rear, 0.5, 0.85, half - 0.1, half - 0.1), (front - 2.0, 0.5, 0.85, half - 0.1, half - 0.1)], dark)
    build.inside = np.array([0.0, 0.7, 0.0])
    bar = np.array(
        [[-half, 0.5, rear - 0.02], [half, 0.5, rear - 0.02], [half, 0.85, rear - 0.02], [-half, 0.85, rear - 0.02]]
    )
    build.inset(bar, (0.02, 0.16), (0.2, 0.8), np.array([150.0, 14, 16]))
    build.inset(bar, (0.84, 0.98), (0.2, 0.8), np.array([150.0, 14, 16]))
    for axle in axles:
        build.discs(axle, 0.46, half)
    return build.mesh((2 * half, height, length), TRUCK)


def make_bus(rng: np.random.Generator) -> Mesh:
    """Return a city bus."""
    build = _Builder()
    paint = np.array([[215, 180, 40], [170, 30, 32], [225, 225, 222], [40, 80, 140], [60, 130, 80]])[
        rng.integers(5)
    ] * rng.uniform(0.85, 1.05)
    length, half, height = rng.uniform(9, 12), 1.26, rng.uniform(2.9, 3.2)
    rear, front = -length / 2, length / 2
    axles = (rear + 2.9, front - 2.6)
    for axle in axles:
        build.wheels(axle, 0.48, half)
    body = build.loft(
        [
            (rear, 0.35, height, half, half - 0.05),
            (front - 0.2, 0.35, height, half, half - 0.05),
            (front, 0.4, height - 0.1, half - 0.04, half - 0.12),
        ],
        paint,
    )
    glass, dark = np.array([38.0, 43, 48]), np.array([40.0, 40, 42])
    build.inset(body["front"][0], (0.04, 0.96), (0.3, 0.84), glass)
    build.inset(body["front"][0], (0.2, 0.8), (0.87, 0.96), np.array([60.0, 50, 20]))
    build.inset(body["rear"][0], (0.1, 0.9), (0.55, 0.88), glass)
    build.inset(body["rear"][0], (0.15, 0.85), (0.08, 0.32), dark)
    for x in ((0.02, 0.1), (0.9, 0.98)):
        build.inset(body["rear"][0], x, (0.2, 0.42), np.array([150.0, 14, 16]))
        build.inset(body["front"][0], x, (0.1, 0.2), np.array([225.0, 225, 215]))
    for side in ("left", "right"):
        for x in np.linspace(0.02, 0.98, 8)[:-1]:
            build.inset(body[side][0], (x, x + 0.125), (0.42, 0.86), glass)
        build.inset(body[side][0], (0.0, 1.0), (0.0, 0.1), dark)
    for axle in axles:
        build.discs(axle, 0.48, half)
    return build.mesh((2 * half, height, length), BUS)


@dataclass(frozen=True)
class Vehicle:
    """A mesh somewhere: `ahead` of the camera, at `d`, heading 0 along the street (radians to the right)."""

    mesh: Mesh
    ahead: float
    d: float
    y: float
    heading: float
    sunlit: float

    @property
    def footprint(self) -> tuple[float, float, float, int]:
        """Half width, half length and height in metres, and how bright (0-255) the ground below stays."""
        width, height, length = self.mesh.size
        return 0.5 * width, 0.5 * length, 0.85 * height, 70


def shape_vehicles(vehicles: list[Vehicle], canvas: Canvas) -> list[Shapes]:
    """Return what to paint for each vehicle; all of them are computed together, numpy being slow on small arrays."""
    if not vehicles:
        return []
    camera, meshes = canvas.camera, [vehicle.mesh for vehicle in vehicles]
    place = np.array([(v.ahead, v.d, v.y, np.cos(v.heading), np.sin(v.heading), v.sunlit) for v in vehicles])
    corners, faces = [len(mesh.vertices) for mesh in meshes], [len(mesh.faces) for mesh in meshes]
    ahead, d, y, c, s, _ = np.repeat(place, corners, axis=0).T
    right, up, forward = np.concatenate([mesh.vertices for mesh in meshes]).T
    axes = camera.axes(ahead - s * right + c * forward, d + c * right + s * forward, up + y)
    depth = axes[:, 2]
    points = fixed_point(camera.pixels(np.maximum(axes, [-np.inf, -np.inf, NEAR])))

    ahead, d, y, c, s, sunlit = np.repeat(place, faces, axis=0).T
    normals = np.concatenate([mesh.normals for mesh in meshes])
    centres = np.concatenate([mesh.centres for mesh in meshes])
    right, forward = camera.d - d - 0.5 * camera.bend * ahead**2, -ahead
    eye = np.stack(
        [c * right + s * forward, camera.y - y - 0.5 * camera.climb * ahead**2, c * forward - s * right], axis=1
    )
    visible = ((eye - centres) * normals).sum(axis=1) > 0
    heights = np.repeat([mesh.size[1] for mesh in meshes], faces)
    visible &= ~(np.concatenate([mesh.fine for mesh in meshes]) & (camera.focal * heights < 14 * ahead))
    turned = np.stack(
        [c * normals[:, 0] + s * normals[:, 2], normals[:, 1], c * normals[:, 2] - s * normals[:, 0]], axis=1
    )
    sheen = canvas.light.gloss * np.maximum(normals[:, 1:2], 0)  # roofs and bonnets mirror the sky
    lit = np.concatenate([mesh.colours for mesh in meshes]) * canvas.light.shade(turned, sunlit) + sheen
    colours = canvas.hazed(lit, ahead[:, None])

    shapes, vertex, first = [], 0, 0
    for vehicle, count in zip(vehicles, faces, strict=True):
        mesh, fills = vehicle.mesh, []
        whole = depth[vertex : vertex + len(mesh.vertices)].min() >= NEAR
        seen = np.flatnonzero(visible[first : first + count])
        for n, colour in zip(seen.tolist(), colours[first + seen].tolist(), strict=True):
            face = slice(vertex + mesh.faces[n].start, vertex + mesh.faces[n].stop)
            outline = points[face]
            if not whole:
                part = cut_near(axes[face])
                if not len(part):
                    continue
                outline = fixed_point(camera.pixels(part))
            fills.append((outline, (*colour, mesh.label), 0))
        shapes.append(Shapes(vehicle.ahead, fills))
        vertex, first = vertex + len(mesh.vertices), first + count
    return shapes
