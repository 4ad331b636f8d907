"""Pictures of an evaluation: masks, class maps and errors, in the project's colours."""

from __future__ import annotations

import cv2
import numpy as np

from sfi_ros.classes import FOREGROUND_COLOR, IGNORE

WRONG_COLOR, RIGHT_COLOR, WRONG_ELSEWHERE_COLOR = (214, 39, 40), (60, 160, 90), (240, 190, 120)


def outline(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw the inner border of a mask (H, W) in white onto a copy of a picture (H, W, 3) uint8."""
    inside = (mask > 0).astype(np.uint8)
    # Beyond the image nothing is known: its border is no border of an object.
    core = cv2.erode(inside, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    drawn = picture.copy()
    drawn[(inside > 0) & (core == 0)] = 255
    return drawn


def tint(photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blend a photo (H, W, 3) uint8 with the foreground colour where `mask` (H, W) is set."""
    return _blend(photo, FOREGROUND_COLOR, mask, 0.55)


def color_errors(photo: np.ndarray, predicted: np.ndarray, truth: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Colour right and wrong pixels over a pale grey version of the photo; pixels without truth stay grey.

    Args:
        photo: (H, W, 3) uint8 RGB.
        predicted, truth: (H, W) classes.
        foreground: (H, W), 1 on objects.
    """
    gray = photo.astype(np.float32).mean(2, keepdims=True).repeat(3, axis=2)
    pale = (110 + gray * 0.5).astype(np.uint8)
    known, inside = truth != IGNORE, foreground > 0
    wrong = known & (predicted != truth)
    pale = _blend(pale, WRONG_ELSEWHERE_COLOR, wrong & ~inside, 0.7)
    pale = _blend(pale, RIGHT_COLOR, known & ~wrong & inside, 0.7)
    return _blend(pale, WRONG_COLOR, wrong & inside, 0.8)


def encode_photo(picture: np.ndarray) -> bytes:
    """RGB (H, W, 3) uint8 -> JPEG file: small."""
    return cv2.imencode(".jpg", picture[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 85))[1].tobytes()


def encode_map(picture: np.ndarray) -> bytes:
    """RGB (H, W, 3) uint8 of few colours -> PNG file: small there, and exact."""
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()


def _blend(photo: np.ndarray, color: tuple[int, int, int], mask: np.ndarray, alpha: float) -> np.ndarray:
    mixed = np.rint(photo * (1 - alpha) + np.multiply(color, alpha)).astype(np.uint8)
    return np.where(mask.astype(bool)[..., None], mixed, photo)
