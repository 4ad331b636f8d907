"""Everything fixed that rises from the ground: buildings, hedges, fences, walls, trees, poles and signs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfi_ros.synthetic.camera import NEAR, Camera
from sfi_ros.synthetic.canvas import Canvas, Texture, fixed_point
from sfi_ros.synthetic.layout import (
    BUILDING,
    FENCE,
    LENGTH,
    POLE,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    VEGETATION,
    WALL,
    Layout,
)
from sfi_ros.synthetic.light import Light
from sfi_ros.synthetic.pictures import TEXELS, crown, facade, surface

_VISIBLE = 130.0  # metres; less than LENGTH, so that nothing is seen twice


@dataclass
class Panel:
    """A textured quad. `corners` (4, 3) are (s, d, y): bottom start, bottom end, top end, top start."""

    corners: np.ndarray
    texture: Texture
    s: float  # decides the painting order: the farthest point

    @property
    def points(self) -> np.ndarray:
        """What must be projected before it can be drawn: (N, 3) of (s, d, y)."""
        return self.corners

    def draw(self, canvas: Canvas, axes: np.ndarray, pixels: np.ndarray) -> None:
        """Paint it; `axes` (N, 3) and `pixels` (N, 2) are its projected points."""
        canvas.textured(axes, pixels, self.texture)


@dataclass
class Tree:
    """Crown and trunk; `levels` are the crown's pictures."""

    s: float
    d: float
    height: float
    spread: float
    trunk: float
    levels: list[np.ndarray]
    bark: np.ndarray

    @property
    def points(self) -> np.ndarray:
        """Foot, fork, tip, and the crown's left and right: (N, 3) of (s, d, y)."""
        half, fork = 0.5 * self.spread, self.trunk + 0.6
        across = np.array([self.d, self.d, self.d, self.d - half, self.d + half])
        up = np.array([0.0, fork, self.height, fork, fork])
        return np.stack([np.full(5, self.s), across, up], axis=1)

    def draw(self, canvas: Canvas, axes: np.ndarray, pixels: np.ndarray) -> None:
        """Paint it; `axes` (N, 3) and `pixels` (N, 2) are its projected points."""
        distance = float(axes[0, 2])
        if distance < 1.5:
            return
        (x, y), fork, tip, left, right = pixels.tolist()
        size = canvas.camera.focal / distance
        thick = 0.13 * size
        if self.trunk > 0.3:
            stem = [(x - thick, y), (x + thick, y), (fork[0] + 0.6 * thick, fork[1]), (fork[0] - 0.6 * thick, fork[1])]
            colour = canvas.hazed(self.bark, distance)
            canvas.fill(fixed_point(np.array(stem)), colour.tolist(), VEGETATION)
        low = fork[1] + (0.6 + min(self.trunk, 0.3)) * size
        canvas.sprite(self.levels, (left[0], tip[1], right[0], low), distance, VEGETATION)


@dataclass
class Post:
    """Flat convex shapes across the street: a pole with what hangs on it, a gable.

    `parts`: outline (N, 2) of (right, up) in metres, colour, label id.
    """

    s: float
    d: float
    parts: list[tuple[np.ndarray, np.ndarray, int]]

    @property
    def points(self) -> np.ndarray:
        """All outlines one after the other: (N, 3) of (s, d, y)."""
        flat = np.concatenate([outline for outline, _, _ in self.parts])
        return np.stack([np.full(len(flat), self.s), self.d + flat[:, 0], flat[:, 1]], axis=1)

    def draw(self, canvas: Canvas, axes: np.ndarray, pixels: np.ndarray) -> None:
        """Paint it; `axes` (N, 3) and `pixels` (N, 2) are its projected points."""
        if axes[:, 2].min() < NEAR:
            return
        colours = canvas.hazed(np.array([colour for _, colour, _ in self.parts]), float(axes[0, 2])).tolist()
        points, start = fixed_point(pixels), 0
        for (outline, _, label), colour in zip(self.parts, colours, strict=True):
            end = start + len(outline)
            canvas.fill(points[start:end], colour, label)
            start = end


def _disc(x: float, y: float, radius: float, corners: int = 12) -> np.ndarray:
    angles = np.arange(corners) * (2 * np.pi / corners) + np.pi / corners + (np.pi / 2 if corners == 3 else 0)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


