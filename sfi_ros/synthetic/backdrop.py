"""Sky, clouds and the far skyline: what is behind everything."""

from __future__ import annotations

import cv2
import numpy as np

from sfi_ros.synthetic.camera import Camera
from sfi_ros.synthetic.layout import BUILDING, SKY, VEGETATION
from sfi_ros.synthetic.light import Light


class Backdrop:
    """Sky with clouds and a far skyline; larger than the picture, so that a frame is a cut-out."""

    def __init__(self, rng: np.random.Generator, light: Light, width: int, height: int, focal: float) -> None:
        self._focal, self._margin = focal, (round(0.25 * width), round(0.35 * height))
        wide, high = width + 2 * self._margin[0], height + 2 * self._margin[1]
        self._horizon = high // 2
        rise = np.clip((self._horizon - np.arange(high)) / (0.55 * focal), 0, 1)[:, None, None] ** 0.7
        sky = light.horizon + (light.zenith - light.horizon) * rise
        sky = np.broadcast_to(sky.astype(np.float32), (high, wide, 3))
        cover = np.zeros((high, wide), np.float32)
        for cells, strength in ((5, 1.0), (12, 0.6), (30, 0.35), (80, 0.15)):
            noise = rng.normal(0, strength, (max(3, cells // 2 + 1), cells + 2)).astype(np.float32)
            cover += cv2.resize(noise, (wide, high), interpolation=cv2.INTER_CUBIC)
        white = (np.clip(light.horizon * 1.07, 0, 255) * rng.uniform(0.85, 1.05)).astype(np.float32)
        share = np.clip((cover - 1.1 + 1.6 * light.clouds) * 0.8, 0, 0.85)[..., None]
        sky = sky * (1 - share) + white * share * (1 - 0.12 * np.clip(cover, -1, 1)[..., None])
        self._picture = np.dstack([np.clip(sky, 0, 255), np.full((high, wide), SKY)]).astype(np.uint8)
        x = 0
        fade = light.fade(140.0)
        while x < wide:
            step = int(rng.uniform(0.015, 0.07) * focal)
            tall = rng.uniform(0.015, 0.075) * focal
            green = rng.random() < 0.6
            colour = np.array([65.0, 85, 50]) if green else rng.uniform(80, 160) * np.array([1, 0.95, 0.9])
            colour = (colour * (light.ambient + 0.4 * light.sun)) * (1 - fade) + light.haze * fade
            fill = (*np.clip(colour, 0, 255).tolist(), VEGETATION if green else BUILDING)
            if green:
                size = (step // 2 + 4, round(tall))
                cv2.ellipse(self._picture, (x + step // 2, self._horizon), size, 0, 180, 360, fill, -1)
            else:
                cv2.rectangle(self._picture, (x, round(self._horizon - tall)), (x + step, self._horizon), fill, -1)
            x += step
        base = (*(np.array([80.0, 88, 70]) * light.ambient * (1 - fade) + light.haze * fade).tolist(), VEGETATION)
        self._picture[self._horizon - max(2, round(0.008 * focal)) :] = np.clip(base, 0, 255)

    def view(self, camera: Camera) -> np.ndarray:
        """Return the (H, W, 4) cut-out of RGB and label id behind everything."""
        forward = camera.rotation @ np.array([camera.bend * 60.0, 0.5 * camera.climb * 130.0, 1.0])
        x, y = camera.pixels(forward[None])[0]
        left = round(self._picture.shape[1] / 2 - x + self._focal * camera.bend * 60.0)
        left = int(np.clip(left, 0, 2 * self._margin[0]))
        upper = int(np.clip(self._horizon - round(y), 0, 2 * self._margin[1]))
        return self._picture[upper : upper + camera.height, left : left + camera.width]
