"""What all tests share: bounded threads, and where the real data lies."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes share two cores

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

REFERENCE = ROOT / "test" / "data" / "reference"
"""Outputs of the authors' released code; its README says how they were made."""

torch.set_num_threads(1)


def shared(relative: str) -> Path:
    """A path below ../shared; skips the test, with the reason, where it is absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path