class Scenery:
    """All fixed things of a block, their shadows, and the sky behind."""

    def __init__(self, rng: np.random.Generator, layout: Layout, light: Light) -> None:
        self.things: list[Panel | Tree | Post] = []
        self.shadows: list[np.ndarray] = []
        self._rng, self._layout, self._light = rng, layout, light
        self._crowns = [crown(rng, light, bool(rng.random() < 0.8)) for _ in range(3)]
        self._grey = rng.uniform(45, 150) * np.ones(3)
        for side in (-1, 1):
            for start, end, after_mouth in layout.blocks(side):
                self._fill_block(side, start, end, after_mouth)
            self._furnish(side)
        if layout.median > 1.4:
            for s in np.arange(rng.uniform(0, 20), LENGTH, rng.uniform(12, 40)):
                if not layout.is_open(s, 1, 4) and not layout.is_open(s, -1, 4):
                    self._tree(float(s), 0.0, rng.uniform(4, 7))
        points = [thing.points for thing in self.things]
        self._points = np.concatenate(points)
        self._starts = np.cumsum([0, *(len(x) for x in points)])
        self._counts = np.diff(self._starts)
        self._order = np.array([thing.s for thing in self.things])

    def view(self, camera: Camera) -> list[tuple[float, Panel | Tree | Post, np.ndarray, np.ndarray]]:
        """Return what may be in the picture, farthest first.

        For each thing: metres ahead, the thing, and its points in camera coordinates and in pixels, projected at once.
        """
        ahead = (self._order - camera.s) % LENGTH
        shift = np.repeat(ahead - self._order, self._counts)
        axes = camera.axes(self._points[:, 0] + shift, self._points[:, 1], self._points[:, 2])
        depth = axes[:, 2]
        pixels = axes[:, :2] * (camera.focal / np.maximum(depth, 0.1))[:, None] + camera.matrix[:2, 2]
        starts = self._starts[:-1]
        left, right = (f.reduceat(pixels[:, 0], starts) for f in (np.minimum, np.maximum))
        whole = np.minimum.reduceat(depth, starts) > NEAR
        inside = (left < camera.width) & (right > 0) & (np.minimum.reduceat(pixels[:, 1], starts) < camera.height)
        visible = (ahead < _VISIBLE) & (np.maximum.reduceat(depth, starts) > NEAR) & (inside | ~whole)
        chosen = np.flatnonzero(visible)
        chosen = chosen[np.argsort(-ahead[chosen], kind="stable")]
        spans = [(n, slice(self._starts[n], self._starts[n + 1])) for n in chosen.tolist()]
        return [(float(ahead[n]), self.things[n], axes[span], pixels[span]) for n, span in spans]

    def _lit(self, picture: np.ndarray, normal: tuple[float, float, float], label: int) -> Texture:
        shade = self._light.shade(np.array([normal]), 1.0)[0]
        return Texture(np.clip(picture * shade, 0, 255).astype(np.uint8), label)

    def _panel(self, corners: list[tuple[float, float, float]], texture: Texture) -> None:
        corners_array = np.array(corners)
        s0, s1 = float(corners_array[:, 0].min()), float(corners_array[:, 0].max())
        # An end wall is hidden by the front that ends where it stands, so it is painted a little earlier.
        self.things.append(Panel(corners_array, texture, s1 + 0.05 if s1 == s0 else s1))

    def _shadow(self, points: list[tuple[float, float]], height: float) -> None:
        base = np.array(points, dtype=float)
        if self._light.casts_shadows:
            self.shadows.append(np.concatenate([base, base + self._light.shadow_of(height)]))

    def _fill_block(self, side: int, start: float, end: float, after_mouth: bool) -> None:
        rng, edge = self._rng, self._layout.sides[side]
        s, hidden = start, 0.0  # height up to which the building before hides the next one's end wall
        if edge.kind == "urban":
            while end - s > 5:
                width = min(rng.uniform(8, 19), end - s)
                if end - s - width < 6:
                    width = end - s
                if rng.random() < 0.1 and s > start and s + width < end:
                    self._fence(side, s, s + width, edge.line + 0.1)
                    self._tree(s + width / 2, side * (edge.line + rng.uniform(2.5, 5)), rng.uniform(5, 10))
                    hidden = 0.0
                else:
                    deep, height = 45.0 if after_mouth and s == start else 11.0, rng.uniform(6.5, 21)
                    self._building(side, s, s + width, edge.line, height, deep, hidden=hidden, pitched=False)
                    hidden = height
                s += width
            return
        first = s
        while first < end:
            last = min(first + rng.uniform(8, 25), end)
            if rng.random() < (0.85 if edge.kind == "suburban" else 0.4):
                self._fence(side, first, last, edge.line + 0.1)
            first = last
        if edge.kind == "suburban":
            s += rng.uniform(1, 3)
            while end - s > 7:
                width = min(rng.uniform(8, 13), end - s)
                setback = edge.line + rng.uniform(2.5, 6)
                self._building(side, s, s + width, setback, rng.uniform(3, 6.5), 9.0, pitched=True)
                s += width
                if rng.random() < 0.8 and s + 3 < end:
                    self._tree(s + 1.5, side * (edge.line + rng.uniform(1.5, 4)), rng.uniform(4, 9))
                s += rng.uniform(2.5, 7)
            return
        spacing = rng.uniform(4.5, 9)
        for s in np.arange(start + 1, end - 1, spacing):
            self._tree(float(s), side * (edge.line + rng.uniform(1.2, 3.5)), rng.uniform(5, 12))
            self._tree(float(s + spacing / 2), side * (edge.line + rng.uniform(5, 9)), rng.uniform(7, 14), trunk=0.1)

    def _building(
        self,
        side: int,
        s0: float,
        s1: float,
        d: float,
        height: float,
        depth: float,
        *,
        pitched: bool,
        hidden: float = 0.0,
    ) -> None:
        rng = self._rng
        near, far = side * d, side * (d + depth)
        picture = facade(rng, s1 - s0, height, shops=not pitched and rng.random() < 0.5)
        flank = self._flank(picture, depth)
        if height > hidden:
            self._panel([(s0, far, 0), (s0, near, 0), (s0, near, height), (s0, far, height)], flank)
        if pitched or rng.random() < 0.4:
            run, rise = depth / 2 if pitched else 4.0, rng.uniform(1.8, 3.5)
            tiles = np.array([[120, 62, 48], [85, 80, 80], [100, 85, 70]])[rng.integers(3)] * rng.uniform(0.8, 1.3)
            roof = np.ones((40, 64, 1), np.float32) * tiles
            roof[::3] *= 0.8
            roof *= rng.normal(1, 0.06, (40, 64, 1)).astype(np.float32)
            slope = np.hypot(run, rise)
            ridge = side * (d + run)
            eave = side * (d - 0.3)
            texture = self._lit(roof, (-side * rise / slope, run / slope, 0.0), BUILDING)
            back = far if pitched else ridge
            outline = np.array([(near - ridge, height), (back - ridge, height), (0.0, height + rise)])
            self.things.append(Post(s0 + 0.05, ridge, [(outline, flank.mean, BUILDING)]))
            self._panel(
                [(s0, eave, height), (s1, eave, height), (s1, ridge, height + rise), (s0, ridge, height + rise)],
                texture,
            )
        self._panel(
            [(s0, near, 0), (s1, near, 0), (s1, near, height), (s0, near, height)],
            self._lit(picture if side > 0 else picture[:, ::-1], (-float(side), 0.0, 0.0), BUILDING),
        )
        self._shadow([(near, s0), (near, s1), (far, s1), (far, s0)], height)

    def _flank(self, front: np.ndarray, depth: float) -> Texture:
        """Return the end wall that faces the camera, in the style of the front."""
        want = round(depth * TEXELS)
        if depth > 20:
            repeats = -(-want // front.shape[1])
            return self._lit(np.tile(front, (1, repeats, 1))[:, :want], (0.0, 0.0, -1.0), BUILDING)
        blank = np.repeat(front[:, :3], 32, axis=1)
        return self._lit(blank, (0.0, 0.0, -1.0), BUILDING)

    def _fence(self, side: int, s0: float, s1: float, d: float) -> None:
        label = int(self._rng.choice([VEGETATION, FENCE, WALL]))
        height = float(self._rng.uniform(0.8, 2.1))
        texture = self._lit(surface(self._rng, s1 - s0, height, label), (-float(side), 0.0, 0.0), label)
        front, back = side * d, side * (d + 0.5)
        self._panel([(s0, back, 0), (s0, front, 0), (s0, front, height), (s0, back, height)], texture)
        self._panel([(s0, front, 0), (s1, front, 0), (s1, front, height), (s0, front, height)], texture)
        self._shadow([(front, s0), (front, s1), (back, s1), (back, s0)], height)

    def _tree(self, s: float, d: float, height: float, trunk: float | None = None) -> None:
        rng = self._rng
        bare = float(rng.uniform(1.8, 2.8)) if trunk is None else trunk
        spread = (height - bare) * float(rng.uniform(0.7, 1.1))
        levels = self._crowns[rng.integers(len(self._crowns))]
        bark = np.array([85.0, 72, 58]) * rng.uniform(0.6, 1.1) * (self._light.ambient + 0.5 * self._light.sun)
        self.things.append(Tree(s, d, height, spread, bare, levels, bark))
        if self._light.casts_shadows:
            drop = self._light.shadow_of((height + bare) / 2)
            for _ in range(7):  # a crown's shadow is patchy
                at = np.array([d, s]) + drop + rng.normal(0, 0.22 * spread, 2)
                self.shadows.append(_disc(at[0], at[1], 0.22 * spread, 9))
            stem = np.array([[d - 0.1, s], [d + 0.1, s]])
            self.shadows.append(np.concatenate([stem, stem + drop]))

    def _furnish(self, side: int) -> None:
        """Lamps, signs, lights and trees along the kerb."""
        rng, layout, edge = self._rng, self._layout, self._layout.sides[side]
        near_kerb = side * (edge.kerb + 0.45)
        lamps = rng.uniform(18, 40) if rng.random() < 0.8 else 1e9
        for s in np.arange(rng.uniform(0, 12), LENGTH, lamps):
            if not layout.is_open(s, side, 1.0):
                self._lamp(float(s), near_kerb, side)
        for s in rng.uniform(0, LENGTH, rng.integers(2, 9)):
            if not layout.is_open(s, side, 0.5):
                self._sign(float(s), near_kerb + side * rng.uniform(0, 0.3))
        if rng.random() < (0.75 if edge.verge else 0.3):
            for s in np.arange(rng.uniform(0, 9), LENGTH, rng.uniform(7, 16)):
                if not layout.is_open(s, side, 3.0):
                    self._tree(float(s), side * (edge.kerb + max(0.7, edge.verge / 2)), rng.uniform(4.5, 8))
        if rng.random() < 0.25:
            for s in np.arange(0, LENGTH * rng.uniform(0.2, 0.8), rng.uniform(1.3, 2.5)):
                if not layout.is_open(s, side, 1.0):
                    shape = _rectangle(-0.06, 0, 0.06, 0.95 + layout.kerb_height)
                    self._post(float(s), side * (edge.kerb + 0.25), [(shape, self._grey * 0.7, POLE)])
        for zebra in layout.zebras:
            if rng.random() < 0.6:
                box, lamp = _rectangle(-0.17, 2.3, 0.17, 3.2), rng.integers(3)
                parts = [(_rectangle(-0.05, 0, 0.05, 2.4), self._grey, POLE), (box, np.full(3, 30.0), TRAFFIC_LIGHT)]
                for n, colour in enumerate(((255.0, 40, 30), (255.0, 180, 40), (40.0, 240, 150))):
                    glow = np.array(colour) * (1.0 if n == lamp else 0.25)
                    parts.append((_disc(0, 3.03 - 0.28 * n, 0.1, 8), glow, TRAFFIC_LIGHT))
                self._post(zebra - 2.0, near_kerb, parts)

    def _post(self, s: float, d: float, parts: list[tuple[np.ndarray, np.ndarray, int]]) -> None:
        lit = self._light.ambient + 0.6 * self._light.sun
        shaded = [
            (outline, colour if label == TRAFFIC_LIGHT else np.clip(colour * lit, 0, 255), label)
            for outline, colour, label in parts
        ]
        self.things.append(Post(s, d, shaded))
        top = max(outline[:, 1].max() for outline, _, _ in parts)
        self._shadow([(d - 0.06, s), (d + 0.06, s), (d, s + 0.06)], float(top))

    def _lamp(self, s: float, d: float, side: int) -> None:
        height = float(self._rng.uniform(5, 9))
        arm, thick = -side * float(self._rng.uniform(0.6, 2.0)), 0.08
        parts = [
            (np.array([[-thick, 0], [thick, 0], [0.6 * thick, height], [-0.6 * thick, height]]), self._grey, POLE),
            (_rectangle(min(0, arm), height - 0.06, max(0, arm), height + 0.03), self._grey, POLE),
            (_rectangle(arm - 0.3, height - 0.12, arm + 0.3, height + 0.05), self._grey * 1.3, POLE),
        ]
        self._post(s, d, parts)

    def _sign(self, s: float, d: float) -> None:
        rng, y = self._rng, float(self._rng.uniform(2.1, 2.7))
        parts = [(_rectangle(-0.035, 0, 0.035, y), np.full(3, 140.0), POLE)]
        red, white, blue = np.array([190.0, 25, 30]), np.full(3, 225.0), np.array([25.0, 70, 165])
        kind = rng.integers(5)
        if kind == 0:
            parts += [(_disc(0, y, 0.35), red, TRAFFIC_SIGN), (_disc(0, y, 0.26), white, TRAFFIC_SIGN)]
        elif kind == 1:
            parts += [(_disc(0, y, 0.46, 3), red, TRAFFIC_SIGN), (_disc(0, y, 0.28, 3), white, TRAFFIC_SIGN)]
        elif kind == 2:
            parts += [(_disc(0, y, 0.34), blue, TRAFFIC_SIGN)]
        elif kind == 3:
            parts += [(_rectangle(-0.35, y - 0.35, 0.35, y + 0.35), blue, TRAFFIC_SIGN)]
            parts += [(_rectangle(-0.2, y - 0.2, 0.2, y + 0.2), white, TRAFFIC_SIGN)]
        else:
            parts += [
                (_rectangle(-0.6, y - 0.3, 0.6, y + 0.2), rng.choice([white, np.array([230.0, 190, 30])]), TRAFFIC_SIGN)
            ]
        self._post(s, d, parts)
