"""What an engine can be asked for, by name.

Nothing is imported here, so that a launch file can check an argument before it starts anything, in a Python that may
have no PyTorch.
"""

from __future__ import annotations

from typing import Final

DEVICE_PATTERN: Final = r"auto|cpu|cuda(:\d+)?"
PRECISIONS: Final = ("auto", "float32", "float16", "bfloat16")
BACKENDS: Final = ("auto", "pytorch", "compile", "onnxruntime", "tensorrt")
EXPERIMENTAL: Final = {
    "backend=compile": "torch.compile makes the kernels of an engine",
    "backend=tensorrt": "TensorRT runs an exported file",
    "run.compile=true": "torch.compile makes the kernels of training",
    "data.augment_on=device": "training samples are augmented a batch at a time where the network is",
}
"""Ways to be faster that have not been measured on a GPU. None is chosen unless it is asked for, who asks is told (see
`experimental`), and the first figures of `benchmarks/on_gpu.sh` decide: what does not pay goes."""
OUTPUT_SIZES: Final = ("input", "network")
INPUT_HEIGHTS: Final = (32, 4096)  # least and greatest, in pixels

STORED: Final = ("float32", "float16")
"""Numbers that an exported file's weights can be stored in; it computes in float32."""

MAX_EXPORT_SIDE: Final = 2048
"""Longest side, in pixels, that an exported file for any size takes unless told otherwise."""


def experimental(setting: str) -> str | None:
    """Return what to tell those who ask for a setting (`key=value`) that is experimental; None for all others."""
    if setting not in EXPERIMENTAL:
        return None
    return f"{setting} is experimental ({EXPERIMENTAL[setting]}): right by its tests, not measured on a GPU yet"
