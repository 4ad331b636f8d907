"""Packages that a vehicle may do without."""

from __future__ import annotations

import importlib.util

from sfi_ros.errors import UnavailableError


def has_pytorch() -> bool:
    """Whether PyTorch is installed."""
    try:
        return importlib.util.find_spec("torch") is not None
    except (ImportError, ValueError):
        return False


def require_pytorch(what: str) -> None:
    """Refuse what only PyTorch can do where it is not installed.

    Args:
        what: it does, as the subject of a sentence.

    Raises:
        UnavailableError: names the remedy.
    """
    if not has_pytorch():
        raise UnavailableError(
            f"{what} needs PyTorch, which is not installed: pip install 'sfi_ros[torch]', or run an exported .onnx file"
        )
