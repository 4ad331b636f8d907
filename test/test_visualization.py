"""Palette and overlays."""

from __future__ import annotations

import numpy as np
import pytest

from sfi_ros.classes import BACKGROUND_COLORS, FOREGROUND_COLOR, IGNORE_COLOR
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.layout import BLOCKED, INFERRED, OUT_OF_VIEW, SEEN, GroundLayout
from sfi_ros.visualization import (
    BLOCKED_COLOR,
    PALETTE,
    colorize,
    layout_picture,
    overlay,
    side_by_side,
)


def random_classes() -> np.ndarray:
    return np.random.default_rng(0).choice(np.array([0, 1, 2, 255], dtype=np.uint8), size=(13, 17))


def test_each_pixel_has_the_color_of_its_class():
    classes = random_classes()
    colors = colorize(classes)
    assert colors.shape == (13, 17, 3)
    assert colors.dtype == np.uint8
    assert np.array_equal(colors, PALETTE[classes])


def test_colors_are_those_of_the_classes():
    colors = colorize(np.array([[0, 1, 2, 255, 77]], dtype=np.uint8))[0]
    assert [tuple(color) for color in colors] == [*BACKGROUND_COLORS, IGNORE_COLOR, IGNORE_COLOR]
    assert PALETTE.shape == (256, 3)
    assert len({tuple(color) for color in PALETTE[[0, 1, 2, 255]]}) == 4


def test_overlay_mixes_and_outlines():
    image = np.full((40, 40, 3), 100, dtype=np.uint8)
    foreground = np.zeros((40, 40), dtype=np.uint8)
    foreground[10:30, 10:30] = 1
    background = np.ones((40, 40), dtype=np.uint8)
    picture = overlay(image, foreground, background, alpha=0.25)
    expected = np.round(0.75 * 100 + 0.25 * np.array(BACKGROUND_COLORS[1]))
    assert np.abs(picture[2, 2] - expected).max() <= 1
    assert np.abs(picture[20, 20] - expected).max() <= 1  # behind the object, too
    assert tuple(picture[10, 20]) == FOREGROUND_COLOR
    assert np.array_equal(overlay(image, np.zeros_like(foreground), background, alpha=0.0), image)
    assert image.max() == 100  # the input is left as it was


def test_side_by_side_keeps_the_pictures():
    pictures = {name: np.full((50, 100, 3), value, np.uint8) for name, value in (("a", 10), ("b", 20), ("c", 30))}
    sheet = side_by_side(pictures)
    bar = sheet.shape[0] // 2 - 50
    assert sheet.shape == (2 * (50 + bar), 200, 3)
    assert (sheet[bar : bar + 50, :100] == 10).all()
    assert (sheet[bar : bar + 50, 100:] == 20).all()
    assert (sheet[-50:, :100] == 30).all()
    assert (sheet[:bar, :100] < 200).any()  # a title is written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)), "image must be uint8"),
        ((np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8), np.zeros((4, 4), np.uint8)), "of one size"),
        ((np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), 1.5), "alpha"),
    ],
)
def test_wrong_inputs_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        overlay(*arguments)


def test_a_layout_is_a_map_that_points_up():
    layout = GroundLayout(
        GroundGrid(0, 3, -1, 1, 1.0),
        classes=np.array([[0, 1, 255], [0, 0, 255]], np.uint8),
        confidence=np.zeros((2, 3), np.uint8),
        evidence=np.array([[SEEN, SEEN, BLOCKED], [SEEN, INFERRED, OUT_OF_VIEW]], np.uint8),
        objects=np.array([[0, 0, 0], [1, 0, 0]], np.uint8),
        depth=np.zeros((2, 3), np.uint8),
    )
    picture = layout_picture(layout)
    assert picture.shape == (3, 2, 3)  # x up, y to the left
    right = [tuple(color) for color in picture[::-1, 1]]
    assert right == [BACKGROUND_COLORS[0], BACKGROUND_COLORS[1], BLOCKED_COLOR]
    left = [tuple(color) for color in picture[::-1, 0]]
    assert left[0] == FOREGROUND_COLOR and left[2] == IGNORE_COLOR
    assert all(pale > seen for pale, seen in zip(left[1], BACKGROUND_COLORS[0], strict=True))
    assert layout_picture(layout, 9).shape == (9, 6, 3)
