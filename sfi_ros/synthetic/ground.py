"""The ground: a map of the whole block seen from above, painted once, and its perspective-correct view of each frame.

Road lies at height zero, everything else one kerb higher. A pixel therefore looks first for raised ground on the upper
plane; where that plane is above road, for road on the lower plane; what is neither is the kerb's face.
"""

from __future__ import annotations

import cv2
import numpy as np

from sfi_ros.synthetic.camera import Camera
from sfi_ros.synthetic.layout import LENGTH, ROAD, SIDEWALK, TERRAIN, Layout
from sfi_ros.synthetic.light import Light

_ROWS, _COLUMNS = 2560, 1024
_S, _D = LENGTH / _ROWS, 0.036  # metres per texel along and across
_EDGE = -_D * _COLUMNS / 2  # `d` of the map's left border
_FARTHEST = 260.0
_SHADOW_SCALE = 4  # shadows are soft: drawn on a coarser map


def _row(s: float) -> int:
    return round(s / _S)


def _column(d: float) -> int:
    return int(np.clip(round((d - _EDGE) / _D), 0, _COLUMNS))


def _strip(side: int, inner: float, outer: float) -> slice:
    a, b = sorted((_column(side * inner), _column(side * outer)))
    return slice(a, b)


def _noise(rng: np.random.Generator, scales: dict[int, float], size: int = 512) -> np.ndarray:
    """Return a (size, size) float32 tile of noise around 0: standard deviation per texel size."""
    total = np.zeros((size, size), np.float32)
    for scale, sigma in scales.items():
        small = rng.normal(0, sigma, (size // scale, size // scale)).astype(np.float32)
        total += cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR if scale > 1 else cv2.INTER_NEAREST)
    return total


def _tiled(tile: np.ndarray) -> np.ndarray:
    """Return the tile repeated over the map, as a brightness factor in uint8 with 128 = 1."""
    tile = np.clip(np.rint(128 * (1 + tile)), 0, 255).astype(np.uint8)
    return np.tile(tile, (_ROWS // tile.shape[0] + 1, _COLUMNS // tile.shape[1] + 1))[:_ROWS, :_COLUMNS]


def paint_labels(layout: Layout) -> np.ndarray:
    """Label ids (rows along the street, columns across) of the block from above."""
    labels = np.full((_ROWS, _COLUMNS), TERRAIN, np.uint8)
    for sign, side in layout.sides.items():
        labels[:, _strip(sign, 0, side.kerb)] = ROAD
        labels[:, _strip(sign, side.kerb + side.verge, side.line)] = SIDEWALK
        if side.kind == "urban":
            labels[:, _strip(sign, side.line, side.line + 3)] = SIDEWALK
    if layout.median:
        island = SIDEWALK if layout.lane_width > 3.2 else TERRAIN
        labels[:, _strip(1, -layout.median / 2 + 0.2, layout.median / 2 - 0.2)] = island
    for street in layout.side_streets:
        side = layout.sides[street.side]
        reach, radius = street.half_width + street.walk, min(2.2, side.verge + side.walk)
        rows = slice(_row(street.s - reach), _row(street.s + reach))
        labels[rows, _strip(street.side, side.kerb, 99)] = SIDEWALK
        mouth = slice(_row(street.s - street.half_width), _row(street.s + street.half_width))
        labels[mouth, _strip(street.side, 0, 99)] = ROAD
        for end in (-1, 1):
            corner = street.s + end * street.half_width, street.s + end * (street.half_width + radius)
            rows = slice(_row(min(corner)), _row(max(corner)))
            labels[rows, _strip(street.side, side.kerb, side.kerb + radius)] = ROAD
            centre = (_column(street.side * (side.kerb + radius)), _row(corner[1]))
            cv2.ellipse(labels, centre, (round(radius / _D), round(radius / _S)), 0, 0, 360, SIDEWALK, -1)
    for zebra in layout.zebras:
        rows = slice(_row(max(zebra - 2, 0)), _row(zebra + 2))
        labels[rows, _strip(1, -layout.median / 2, layout.median / 2)] = ROAD
        for sign, side in layout.sides.items():
            labels[rows, _strip(sign, side.kerb, side.line)] = SIDEWALK
    return labels


def _paint_markings(rng: np.random.Generator, layout: Layout, colours: np.ndarray) -> None:
    """Lines, crossings and parking bays, on road texels' colours."""
    white = rng.uniform(150, 225) * np.array([1.0, 1.0, 0.97])

    def line(s0: float, s1: float, d: float, width: float = 0.13) -> None:
        colours[
            max(_row(s0), 0) : _row(s1),
            _column(d - width / 2) : max(_column(d + width / 2), _column(d - width / 2) + 1),
        ] = white

    dash = float(rng.choice([2.0, 3.0, 4.0]))
    lined = rng.random() < 0.85
    for s in np.arange(0, LENGTH, 2 * dash):
        for sign in (-1, 1):
            for lane in range(1, layout.lanes):
                line(s, s + dash, sign * (layout.median / 2 + lane * layout.lane_width))
        if lined and not layout.median:
            line(s, s + dash, 0.0)
    for sign, side in layout.sides.items():
        edge = layout.median / 2 + layout.lanes * layout.lane_width
        if side.cycle:
            if rng.random() < 0.5:
                tint = np.array([150, 75, 65]) if rng.random() < 0.6 else np.array([70, 100, 75])
                colours[:, _strip(sign, edge, edge + side.cycle)] = tint * rng.uniform(0.7, 1.1)
            line(0, LENGTH, sign * edge)
        if side.parking:
            inner = side.kerb - side.parking
            if rng.random() < 0.4:
                colours[:, _strip(sign, inner, side.kerb)] = rng.uniform(70, 125) * np.array([1.05, 1, 0.95])
            for s in np.arange(0, LENGTH, 5.6) if rng.random() < 0.6 else ():
                rows = slice(_row(s), _row(s) + 2)
                colours[rows, _strip(sign, inner, side.kerb)] = white
                line(s, s + 5.6, sign * inner, 0.1)
        elif rng.random() < 0.5:
            line(0, LENGTH, sign * (side.kerb - 0.35))
    for street in layout.side_streets:  # a mouth interrupts what runs along its side; it gets a yield line
        kerb = layout.sides[street.side].kerb
        for s in np.arange(street.s - street.half_width + 0.3, street.s + street.half_width - 0.3, 0.8):
            a, b = sorted((street.side * (kerb + 0.2), street.side * (kerb + 0.7)))
            colours[_row(s) : _row(s + 0.45), _column(a) : _column(b)] = white
    left, right = -layout.sides[-1].kerb, layout.sides[1].kerb
    for zebra in layout.zebras:
        for d in np.arange(left + 0.3, right - 0.5, 1.0):
            colours[_row(max(zebra - 1.5, 0)) : _row(zebra + 1.5), _column(d) : _column(d + 0.5)] = white
        if zebra > 5:
            line(zebra - 3.2, zebra - 2.8, right / 2 + layout.median / 4, right - layout.median / 2 - 0.4)


def _paint_wear(rng: np.random.Generator, layout: Layout, colours: np.ndarray, asphalt: np.ndarray) -> None:
    """Patches, seams, cracks and manholes."""
    left, right = -layout.sides[-1].kerb, layout.sides[1].kerb
    for _ in range(rng.integers(0, 14)):
        s, d = rng.uniform(0, LENGTH), rng.uniform(left, right)
        size = rng.uniform([1.0, 0.5], [14, 2.5])
        shade = asphalt * rng.uniform(0.7, 1.25)
        colours[_row(s) : _row(s + size[0]), _column(d) : _column(min(d + size[1], right))] = shade
    for _ in range(rng.integers(0, 18)):
        steps = rng.normal([1.0, 0.0], [0.7, 0.35], (rng.integers(4, 14), 2))
        path = np.cumsum(steps, axis=0) * rng.choice([-1, 1]) + [
            rng.uniform(0, LENGTH),
            rng.uniform(left, right),
        ]
        points = np.stack([(path[:, 1] - _EDGE) / _D, path[:, 0] / _S], axis=1)
        cv2.polylines(colours, [np.rint(points).astype(np.int32)], False, (asphalt * 0.6).tolist(), 1)
    for _ in range(rng.integers(2, 10)):
        centre = (_column(rng.uniform(left + 1, right - 1)), _row(rng.uniform(1, LENGTH - 1)))
        cv2.ellipse(colours, centre, (round(0.33 / _D), round(0.33 / _S)), 0, 0, 360, (asphalt * 0.62).tolist(), -1)
        cv2.ellipse(colours, centre, (round(0.26 / _D), round(0.26 / _S)), 0, 0, 360, (asphalt * 0.85).tolist(), 1)


def _sidewalk_tile(rng: np.random.Generator) -> np.ndarray:
    """Brightness around 0 of paving: slabs, cobbles or plain asphalt."""
    tile = _noise(rng, {1: 0.05, 8: 0.03, 64: 0.06})
    slab = int(rng.choice([0, 4, 8, 16, 32]))
    if slab:
        across = max(2, round(slab * _S / _D / 2) * 2)
        each = rng.normal(0, rng.uniform(0.02, 0.09), (512 // slab + 1, 512 // across + 1)).astype(np.float32)
        tile += np.kron(each, np.ones((slab, across), np.float32))[:512, :512]
        joint = rng.uniform(0.08, 0.3)
        tile[::slab] -= joint * 0.7
        tile[:, ::across] -= joint
    return tile


def paint_map(
    rng: np.random.Generator, layout: Layout, light: Light, labels: np.ndarray, sunlit: np.ndarray
) -> np.ndarray:
    """Lit RGB colours (uint8) of the block from above. `sunlit` is the coarse shadow map, 255 = full sun."""
    asphalt = rng.uniform(62, 128) * rng.normal(1, 0.02, 3)
    paving = rng.uniform(95, 175) * np.array([1.0, rng.uniform(0.93, 1.0), rng.uniform(0.82, 1.0)])
    if rng.random() < 0.15:
        paving = asphalt * rng.uniform(0.95, 1.2)
    grass = np.array([rng.uniform(70, 125), rng.uniform(92, 125), rng.uniform(45, 65)])
    colours = np.empty((_ROWS, _COLUMNS, 3), np.uint8)
    colours[:] = asphalt
    _paint_wear(rng, layout, colours, asphalt)
    _paint_markings(rng, layout, colours)
    tracks = np.zeros(_COLUMNS, np.float32)  # wheels polish or soil the lanes
    for sign in (-1, 1):
        for lane in range(layout.lanes):
            for wheel in (-0.75, 0.75):
                tracks += np.exp(
                    -(((np.arange(_COLUMNS) * _D + _EDGE - layout.lane_centre(sign, lane) - wheel) / 0.3) ** 2)
                )
    road = _noise(rng, {1: rng.uniform(0.05, 0.13), 2: 0.06, 32: 0.03, 128: 0.05})
    grain = _tiled(road)
    grain = cv2.multiply(grain, np.tile(128 + rng.normal(0, 9) * tracks, (_ROWS, 1)).astype(np.uint8), scale=1 / 128)
    for label, colour, tile in (
        (SIDEWALK, paving, _sidewalk_tile(rng)),
        (TERRAIN, grass, _noise(rng, {1: 0.14, 4: 0.12, 16: 0.1, 64: 0.12})),
    ):
        mask = (labels == label).view(np.uint8)
        flat = np.empty_like(colours)
        flat[:] = colour
        cv2.copyTo(flat, mask, colours)
        cv2.copyTo(_tiled(tile), mask, grain)
    raised = (labels != ROAD).view(np.uint8)
    stone = cv2.dilate(1 - raised, np.ones((3, 7), np.uint8)) & raised
    gutter = cv2.dilate(raised, np.ones((3, 9), np.uint8)) & (1 - raised)
    colours[stone.view(bool)] = np.clip(paving * rng.uniform(0.95, 1.3), 0, 255)
    colours[gutter.view(bool)] = asphalt * rng.uniform(0.6, 1.1)
    stains = np.clip(128 + rng.normal(0, rng.uniform(4, 12), (40, 16)), 90, 166).astype(np.uint8)
    grain = cv2.multiply(grain, cv2.resize(stains, (_COLUMNS, _ROWS), interpolation=cv2.INTER_CUBIC), scale=1 / 128)
    levels = np.arange(256)[:, None] / 255
    lit = cv2.LUT(cv2.merge([grain] * 3), _per_channel(np.arange(256)[:, None] * np.ones(3)))
    colours = cv2.multiply(colours, lit, scale=1 / 128)
    factor = _per_channel((light.ambient + levels * light.sun) * 170)
    sun_map = cv2.resize(sunlit, (_COLUMNS, _ROWS), interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(colours, cv2.LUT(cv2.merge([sun_map] * 3), factor), scale=1 / 170)


def _per_channel(curve: np.ndarray) -> np.ndarray:
    """Return a (256, 3) curve as a lookup table of cv2.LUT."""
    return np.clip(np.rint(curve), 0, 255).astype(np.uint8)[None]


class Ground:
    """The block's ground: labels, lit colours at several reductions, and where the sun reaches it."""

    def __init__(self, rng: np.random.Generator, layout: Layout, light: Light, shadows: list[np.ndarray]) -> None:
        """`shadows`: convex polygons (N, 2) of (d, s) in metres, cast by fixed things."""
        self._light = light
        self._kerb_height = layout.kerb_height
        self._labels = paint_labels(layout)
        sunlit = np.full((_ROWS // _SHADOW_SCALE, _COLUMNS // _SHADOW_SCALE), 255, np.uint8)
        for shadow in shadows:
            for shift in (-LENGTH, 0.0, LENGTH):
                points = (shadow + np.array([-_EDGE, shift])) / (np.array([_D, _S]) * _SHADOW_SCALE)
                hull = cv2.convexHull(np.clip(np.rint(points), -9999, 9999).astype(np.int32))
                cv2.fillConvexPoly(sunlit, hull, 0, cv2.LINE_AA)
        self._sunlit = cv2.GaussianBlur(sunlit, (5, 5), 1.0)
        colours = paint_map(rng, layout, light, self._labels, self._sunlit)
        self._levels = {(0, 0): colours}
        self._fine = _tiled(_noise(rng, {1: 0.07, 2: 0.05}, 256))[:256, :256]

    def label_at(self, s: float, d: float) -> int:
        """Label id of the ground at a point."""
        return int(self._labels[int(s % LENGTH / _S) % _ROWS, min(_column(d), _COLUMNS - 1)])

    def labels_at(self, s: np.ndarray, d: np.ndarray) -> np.ndarray:
        """Label ids of the ground at points, uint8 of their shape; beyond the map's sides those of its border."""
        rows = np.floor(s % LENGTH / _S).astype(int) % _ROWS
        columns = np.clip(np.floor((d - _EDGE) / _D), 0, _COLUMNS - 1).astype(int)
        return self._labels[rows, columns]

    def sunlight_at(self, s: float, d: float) -> float:
        """How much sun (0-1) reaches the ground at a point."""
        row, column = int(s % LENGTH / _S) % _ROWS, min(_column(d), _COLUMNS - 1)
        return self._sunlit[row // _SHADOW_SCALE, column // _SHADOW_SCALE] / 255.0

    def _level(self, along: int, across: int) -> np.ndarray:
        if (along, across) not in self._levels:
            size = (_COLUMNS >> across, _ROWS >> along)
            self._levels[along, across] = cv2.resize(self._levels[0, 0], size, interpolation=cv2.INTER_AREA)
        return self._levels[along, across]

    def view(self, camera: Camera) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the ground as the camera sees it.

        That is its first row, colours (h, W, 3), labels (h, W), brightness (h, W) uint8 in which the kerb's face is
        darker, and (h, W) uint8, 1 where there is ground.
        """
        top = camera.first_ground_row(_FARTHEST)
        u = (np.arange(camera.width, dtype=np.float32) - np.float32(camera.matrix[0, 2])) / np.float32(camera.focal)
        v = (np.arange(top, camera.height, dtype=np.float32) - np.float32(camera.matrix[1, 2])) / np.float32(
            camera.focal
        )
        back = camera.rotation.T.astype(np.float32)
        right, up, ahead = (axis[0] * u[None] + (axis[1] * v + axis[2])[:, None] for axis in back)
        np.reciprocal(ahead, out=ahead)
        sideways, down = right * ahead, -up * ahead

        def reach(drop: float) -> np.ndarray:
            """Metres ahead at which each ray has fallen by `drop`."""
            if camera.climb == 0.0:
                return np.float32(drop) / np.maximum(down, np.float32(1e-4))
            inside = np.maximum(down * down + np.float32(2 * camera.climb * drop), 0)
            return np.float32(2 * drop) / np.maximum(down + np.sqrt(inside), np.float32(1e-4))

        def places(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Map column and row, in texels with 0 at the border."""
            across = distance * (sideways - np.float32(0.5 * camera.bend) * distance)
            across += np.float32(camera.d - _EDGE)
            across *= np.float32(1 / _D)
            np.clip(across, 16, _COLUMNS - 16, out=across)  # half a texel of the coarsest reduction
            return across, (distance + np.float32(camera.s)) * np.float32(1 / _S)

        low = reach(camera.y)
        seen = (low < _FARTHEST).view(np.uint8)
        low = np.minimum(low, np.float32(_FARTHEST))
        high = np.minimum(reach(camera.y - self._kerb_height), np.float32(_FARTHEST))
        low_column, low_row = places(low)
        column, row = places(high)
        labels = self._look_up(column, row)
        sunk = labels == ROAD
        below = self._look_up(low_column, low_row)
        np.copyto(labels, below, where=sunk)
        face = sunk & (below != ROAD)
        labels[face] = SIDEWALK
        np.copyto(column, low_column, where=sunk)
        np.copyto(row, low_row, where=sunk)
        brightness = np.where(face, np.uint8(150), np.uint8(255))
        colours = self._colours(camera, low[:, camera.width // 2], column, row)
        return top, colours, labels, brightness, seen

    def _look_up(self, column: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Labels at map places; the halves make truncation to texels out of rounding."""
        return cv2.remap(self._labels, column - 0.5, row - 0.5, cv2.INTER_NEAREST, borderMode=cv2.BORDER_WRAP)

    def _colours(self, camera: Camera, distance: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Colours at map places, from the reduction that suits each image row, faded with distance."""
        colours = np.empty((*column.shape, 3), np.uint8)
        if not len(distance):
            return colours
        along = np.log2(np.maximum(np.abs(np.gradient(distance)) if len(distance) > 1 else distance, 1e-6) / _S)
        across = np.log2(distance / camera.focal / _D)
        keys = np.stack([np.clip(along + 0.2, 0, 6), np.clip(across + 0.2, 0, 5)], axis=1).astype(int)
        starts = np.flatnonzero(np.r_[True, (np.diff(keys, axis=0) != 0).any(axis=1)])
        for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
            a, b = keys[start]
            x = column[start:end] * np.float32(0.5**b) - np.float32(0.5)
            y = row[start:end] * np.float32(0.5**a) - np.float32(0.5)
            colours[start:end] = cv2.remap(self._level(a, b), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        close = int(np.searchsorted(-distance, -14.0))  # rows nearer than this get grain finer than the map's
        if close < len(distance):
            grain = cv2.remap(
                self._fine,
                column[close:] * np.float32(3.6),
                row[close:] * np.float32(3.2),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_WRAP,
            )
            colours[close:] = cv2.multiply(colours[close:], cv2.cvtColor(grain, cv2.COLOR_GRAY2RGB), scale=1 / 128)
        share = 1 - np.exp(-self._light.haze_per_metre * distance)
        misty = int(np.searchsorted(-share, -0.02))
        veil = share[:misty, None, None].astype(np.float32)
        colours[:misty] = colours[:misty] * (1 - veil) + self._light.haze.astype(np.float32) * veil
        return colours
