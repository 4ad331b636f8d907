"""Pedestrians and cyclists: jointed bodies of tapered limbs that walk, stand and pedal."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sfi_ros.synthetic.canvas import Canvas, Fill, Shapes, fixed_point
from sfi_ros.synthetic.layout import BICYCLE, PERSON, RIDER

_HALF_CIRCLE = np.linspace(-np.pi / 2, np.pi / 2, 6)
_CAP = np.stack([np.cos(_HALF_CIRCLE), np.sin(_HALF_CIRCLE)], axis=1)
_GAIT_STEPS = 16
_CIRCLE = np.arange(16) * (np.pi / 8)


@dataclass(frozen=True)
class Pose:
    """Tapered limbs in a body's own axes (right, up, forward), in metres for somebody 1.75 m tall."""

    ends: np.ndarray  # (2 N, 3): both ends of each limb
    radii: np.ndarray  # (N, 2)
    colours: np.ndarray  # (N, 3)
    labels: list[int]


@dataclass(frozen=True)
class Person:
    """What one person looks like. Colours are unlit RGB."""

    height: float
    build: float
    skin: np.ndarray
    hair: np.ndarray
    top: np.ndarray
    legs: np.ndarray
    shoes: np.ndarray
    coat: bool
    bag: bool
    poses: dict[tuple[int, bool, bool], Pose] = field(default_factory=dict, compare=False, repr=False)

    def pose(self, phase: float, stride: float, cycling: bool) -> Pose:
        """Return the body at a moment of its gait, of which _GAIT_STEPS are told apart and kept."""
        key = (int(phase * (_GAIT_STEPS / (2 * np.pi))) % _GAIT_STEPS, stride > 0, cycling)
        if key not in self.poses:
            angle = key[0] * (2 * np.pi / _GAIT_STEPS)
            limbs = _rider(self, angle) if cycling else _walker(self, angle, float(key[1]))
            self.poses[key] = limbs.pose()
        return self.poses[key]


def make_person(rng: np.random.Generator) -> Person:
    """Draw a person; one in eight is a child."""

    def cloth() -> np.ndarray:
        vivid = rng.uniform(20, 210, 3)
        return (vivid if rng.random() < 0.45 else np.full(3, vivid.mean()) * [1, 0.98, 0.96]) * rng.uniform(0.4, 1.0)

    child = rng.random() < 0.12
    return Person(
        height=float(rng.uniform(1.05, 1.4) if child else rng.normal(1.72, 0.08)),
        build=float(rng.uniform(0.9, 1.2)),
        skin=np.array([225.0, 180, 150]) * rng.uniform(0.4, 1.0),
        hair=np.array([[30, 24, 20], [70, 48, 30], [150, 120, 75], [150, 148, 145], [25, 25, 25]])[rng.integers(5)]
        * rng.uniform(0.7, 1.1),
        top=cloth(),
        legs=(np.array([45.0, 55, 85]) if rng.random() < 0.4 else cloth() * 0.8) * rng.uniform(0.6, 1.1),
        shoes=np.full(3, rng.choice([25.0, 60.0, 200.0])),
        coat=bool(rng.random() < 0.3),
        bag=bool(rng.random() < 0.3),
    )


class _Limbs:
    """Collects the limbs of a pose."""

    def __init__(self) -> None:
        self.ends: list[tuple[tuple[float, float, float], tuple[float, float, float]]] = []
        self.radii: list[tuple[float, float]] = []
        self.colours: list[np.ndarray] = []
        self.labels: list[int] = []

    def add(
        self,
        a: tuple[float, float, float],
        b: tuple[float, float, float],
        ra: float,
        rb: float,
        colour: np.ndarray,
        label: int,
    ) -> None:
        self.ends.append((a, b))
        self.radii.append((ra, rb))
        self.colours.append(colour)
        self.labels.append(label)

    def pose(self) -> Pose:
        ends = np.array(self.ends, dtype=float).reshape(-1, 3)
        return Pose(ends, np.array(self.radii), np.array(self.colours), self.labels)


