"""Pictures for people: class maps in colour and overlays."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from sfi_ros.classes import BACKGROUND_COLORS, FOREGROUND_COLOR, IGNORE_COLOR
from sfi_ros.geometry.layout import BLOCKED, INFERRED, GroundLayout

BLOCKED_COLOR: Final = (45, 45, 45)
"""RGB of ground that lies behind something fixed."""


def _palette() -> np.ndarray:
    palette = np.full((256, 3), IGNORE_COLOR, dtype=np.uint8)
    palette[: len(BACKGROUND_COLORS)] = BACKGROUND_COLORS
    return palette


PALETTE: Final = _palette()
"""uint8[256, 3]: background class -> RGB; every value without a class, 255 among them, has the ignore colour."""


def colorize(background: np.ndarray) -> np.ndarray:
    """Background classes (H, W) uint8 -> RGB (H, W, 3) uint8."""
    _check(background, (2,), "background")
    return cv2.LUT(cv2.merge([background] * 3), PALETTE[:, None, :])


def overlay(image: np.ndarray, foreground: np.ndarray, background: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """Tint an image with its background classes and draw the outline of its foreground.

    Behind an object the colour is that of the background which was inpainted there.

    Args:
        image: (H, W, 3) uint8 RGB.
        foreground: (H, W) uint8, 0 or 1.
        background: (H, W) uint8 classes.
        alpha: share of the tint, 0 to 1.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: sizes or dtypes that do not fit, or an alpha outside 0..1.
    """
    _check(image, (3,), "image")
    _check(foreground, (2,), "foreground")
    _check(background, (2,), "background")
    if not image.shape[:2] == foreground.shape == background.shape:
        raise ValueError(
            f"image {image.shape[:2]}, foreground {foreground.shape} and background {background.shape} must be "
            "of one size"
        )
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must be within 0..1; got {alpha}")
    tinted = cv2.addWeighted(image, 1 - alpha, colorize(background), alpha, 0)
    outlines, _ = cv2.findContours(foreground, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(image.shape[0] / 256))
    return cv2.drawContours(tinted, outlines, -1, FOREGROUND_COLOR, thickness)


def layout_picture(layout: GroundLayout, height: int | None = None) -> np.ndarray:
    """Draw a layout as a map: x, where the vehicle looks, points up.

    Cells have the colour of their class, paler where it is inferred; feet of objects that of objects; what is blocked
    is dark grey, what is out of view black.

    Args:
        layout: of a frame.
        height: of the picture, pixels; default: one pixel for each cell.

    Returns:
        (H, W, 3) uint8 RGB, one pixel or square of pixels for each cell.
    """
    colours = colorize(layout.classes)
    inferred = layout.evidence == INFERRED
    colours[inferred] = colours[inferred] // 2 + 110
    colours[layout.evidence == BLOCKED] = BLOCKED_COLOR
    colours[layout.objects != 0] = FOREGROUND_COLOR
    picture = np.ascontiguousarray(colours.transpose(1, 0, 2)[::-1, ::-1])
    if height is None:
        return picture
    width = round(picture.shape[1] * height / picture.shape[0])
    shrinks = height < picture.shape[0]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)


def _check(array: np.ndarray, dimensions: tuple[int, ...], name: str) -> None:
    channels_fit = array.ndim != 3 or array.shape[2] == 3
    if array.dtype != np.uint8 or array.ndim not in dimensions or not channels_fit:
        raise ValueError(f"{name} must be uint8 with {dimensions[0]} dimensions; got {array.shape} of {array.dtype}")


def side_by_side(panels: dict[str, np.ndarray]) -> np.ndarray:
    """Titled RGB pictures of one size, two in a row.

    Args:
        panels: title -> (H, W, 3) uint8 RGB.

    Returns:
        (rows * (H + title), 2 * W, 3) uint8 RGB.
    """
    titled = []
    for title, picture in panels.items():
        _check(picture, (3,), title)
        scale = picture.shape[1] / 1024
        bar = np.full((max(12, round(40 * scale)), picture.shape[1], 3), 255, dtype=np.uint8)
        origin = (round(10 * scale), bar.shape[0] - round(11 * scale))
        cv2.putText(
            bar, title, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), max(1, round(2 * scale)), cv2.LINE_AA
        )
        titled.append(np.vstack([bar, picture]))
    if len(titled) % 2:
        titled.append(np.full_like(titled[0], 255))
    return np.vstack([np.hstack(titled[i : i + 2]) for i in range(0, len(titled), 2)])
