"""Dark ground under objects and, when the sun is out, beside them."""

from __future__ import annotations

import cv2
import numpy as np

from sfi_ros.synthetic.camera import NEAR
from sfi_ros.synthetic.canvas import Canvas, fixed_point
from sfi_ros.synthetic.people import Figure
from sfi_ros.synthetic.vehicles import Vehicle

_FARTHEST = 80.0


def darken_ground(objects: list[Vehicle | Figure], canvas: Canvas, top: int, brightness: np.ndarray) -> None:
    """Lower `brightness` (h, W) uint8 of the ground rows from `top` on where objects stand or cast a shadow."""
    near = [thing for thing in objects if thing.ahead < _FARTHEST]
    if not near:
        return
    light = canvas.light
    place = np.array([(t.ahead, t.d, t.y, np.cos(t.heading), np.sin(t.heading), *t.footprint) for t in near])
    ahead, d, y, c, s, width, length, height, _ = place.T[..., None]
    right, forward = width * [-1, 1, 1, -1], length * [-1, -1, 1, 1]
    corners = np.stack([ahead - s * right + c * forward, d + c * right + s * forward, y + 0 * right], axis=-1)
    drop = light.shadow_of(1.0)
    cast = corners + height[..., None] * np.array([drop[1], drop[0], 0.0])
    axes = canvas.camera.axes(*np.concatenate([corners, cast], axis=1).reshape(-1, 3).T)
    pixels = canvas.camera.pixels(np.maximum(axes, [-np.inf, -np.inf, NEAR])) - [0, top]
    points, depth = fixed_point(pixels).reshape(-1, 8, 2), axes[:, 2].reshape(-1, 8)
    if light.casts_shadows:
        for thing, outline, distance in zip(near, points, depth, strict=True):
            if thing.sunlit > 0.4 and distance.min() > NEAR:
                cv2.fillConvexPoly(brightness, cv2.convexHull(outline), light.shadow_level, cv2.LINE_8, 4)
    for below, outline, distance in zip(place[:, 8].tolist(), points, depth, strict=True):
        if distance[:4].min() > NEAR:
            cv2.fillConvexPoly(brightness, cv2.convexHull(outline[:4]), below, cv2.LINE_8, 4)
