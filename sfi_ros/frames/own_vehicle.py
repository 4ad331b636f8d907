"""Where a camera's images show the vehicle that carries it: read from what a user names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np

from sfi_ros.errors import OptionError, SfiError
from sfi_ros.frames.decoding import decode_photo

_CORNER: Final = re.compile(r"(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?)")


def read_own_vehicle(text: str, name: str) -> np.ndarray | None:
    """Read where a camera's images show the own vehicle.

    Args:
        text: path of an image that is not black there, or corners in pixels: "0,719 640,650 1279,719"; "" for nowhere.
        name: of the option or parameter, for errors.

    Returns:
        As `ground_table.own_vehicle_mask` takes it: corners (N, 2), or an image (h, w) uint8.

    Raises:
        OptionError: neither.
    """
    if not text:
        return None
    if all(_CORNER.fullmatch(corner) for corner in text.split()):
        corners = np.array([corner.split(",") for corner in text.split()], np.float64)
        if len(corners) < 3:
            raise OptionError(f"{name} has {len(corners)} corners; a polygon has three or more")
        return corners
    try:
        return decode_photo(Path(text).read_bytes()).max(axis=2)
    except (OSError, SfiError) as error:
        raise OptionError(
            f"{name} {text} is neither an image ({error}) nor corners such as '0,719 640,650 1279,719'"
        ) from error
