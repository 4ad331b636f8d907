"""How large an image and its values may be."""

from __future__ import annotations

from typing import Final

from sfi_ros.errors import ImageError

MAX_MEGAPIXELS: Final = 24.0
"""Default limit of images that come as messages; an 8k picture has 33."""
FILE_MEGAPIXELS: Final = 100.0
"""Default limit of images that are files: photos of large cameras, but not what a damaged header announces."""
MAX_SIGNIFICANT_BITS: Final = 16
"""Of a value in a 16-bit image; see `decoding.upper_eight_bits`."""


def check_size(width: int, height: int, what: str, max_megapixels: float) -> None:
    """Refuse images without pixels or with too many.

    Args:
        width, height: in pixels.
        what: names the image in the error.
        max_megapixels: the limit.

    Raises:
        ImageError: the size is zero or above the limit.
    """
    if width <= 0 or height <= 0:
        raise ImageError(f"{what} has no pixels")
    if width * height > max_megapixels * 1e6:
        raise ImageError(f"{what} exceeds the limit of {max_megapixels:g} megapixels (max_megapixels)")
