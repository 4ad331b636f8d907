"""The two buffers of a frame, painted from far to near.

`paint` holds RGB and, as a fourth channel, the label id of what is seen: one fill writes both, so colour and label
can never disagree. `still` holds the label ids of everything but the objects. Fixed things are painted into both
with the same rasterised shape, objects into `paint` only; hence `still` is the truth behind every object, and equals
the visible label wherever no object is seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from sfi_ros.synthetic.camera import NEAR, Camera
from sfi_ros.synthetic.light import Light

_SHIFT = 4  # fractional bits of fillConvexPoly's coordinates


def fixed_point(pixels: np.ndarray) -> np.ndarray:
    """Pixel coordinates (..., 2) as the int32 fixed-point numbers that `Canvas.fill` takes."""
    return (pixels * (1 << _SHIFT) + 0.5).astype(np.int32)


def cut_near(axes: np.ndarray) -> np.ndarray:
    """Return the part of a polygon (N, 3) in camera coordinates beyond NEAR; may be empty."""
    kept = []
    for a, b in zip(axes, np.roll(axes, -1, axis=0), strict=True):
        if a[2] >= NEAR:
            kept.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            kept.append(a + (b - a) * ((NEAR - a[2]) / (b[2] - a[2])))
    return np.array(kept).reshape(-1, 3)


Fill = tuple[np.ndarray, tuple[float, ...], int]
"""A convex polygon (N, 2) in fixed-point pixels, RGB and label id, and an outline's width or 0 to fill it."""


@dataclass(frozen=True)
class Shapes:
    """An object ready to be painted, `ahead` metres away."""

    ahead: float
    fills: list[Fill]

    def draw(self, canvas: Canvas) -> None:
        """Paint it."""
        for points, colour, width in self.fills:
            if width:
                cv2.polylines(canvas.paint, [points], True, colour, width, cv2.LINE_8, _SHIFT)
            else:
                cv2.fillConvexPoly(canvas.paint, points, colour, cv2.LINE_8, _SHIFT)


class Texture:
    """A picture with a reduced copy for every factor of two in either direction, made when first needed."""

    def __init__(self, rgb: np.ndarray, label: int) -> None:
        alpha = np.full(rgb.shape[:2], label, np.uint8)
        self._levels = {(0, 0): np.dstack([rgb, alpha])}
        self.label = label
        self.mean = rgb.reshape(-1, 3).mean(axis=0)

    def level(self, width: float, height: float) -> np.ndarray:
        """Return the (h, w, 4) copy to be seen `width` x `height` pixels large; the fourth channel is the label."""
        full = self._levels[0, 0]
        key = tuple(
            min(int(math.log2(max(have / max(want, 1.0), 1.0)) + 0.2), max(0, int(math.log2(have)) - 1))
            for have, want in ((full.shape[1], width), (full.shape[0], height))
        )
        if key not in self._levels:
            size = (max(1, full.shape[1] >> key[0]), max(1, full.shape[0] >> key[1]))
            self._levels[key] = cv2.resize(full, size, interpolation=cv2.INTER_AREA)
        return self._levels[key]