def _walker(person: Person, phase: float, stride: float) -> _Limbs:
    """Return a walking (stride 1) or standing (stride 0) body, 1.75 m tall before scaling."""
    limbs, b = _Limbs(), person.build
    for side in (-1, 1):
        swing = stride * np.sin(phase + (np.pi if side > 0 else 0))
        lift = stride * max(0.0, np.cos(phase + (np.pi if side > 0 else 0)))
        hip = (0.09 * side, 0.88, 0.0)
        knee = (0.09 * side, 0.47 + 0.05 * lift, 0.2 * swing + 0.1 * lift)
        foot = (0.09 * side, 0.07 + 0.12 * lift, 0.36 * swing - 0.06 * lift)
        limbs.add(hip, knee, 0.095 * b, 0.065 * b, person.legs, PERSON)
        limbs.add(knee, foot, 0.065 * b, 0.045 * b, person.legs, PERSON)
        limbs.add(foot, (foot[0], foot[1] - 0.03, foot[2] + 0.14), 0.05, 0.035, person.shoes, PERSON)
        shoulder = (0.19 * side * b, 1.38, 0.0)
        elbow = (0.23 * side * b, 1.11, -0.1 * swing - 0.03)
        hand = (0.22 * side * b, 0.87, -0.22 * swing + 0.08)
        limbs.add(shoulder, elbow, 0.06 * b, 0.05 * b, person.top * 0.92, PERSON)
        limbs.add(elbow, hand, 0.05 * b, 0.04 * b, person.top * 0.92, PERSON)
        limbs.add(hand, (hand[0], hand[1] - 0.06, hand[2]), 0.038, 0.035, person.skin, PERSON)
        limbs.add((0.085 * side * b, 1.36, 0), (0.06 * side * b, 0.92, 0), 0.115 * b, 0.1 * b, person.top, PERSON)
    limbs.add((0, 1.3, 0.02), (0, 0.95, 0.02), 0.14 * b, 0.13 * b, person.top, PERSON)
    if person.coat:
        limbs.add((0, 0.95, 0), (0, 0.62, 0), 0.17 * b, 0.2 * b, person.top * 0.95, PERSON)
    if person.bag:
        limbs.add((0, 1.33, -0.17), (0, 1.05, -0.18), 0.13, 0.14, person.shoes * 0.8 + 20, PERSON)
    _head(limbs, person, (0.0, 1.45, 0.0), PERSON)
    return limbs


def _head(limbs: _Limbs, person: Person, neck: tuple[float, float, float], label: int) -> None:
    x, y, z = neck
    limbs.add(neck, (x, y + 0.08, z + 0.01), 0.055, 0.055, person.skin * 0.9, label)
    limbs.add((x, y + 0.14, z + 0.03), (x, y + 0.21, z + 0.03), 0.085, 0.095, person.skin, label)
    limbs.add((x, y + 0.19, z - 0.035), (x, y + 0.235, z - 0.01), 0.095, 0.095, person.hair, label)


def _rider(person: Person, phase: float) -> _Limbs:
    """Return a cyclist on a bicycle without its wheels, 1.75 m tall before scaling."""
    limbs, b = _Limbs(), person.build
    dark = person.shoes * 0.5 + 15
    frame = person.hair * 0.6 + [90, 20, 20] if person.coat else np.array([40.0, 45, 55])
    saddle, crank, head, rear = (0, 0.95, -0.18), (0, 0.28, -0.02), (0, 0.88, 0.4), (0, 0.34, -0.52)
    for a, c in (
        (saddle, crank),
        (crank, head),
        (saddle, head),
        (crank, rear),
        (saddle, rear),
        (head, (0, 0.34, 0.54)),
    ):
        limbs.add(a, c, 0.022, 0.022, frame, BICYCLE)
    limbs.add((-0.27, 1.02, 0.36), (0.27, 1.02, 0.36), 0.02, 0.02, dark, BICYCLE)
    limbs.add((0, 0.97, -0.28), (0, 0.99, -0.1), 0.07, 0.04, dark, BICYCLE)
    for side in (-1, 1):
        turn = phase + (np.pi if side > 0 else 0)
        foot = (0.11 * side, 0.3 + 0.16 * np.sin(turn), 0.02 + 0.16 * np.cos(turn))
        hip = (0.1 * side, 0.98, -0.15)
        knee = (0.12 * side, 0.5 * (hip[1] + foot[1]) + 0.06, 0.5 * (hip[2] + foot[2]) + 0.24)
        limbs.add(hip, knee, 0.1 * b, 0.07 * b, person.legs, RIDER)
        limbs.add(knee, foot, 0.065 * b, 0.045 * b, person.legs, RIDER)
        limbs.add(foot, (foot[0], foot[1] - 0.02, foot[2] + 0.13), 0.045, 0.035, person.shoes, RIDER)
        shoulder, hand = (0.18 * side * b, 1.44, 0.1), (0.24 * side, 1.04, 0.37)
        elbow = (0.25 * side * b, 1.2, 0.18)
        limbs.add(shoulder, elbow, 0.06 * b, 0.05 * b, person.top * 0.92, RIDER)
        limbs.add(elbow, hand, 0.05 * b, 0.04 * b, person.top * 0.92, RIDER)
        limbs.add((0.08 * side * b, 1.42, 0.08), (0.06 * side, 1.0, -0.14), 0.11 * b, 0.1 * b, person.top, RIDER)
    if person.bag:
        limbs.add((0, 1.42, -0.1), (0, 1.15, -0.26), 0.12, 0.13, dark + 20, RIDER)
    _head(limbs, person, (0.0, 1.52, 0.14), RIDER)
    return limbs


