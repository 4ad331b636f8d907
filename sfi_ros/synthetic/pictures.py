"""Procedural pictures of what stands along a street: walls with windows, hedges, fences, foliage."""

from __future__ import annotations

import cv2
import numpy as np

from sfi_ros.synthetic.layout import FENCE, VEGETATION
from sfi_ros.synthetic.light import Light

TEXELS = 14
"""Per metre of facade."""


def facade(rng: np.random.Generator, width: float, height: float, shops: bool) -> np.ndarray:
    """Unlit RGB picture (float32) of a wall with windows."""
    w, h = max(4, round(width * TEXELS)), max(4, round(height * TEXELS))
    plaster = [
        (200, 190, 170),
        (185, 160, 130),
        (170, 95, 75),
        (150, 150, 150),
        (205, 200, 195),
        (190, 170, 120),
        (140, 105, 85),
        (120, 125, 130),
    ]
    base = np.array(plaster[rng.integers(len(plaster))]) * rng.uniform(0.65, 1.1)
    picture = np.empty((h, w, 3), np.float32)
    picture[:] = base
    mottle = rng.normal(1, 0.05, (max(2, h // 24), max(2, w // 24))).astype(np.float32)
    picture *= cv2.resize(mottle, (w, h), interpolation=cv2.INTER_CUBIC)[..., None]
    if base[0] > 1.5 * base[2] or rng.random() < 0.2:  # bricks
        picture[::4] *= 0.88
    floor = rng.uniform(2.8, 3.5)
    floors = max(1, int(height / floor))
    pitch = rng.uniform(1.8, 3.4)
    columns = max(1, int(width / pitch))
    size = np.array([pitch * rng.uniform(0.35, 0.7), floor * rng.uniform(0.42, 0.68)]) * TEXELS
    frame = np.clip(base * rng.uniform(0.6, 1.5), 0, 250)
    glass = rng.uniform(30, 80) * np.array([0.9, 1.0, 1.1])
    for level in range(floors):
        bottom = h - (level * floor + 0.3 * floor) * TEXELS
        if level == 0 and shops:
            sign = rng.uniform(30, 220, 3)
            cv2.rectangle(picture, (0, round(h - 3.1 * TEXELS)), (w, round(h - 2.6 * TEXELS)), sign.tolist(), -1)
            for x in np.linspace(0, w, max(2, columns // 2 + 1))[:-1]:
                pane = (glass * rng.uniform(0.6, 1.8)).tolist()
                right = round(x + w / max(1, columns // 2) - 5)
                cv2.rectangle(picture, (round(x + 4), round(h - 2.5 * TEXELS)), (right, h - 6), pane, -1)
            continue
        for column in range(columns):
            x = (column + 0.5) * w / columns - size[0] / 2
            corner, other = (round(x), round(bottom - size[1])), (round(x + size[0]), round(bottom))
            cv2.rectangle(picture, (corner[0] - 2, corner[1] - 2), (other[0] + 2, other[1] + 2), frame.tolist(), -1)
            pane = glass * rng.uniform(0.7, 1.6) if rng.random() < 0.8 else np.array([190.0, 185, 170])
            cv2.rectangle(picture, corner, other, pane.tolist(), -1)
            middle = (corner[0] + other[0]) // 2
            cv2.rectangle(picture, corner, (other[0], corner[1] + round(0.3 * size[1])), (pane * 1.3).tolist(), -1)
            cv2.line(picture, (middle, corner[1]), (middle, other[1]), frame.tolist(), 1)
        if rng.random() < 0.5:
            cv2.line(picture, (0, round(bottom + 8)), (w, round(bottom + 8)), (base * 0.8).tolist(), 1)
    if not shops and columns > 1:
        x = round((rng.integers(columns) + 0.5) * w / columns)
        cv2.rectangle(picture, (x - 7, h - 30), (x + 7, h), (rng.uniform(30, 130, 3)).tolist(), -1)
    picture[: max(3, TEXELS // 3)] *= rng.uniform(0.6, 1.2)
    picture *= np.linspace(1.04, 0.86, h, dtype=np.float32)[:, None, None]  # less sky reaches the foot
    return picture


def surface(rng: np.random.Generator, width: float, height: float, label: int) -> np.ndarray:
    """Unlit RGB picture (float32) of a hedge, fence or wall."""
    scale = 20
    w, h = int(np.clip(width * scale, 8, 512)), max(8, round(height * scale))
    if label == VEGETATION:
        base = np.array([rng.uniform(45, 80), rng.uniform(65, 95), rng.uniform(28, 45)])
        leaves = rng.normal(1, 0.3, (h // 2, w // 2)).astype(np.float32)
        picture = cv2.resize(leaves, (w, h))[..., None] * base
    elif label == FENCE:
        base = rng.uniform(50, 170) * np.array([1.0, rng.uniform(0.8, 1), rng.uniform(0.6, 1)])
        picture = np.ones((h, w, 1), np.float32) * base
        picture[:, :: int(rng.integers(3, 8))] *= 0.55
        picture[h // 6 : h // 6 + 2] *= 1.2
        picture[-h // 4 : -h // 4 + 2] *= 1.2
    else:
        base = rng.uniform(90, 190) * np.array([1.0, rng.uniform(0.75, 1), rng.uniform(0.6, 0.95)])
        stones = rng.normal(1, 0.09, (max(2, h // 5), max(2, w // 9))).astype(np.float32)
        picture = cv2.resize(stones, (w, h), interpolation=cv2.INTER_NEAREST)[..., None] * base
        picture[::5] *= 0.8
        picture[:2] *= 1.25
    return picture.astype(np.float32) * np.linspace(1.1, 0.75, h, dtype=np.float32)[:, None, None]


def crown(rng: np.random.Generator, light: Light, round_shape: bool) -> list[np.ndarray]:
    """Lit pictures of foliage, each half as large as the one before."""
    size = 192
    alpha = np.zeros((size, size), np.uint8)
    tone = np.full((size, size), 0.75, np.float32)
    lean = light.towards_sun[0]
    for _ in range(70):
        radius = rng.uniform(11, 27)
        angle, out = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1))
        reach = size / 2 - radius - 1
        x, y = size / 2 + reach * out * np.cos(angle), size / 2 + reach * out * np.sin(angle)
        if not round_shape:
            x = size / 2 + (x - size / 2) * (0.25 + 0.75 * y / size)
        centre = (round(x), round(y))
        lit = 0.8 - 0.45 * (y / size - 0.5) + 0.35 * lean * (x / size - 0.5) + rng.normal(0, 0.08)
        cv2.circle(alpha, centre, round(radius), 255, -1)
        cv2.circle(tone, centre, round(radius), float(lit), -1)
    leaves = rng.normal(0, 1, (size // 2, size // 2)).astype(np.float32)
    leaves = cv2.resize(leaves, (size, size)) + rng.normal(0, 0.6, (size, size)).astype(np.float32)
    ragged = cv2.GaussianBlur(alpha, (0, 0), 4).astype(np.float32) + 38 * leaves
    tone = cv2.GaussianBlur(tone, (0, 0), 2) * (1 + 0.2 * leaves)
    green = np.array([rng.uniform(55, 115), rng.uniform(80, 115), rng.uniform(28, 55)])
    rgb = tone[..., None] * green * (light.ambient + 0.75 * light.sun)
    top = np.dstack([np.clip(rgb, 0, 255), np.where(ragged > 120, 255, 0)]).astype(np.uint8)
    return [cv2.resize(top, (size >> n, size >> n), interpolation=cv2.INTER_AREA) for n in range(6)]
