"""What an engine can be asked for, by name.

Nothing is imported here, so that a launch file can check an argument before it starts anything, in a Python that may
have no PyTorch.
"""

from __future__ import annotations

from typing import Final

DEVICE_PATTERN: Final = r"auto|cpu|cuda(:\d+)?"
PRECISIONS: Final = ("auto", "float32", "float16", "bfloat16")
BACKENDS: Final = ("auto", "pytorch", "compile", "onnxruntime", "tensorrt")
OUTPUT_SIZES: Final = ("input", "network")
INPUT_HEIGHTS: Final = (32, 4096)  # least and greatest, in pixels
