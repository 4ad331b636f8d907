"""What computes the network: PyTorch, `torch.compile` or ONNX Runtime, on a CPU or a GPU.

The file of weights decides: a checkpoint is PyTorch's, an exported file ONNX Runtime's. Only what that needs is
imported, so that a vehicle that runs exported files needs no PyTorch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import cv2
import numpy as np

from sfi_ros.errors import OptionError
from sfi_ros.inference.scene import Scene
from sfi_ros.inference.temporal import TemporalFilter
from sfi_ros.inference.threads import available_cores
from sfi_ros.network.metadata import Metadata
from sfi_ros.network.shipped_weights import find_weights
from sfi_ros.optional import require_pytorch
from sfi_ros.options import BACKENDS, experimental

logger = logging.getLogger(__name__)

_FOR_ONNX: Final = ("onnxruntime", "tensorrt")


class Pipeline(Protocol):
    """From images to scenes."""

    def __call__(
        self,
        groups: Sequence[Sequence[np.ndarray]],
        input_height: int,
        at_input_size: bool,
        threshold: float,
        memories: Sequence[TemporalFilter] = (),
    ) -> list[Scene]:
        """See `CpuPipeline.__call__`."""

    def facts(self) -> dict[str, str]:
        """Return what else there is to say about where it runs, for people."""

    def close(self) -> None:
        """Let go of the network and its memory; it cannot be used any more."""


@dataclass(frozen=True)
class Model:
    """A network that is ready to run.

    Attributes:
        pipeline: runs it.
        metadata: of the checkpoint.
        weights_name: what to call its weights.
        backend: one of `BACKENDS` but "auto".
        device: where it runs: "cpu", "cuda" or "cuda:N".
        precision: what it computes in, one of `PRECISIONS` but "auto".
    """

    pipeline: Pipeline
    metadata: Metadata
    weights_name: str
    backend: str
    device: str
    precision: str


def open_model(
    weights: str | Path | None,
    *,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
    threads: int | None = None,
) -> Model:
    """Load weights and make them ready to run.

    Args:
        weights: see `InferenceEngine.load`.
        device: see `device.choose_device`.
        precision: see `device.choose_precision`.
        backend: "pytorch": on a CPU convolution, batch norm and activation as one oneDNN primitive, on a GPU a CUDA
            graph. "compile": the same, its kernels made by `torch.compile`; needs a C++ compiler on a CPU and takes
            its time at the first image. "onnxruntime": for `.onnx` files, in the numbers that they hold.
            "tensorrt": these on a GPU through ONNX Runtime's TensorRT, which compiles for minutes at the first run.
            "auto": "onnxruntime" for an `.onnx` file, else "pytorch".
        threads: see `InferenceEngine.load`.

    Raises:
        SfiError: see `InferenceEngine.load`.
    """
    if backend not in BACKENDS:
        raise OptionError(f"unknown backend {backend!r}; use {', '.join(BACKENDS)}")
    path = find_weights(weights)
    is_onnx = path.suffix == ".onnx"
    if backend == "auto":
        backend = "onnxruntime" if is_onnx else "pytorch"
    if is_onnx != (backend in _FOR_ONNX):
        remedy = "use backend 'auto', 'onnxruntime' or 'tensorrt'" if is_onnx else "make one with `sfi export`"
        raise OptionError(f"backend {backend!r} cannot run {weights or 'the default weights'}: {remedy}")
    if warning := experimental(f"backend={backend}"):
        logger.warning("%s", warning)
    if threads is not None:
        if threads < 1:
            raise OptionError(f"threads must be at least 1; got {threads}")
        threads = min(threads, available_cores())  # more threads than cores wait for each other
        cv2.setNumThreads(threads)
    if is_onnx:
        from sfi_ros.inference.from_export import open_exported  # ONNX Runtime is optional

        return open_exported(path, device=device, precision=precision, backend=backend, threads=threads)
    require_pytorch(f"the checkpoint {path}")
    from sfi_ros.inference.from_checkpoint import open_checkpoint

    return open_checkpoint(path, weights is None, device=device, precision=precision, backend=backend, threads=threads)
