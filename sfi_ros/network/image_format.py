"""How large an image goes into a network, and what it is normalised with: plain numbers, without PyTorch."""

from __future__ import annotations

from typing import Final

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


def network_size(height: int, width: int, input_height: int) -> tuple[int, int]:
    """Return the (height, width) at which an image is processed: `input_height` high, its aspect ratio kept."""
    if min(height, width, input_height) < 1:
        raise ValueError(f"sizes must be positive; got an image of {width}x{height} and input_height {input_height}")
    return input_height, max(1, round(width * input_height / height))
