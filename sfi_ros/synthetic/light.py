"""Sun, sky and sensor of one drive: how surfaces are shaded, how distance fades, how the picture is exposed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np


@dataclass(frozen=True)
class Light:
    """Constant during a drive. Colours are RGB factors or RGB 0-255; directions are (right, up, ahead)."""

    towards_sun: np.ndarray
    sun: np.ndarray  # RGB factor that a sunlit horizontal surface adds
    ambient: np.ndarray  # RGB factor of the same surface in shadow
    zenith: np.ndarray
    horizon: np.ndarray
    clouds: float
    haze: np.ndarray
    haze_per_metre: float

    def shade(self, normals: np.ndarray, sunlit: float | np.ndarray) -> np.ndarray:
        """RGB factors (N, 3) of surfaces with unit `normals` (N, 3); `sunlit` 0-1 is how much sun reaches them."""
        facing = np.clip(normals @ self.towards_sun, 0, None) / max(self.towards_sun[1], 0.45)
        open_sky = 0.74 + 0.26 * normals[:, 1]
        return open_sky[:, None] * self.ambient + (sunlit * facing)[:, None] * self.sun

    def fade(self, distance: float) -> float:
        """Share of haze (0-1) in what is seen at `distance` metres."""
        return 1.0 - math.exp(-self.haze_per_metre * max(distance, 0.0))

    @cached_property
    def gloss(self) -> float:
        """Brightness (0-255) of the sky mirrored in a horizontal polished surface."""
        return 34.0 * float(self.ambient.mean())

    @cached_property
    def shadow_level(self) -> int:
        """Brightness (0-255) that sunlit ground keeps in shadow."""
        return int(255 * self.ambient.mean() / (self.ambient + self.sun).mean())

    @cached_property
    def casts_shadows(self) -> bool:
        """Whether the sun is strong enough for shadows with an outline."""
        return bool(self.sun.mean() > 0.08)

    def shadow_of(self, height: float) -> np.ndarray:
        """Displacement (d, s) in metres of the shadow of a point `height` metres above the ground."""
        return -self.towards_sun[[0, 2]] * (height / max(float(self.towards_sun[1]), 0.2))


def make_light(rng: np.random.Generator) -> Light:
    """Draw the weather."""
    weather = rng.choice(["sunny", "overcast", "dusk", "hazy"], p=[0.42, 0.33, 0.13, 0.12])
    azimuth = rng.uniform(0, 2 * np.pi)
    elevation = np.radians(
        {"sunny": rng.uniform(22, 65), "dusk": rng.uniform(12, 20)}.get(weather, rng.uniform(30, 70))
    )
    towards_sun = np.array(
        [np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)]
    )
    warmth = rng.uniform(0, 1)
    strength, level, sky_blue, clouds, haze_per_metre = {
        "sunny": (
            rng.uniform(0.5, 0.72),
            1.0,
            rng.uniform(0.6, 1.0),
            rng.uniform(0, 0.7),
            rng.uniform(0.001, 0.004),
        ),
        "overcast": (rng.uniform(0, 0.12), rng.uniform(0.75, 0.95), 0.12, 1.0, rng.uniform(0.002, 0.006)),
        "dusk": (
            rng.uniform(0.2, 0.4),
            rng.uniform(0.5, 0.7),
            0.5,
            rng.uniform(0.2, 0.9),
            rng.uniform(0.002, 0.005),
        ),
        "hazy": (rng.uniform(0.1, 0.3), rng.uniform(0.8, 1.0), 0.2, 0.5, rng.uniform(0.008, 0.016)),
    }[str(weather)]
    sun_tint = np.array([1.05, 1.0, 0.93 - 0.12 * warmth]) if weather != "dusk" else np.array([1.2, 0.95, 0.7])
    sky_tint = np.array([1.0 - 0.1 * strength, 1.0, 1.0 + 0.16 * strength])
    pale = np.array([228.0, 231, 234]) if weather != "dusk" else np.array([240.0, 200, 165])
    blue = np.array([95.0, 145, 210]) if weather != "dusk" else np.array([95.0, 110, 150])
    brightness = {"dusk": 0.85, "overcast": rng.uniform(0.75, 1.05)}.get(str(weather), 1.05)
    horizon = np.clip(pale * brightness, 0, 255)
    return Light(
        towards_sun=towards_sun,
        sun=level * strength * sun_tint,
        ambient=level * (1 - strength) * sky_tint,
        zenith=np.clip((pale + (blue - pale) * sky_blue) * brightness, 0, 255),
        horizon=horizon,
        clouds=float(clouds),
        haze=horizon * rng.uniform(0.8, 0.97),
        haze_per_metre=float(haze_per_metre),
    )


class Sensor:
    """Turns painted colours into a camera picture: optics, white balance, exposure, gamma, noise."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        saturation = rng.uniform(0.55, 1.25)
        grey = np.array([0.299, 0.587, 0.114])
        balance = np.clip(rng.normal(1.0, 0.05, 3), 0.85, 1.15)
        self._mix = (balance[:, None] * (saturation * np.eye(3) + (1 - saturation) * grey)).astype(np.float32)
        self._gain = float(
            rng.choice([rng.uniform(0.8, 1.1), rng.uniform(1.05, 1.4), rng.uniform(1.4, 1.9)], p=[0.3, 0.5, 0.2])
        )
        self._gamma = float(rng.uniform(0.6, 1.1))
        self._black = float(rng.uniform(-0.03, 0.06))
        self._blur = float(rng.uniform(0.45, 0.95)) * max(1.0, width / 1024)
        sigma = float(rng.choice([rng.uniform(0.5, 2.5), rng.uniform(2.5, 6.0)], p=[0.75, 0.25]))
        tile = sigma * rng.standard_normal((256, 256, 3), dtype=np.float32)
        tile = np.clip(np.rint(tile + 128), 0, 255).astype(np.uint8)
        self._noise = np.tile(tile, (height // 256 + 2, width // 256 + 2, 1))

    def expose(self, colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(H, W, 3) uint8 RGB picture of the painted (H, W, 3) uint8 `colour`; `rng` is this frame's own."""
        height, width = colour.shape[:2]
        gain = self._gain * (1 + 0.015 * rng.standard_normal())
        ramp = np.clip(gain * np.arange(256) / 255 + self._black, 0, 1)
        curve = np.rint(255 * ramp**self._gamma).astype(np.uint8)
        picture = cv2.transform(colour, self._mix)
        picture = cv2.GaussianBlur(picture, (3, 3) if self._blur < 1 else (5, 5), self._blur)
        picture = cv2.LUT(picture, curve)
        row, column = rng.integers(256, size=2)
        noise = self._noise[row : row + height, column : column + width]
        return cv2.addWeighted(picture, 1.0, noise, 1.0, -128.0)
