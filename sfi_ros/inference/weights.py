"""Which weights an engine runs when nobody names any."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sfi_ros.optional import has_pytorch

_FOLDER: Final = Path(__file__).resolve().parents[1] / "weights"

DEFAULT_WEIGHTS: Final = _FOLDER / "default.safetensors"
"""The checkpoint that ships with the package."""

DEFAULT_EXPORT: Final = _FOLDER / "default.onnx"
"""The same exported, for vehicles without PyTorch: what `make weights` writes."""


class DefaultWeightsMissing(UserWarning):
    """No weights were named and none ship with this copy of the package: the network is untrained."""


def default_weights() -> Path:
    """Return the checkpoint that ships, or where PyTorch is not installed its exported form, if that is there."""
    return DEFAULT_EXPORT if DEFAULT_EXPORT.is_file() and not has_pytorch() else DEFAULT_WEIGHTS