@dataclass(frozen=True)
class Figure:
    """A person somewhere: `ahead` of the camera, at (`d`, `y`), walking or riding towards `heading` (radians to the
    right)."""

    person: Person
    ahead: float
    d: float
    y: float
    heading: float
    phase: float
    stride: float
    cycling: bool
    sunlit: float

    @property
    def footprint(self) -> tuple[float, float, float, int]:
        """Half width, half length and height in metres, and how bright (0-255) the ground below stays."""
        half = (0.12, 0.75) if self.cycling else (0.17, 0.17)
        return *half, self.person.height, 130


def shape_figures(figures: list[Figure], canvas: Canvas) -> list[Shapes]:
    """Return what to paint for each figure; all of them are computed together, numpy being slow on small arrays."""
    if not figures:
        return []
    camera, light = canvas.camera, canvas.light
    poses = [figure.person.pose(figure.phase, figure.stride, figure.cycling) for figure in figures]
    sizes = [figure.person.height / 1.75 for figure in figures]
    place = np.array(
        [
            (f.ahead, f.d, f.y, np.cos(f.heading), np.sin(f.heading), k, f.sunlit)
            for f, k in zip(figures, sizes, strict=True)
        ]
    )
    counts = [len(pose.labels) for pose in poses]
    owner = np.repeat(np.arange(len(figures)), counts)
    ends = _to_axes(canvas, np.concatenate([pose.ends for pose in poses]), np.repeat(place[owner], 2, axis=0))
    pixels = camera.pixels(ends).reshape(-1, 2, 2)
    scales = camera.focal / place[:, 0] * place[:, 5]
    radii = np.maximum(np.concatenate([pose.radii for pose in poses]) * scales[owner, None], 0.35)
    along = pixels[:, 1] - pixels[:, 0]
    length = np.hypot(along[:, 0], along[:, 1])[:, None]
    along = np.where(length > 1e-3, along / np.maximum(length, 1e-3), [0.0, 1.0])
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    cap = _CAP[None, :, :1] * along[:, None] + _CAP[None, :, 1:] * across[:, None]
    rims = np.concatenate([-radii[:, :1, None] * cap, radii[:, 1:, None] * cap], axis=1)
    spines = np.repeat(pixels, cap.shape[1], axis=1)
    points = fixed_point(spines + rims)
    # The side towards the light: a smaller, brighter copy of the limb, moved there.
    lean = np.array([0.3 * np.sign(light.towards_sun[0]), -0.25]) * np.repeat(radii, cap.shape[1], axis=1)[..., None]
    inner_points = fixed_point(spines + lean + 0.6 * rims)
    lit = light.ambient + (0.15 + 0.5 * place[:, 6:]) * light.sun
    colours = canvas.hazed(np.concatenate([pose.colours for pose in poses]) * lit[owner], place[owner, :1])
    rounded = scales > 35  # near enough for a lit side to show
    bright = np.minimum(colours * 1.14, 255).tolist()
    dark = np.where(rounded[owner, None], 0.9 * colours, colours).tolist()
    depth = ends[:, 2].reshape(-1, 2).sum(axis=1)
    order = np.lexsort((-depth, owner)).tolist()
    labels = [label for pose in poses for label in pose.labels]
    shapes, first = [], 0
    for n, (figure, count) in enumerate(zip(figures, counts, strict=True)):
        fills = _wheels(canvas, place[n], lit[n]) if figure.cycling else []
        for limb in order[first : first + count]:
            fills.append((points[limb], (*dark[limb], labels[limb]), 0))
            if rounded[n]:
                fills.append((inner_points[limb], (*bright[limb], labels[limb]), 0))
        shapes.append(Shapes(figure.ahead, fills))
        first += count
    return shapes


def _to_axes(canvas: Canvas, points: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Camera coordinates of body points (N, 3), one row of (ahead, d, y, cos, sin, scale, ...) each."""
    ahead, d, y, c, s, scale = place[:, :6].T
    right, up, forward = points.T * scale
    return canvas.camera.axes(ahead - s * right + c * forward, d + c * right + s * forward, up + y)


def _wheels(canvas: Canvas, place: np.ndarray, lit: np.ndarray) -> list[Fill]:
    """Return a bicycle's wheels."""
    scale, fills = float(canvas.camera.focal / place[0] * place[5]), []
    tyre, spokes = canvas.hazed(np.array([[25.0, 25, 27], [80, 80, 82]]) * lit, float(place[0])).tolist()
    for z in (-0.52, 0.54):
        circle = np.stack([np.zeros(16), 0.34 + 0.33 * np.sin(_CIRCLE), z + 0.33 * np.cos(_CIRCLE)], axis=1)
        points = fixed_point(canvas.camera.pixels(_to_axes(canvas, circle, np.tile(place, (16, 1)))))
        if scale < 25:  # from afar the wheel is a grey disc
            fills.append((points, (*spokes, BICYCLE), 0))
        fills.append((points, (*tyre, BICYCLE), max(1, round(0.05 * scale))))
    return fills
