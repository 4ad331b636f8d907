"""An exported network made ready to run: NumPy and OpenCV resize and decide, ONNX Runtime computes. No PyTorch."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Final

import numpy as np

from sfi_ros.errors import OptionError, UnavailableError
from sfi_ros.inference.backends import Model
from sfi_ros.inference.cpu_pipeline import CpuPipeline, HostNetwork
from sfi_ros.inference.decision import probabilities_of
from sfi_ros.inference.onnx_network import OnnxNetwork, import_onnxruntime
from sfi_ros.inference.resizing import resize_by_numpy
from sfi_ros.options import DEVICE_PATTERN

logger = logging.getLogger(__name__)

PRECISION: Final = "float32"
"""What an exported network computes in, whatever its weights are stored in."""


def open_exported(path: Path, *, device: str, precision: str, backend: str, threads: int | None) -> Model:
    """Open an exported network.

    Args:
        path: `.onnx` file of `sfi export`.
        device: "cpu", "cuda", "cuda:N", or "auto": CUDA where the installed ONNX Runtime has it and it starts.
        precision: "auto" or `PRECISION`.
        backend: "onnxruntime" or "tensorrt".
        threads: see `OnnxNetwork`.

    Raises:
        SfiError: see `InferenceEngine.load`.
    """
    if precision not in ("auto", PRECISION):
        raise OptionError(f"an exported network computes in {PRECISION}; got precision {precision!r}: use auto")
    if not re.fullmatch(DEVICE_PATTERN, device):
        raise OptionError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:N")
    provider = "tensorrt" if backend == "tensorrt" else None  # None: that of the device
    if device == "auto":
        device, network = _open_anywhere(path, provider, threads)
    else:
        network = OnnxNetwork(path, device=device, threads=threads, provider=provider)
    return Model(
        CpuPipeline(_on_host(network), resize_by_numpy), network.metadata, path.name, backend, device, PRECISION
    )


def _open_anywhere(path: Path, provider: str | None, threads: int | None) -> tuple[str, OnnxNetwork]:
    """Open a file on a GPU where that works or is the only place for it, else on the CPU; returns where."""
    if provider is None and "CUDAExecutionProvider" not in import_onnxruntime().get_available_providers():
        return "cpu", OnnxNetwork(path, device="cpu", threads=threads)
    try:
        return "cuda", OnnxNetwork(path, device="cuda", threads=threads, provider=provider)
    except UnavailableError as error:
        if provider is not None:
            raise
        logger.warning("device 'auto': running on the CPU (%s)", error)
    return "cpu", OnnxNetwork(path, device="cpu", threads=threads)


def _on_host(network: OnnxNetwork) -> HostNetwork:
    def run(images: np.ndarray) -> np.ndarray:
        return probabilities_of(*network(images.transpose(0, 3, 1, 2)))

    return run