class Canvas:
    """Buffers of one frame and the four ways to paint: polygon, textured quad, sprite, ground rows."""

    def __init__(self, camera: Camera, light: Light, backdrop: np.ndarray, veils: dict[int, np.ndarray]) -> None:
        """`veils` keeps pictures of plain haze from frame to frame; start with an empty one per light and size."""
        self._veils = veils
        self.camera = camera
        self.light = light
        self.paint = backdrop.copy()
        self.still = backdrop[:, :, 3].copy()

    def hazed(self, rgb: np.ndarray, distance: float | np.ndarray) -> np.ndarray:
        """Colours (..., 3) as seen from `distance` metres, a number or an array that fits."""
        share = 1.0 - np.exp(-self.light.haze_per_metre * np.maximum(distance, 0.0))
        return np.minimum(rgb * (1 - share) + self.light.haze * share, 255)

    def _fade(self, patch: np.ndarray, distance: float, label: int) -> np.ndarray:
        """Return a patch (h, w, 4) as seen from `distance` metres; its fourth channel is `label` or does not matter."""
        share = self.light.fade(distance)
        if share < 0.02:
            return patch
        veil = self._veils.get(label)
        if veil is None:
            veil = self._veils[label] = np.empty_like(self.paint)
            veil[:] = (*self.light.haze, label)
        return cv2.addWeighted(patch, 1 - share, veil[: patch.shape[0], : patch.shape[1]], share, 0)

    def fill(self, points: np.ndarray, colour: list[float], label: int) -> None:
        """Fill a fixed convex polygon (N, 2) of fixed-point pixels."""
        cv2.fillConvexPoly(self.paint, points, (*colour, label), cv2.LINE_8, _SHIFT)
        cv2.fillConvexPoly(self.still, points, label, cv2.LINE_8, _SHIFT)

    def textured(self, corners: np.ndarray, pixels: np.ndarray, texture: Texture) -> None:
        """Paint a fixed vertical or sloping quad. `corners` (4, 3) in camera coordinates, in the order bottom start,
        bottom end, top end, top start of the texture; `pixels` (4, 2) are their projections."""
        start, end = 0.0, 1.0
        if corners[:, 2].min() < NEAR:
            near, far = corners[[0, 3], 2].min(), corners[[1, 2], 2].min()
            if max(near, far) <= NEAR + 0.05:
                return
            cut = (NEAR + 0.02 - min(near, far)) / abs(far - near)
            start, end = (cut, 1.0) if near < far else (0.0, 1.0 - cut)
            bottom, top = corners[1] - corners[0], corners[2] - corners[3]
            corners = np.array(
                [
                    corners[0] + start * bottom,
                    corners[0] + end * bottom,
                    corners[3] + end * top,
                    corners[3] + start * top,
                ]
            )
            if corners[:, 2].min() < NEAR / 2:
                return
            pixels = self.camera.pixels(corners)
        (low_x, low_y), (high_x, high_y) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
        left, upper = max(int(low_x) - 1, 0), max(int(low_y) - 1, 0)
        right, lower = min(int(high_x) + 2, self.camera.width), min(int(high_y) + 2, self.camera.height)
        if right <= left or lower <= upper:
            return
        distance = float(corners[:, 2].mean())
        points = fixed_point(pixels)
        if right - left < 5 or lower - upper < 5:
            self.fill(points, self.hazed(texture.mean, distance).tolist(), texture.label)
            return
        a, b, c, d = pixels.tolist()
        along, up = max(math.dist(a, b), math.dist(c, d)), max(math.dist(b, c), math.dist(d, a))
        level = texture.level(along / (end - start), up)
        h, w = level.shape[:2]
        source = np.array([[start * w, h], [end * w, h], [end * w, 0], [start * w, 0]], np.float32) - 0.5
        target = (pixels - (left, upper)).astype(np.float32)
        size = (int(right - left), int(lower - upper))
        warp = cv2.getPerspectiveTransform(source, target)
        patch = cv2.warpPerspective(level, warp, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        patch = self._fade(patch, distance, texture.label)
        mask = np.zeros(size[::-1], np.uint8)
        offset = np.array([left, upper], np.int32) << _SHIFT
        cv2.fillConvexPoly(mask, points - offset, 1, cv2.LINE_8, _SHIFT)
        self._stamp(patch, mask, left, upper, texture.label)

    def sprite(
        self, levels: list[np.ndarray], box: tuple[float, float, float, float], distance: float, label: int
    ) -> None:
        """Paint a fixed upright picture with holes; `levels` are (h, w, 4) pictures whose fourth channel is opacity,
        each half as large as the one before; `box` is left, top, right, bottom in pixels."""
        left, upper = max(int(box[0]), 0), max(int(box[1]), 0)
        right, lower = min(int(box[2]) + 1, self.camera.width), min(int(box[3]) + 1, self.camera.height)
        wide, high = box[2] - box[0], box[3] - box[1]
        if right - left < 1 or lower - upper < 1 or wide < 0.5 or high < 0.5:
            return
        level = levels[min(int(math.log2(max(levels[0].shape[0] / high, 1))), len(levels) - 1)]
        h, w = level.shape[:2]
        warp = np.array([[wide / w, 0, box[0] - left], [0, high / h, box[1] - upper]])
        size = (int(right - left), int(lower - upper))
        patch = cv2.warpAffine(level, warp, size, flags=cv2.INTER_LINEAR)
        mask = (patch[:, :, 3] > 110).view(np.uint8)
        patch = self._fade(patch, distance, label)
        patch[:, :, 3] = label
        self._stamp(patch, mask, left, upper, label)

    def ground(self, top: int, rgb: np.ndarray, labels: np.ndarray, seen: np.ndarray) -> None:
        """Paint rows from `top` down with ground colours (h, W, 3) and labels (h, W) where `seen` (h, W) is 1."""
        self._stamp(cv2.merge([*cv2.split(rgb), labels]), seen, 0, top, labels)

    def _stamp(self, patch: np.ndarray, mask: np.ndarray, left: int, upper: int, label: int | np.ndarray) -> None:
        window = (slice(upper, upper + mask.shape[0]), slice(left, left + mask.shape[1]))
        cv2.copyTo(patch, mask, self.paint[window])
        np.copyto(self.still[window], label, where=mask.view(bool), casting="unsafe")
