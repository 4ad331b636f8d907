"""What computes the network: PyTorch, `torch.compile` or ONNX Runtime, on a CPU or a GPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import cv2
import numpy as np
import torch

from sfi_ros.errors import OptionError
from sfi_ros.inference import processor
from sfi_ros.inference.camera_network import CameraNetwork
from sfi_ros.inference.compiled_network import CompiledNetwork
from sfi_ros.inference.cpu_pipeline import CpuPipeline, NetworkRunner
from sfi_ros.inference.cuda_pipeline import CudaPipeline
from sfi_ros.inference.device import choose_device, choose_precision
from sfi_ros.inference.fused_network import folded, folded_for_onednn
from sfi_ros.inference.processor import available_cores
from sfi_ros.inference.scene import Scene
from sfi_ros.inference.weights import load_weights
from sfi_ros.network.checkpoint import Metadata
from sfi_ros.options import BACKENDS, experimental

logger = logging.getLogger(__name__)

_FOR_ONNX: Final = ("onnxruntime", "tensorrt")


class Pipeline(Protocol):
    """From images to scenes."""

    def __call__(
        self, groups: Sequence[Sequence[np.ndarray]], input_height: int, at_input_size: bool, threshold: float
    ) -> list[Scene]:
        """See `CpuPipeline.__call__`."""


@dataclass(frozen=True)
class Model:
    """A network that is ready to run.

    Attributes:
        pipeline: runs it.
        metadata: of the checkpoint.
        weights_name: what to call its weights.
        backend: one of `BACKENDS` but "auto".
        device: where it runs.
        dtype: what it computes in.
    """

    pipeline: Pipeline
    metadata: Metadata
    weights_name: str
    backend: str
    device: torch.device
    dtype: torch.dtype


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
    is_onnx = weights is not None and Path(weights).suffix == ".onnx"
    if backend == "auto":
        backend = "onnxruntime" if is_onnx else "pytorch"
    if is_onnx != (backend in _FOR_ONNX):
        remedy = "use backend 'auto', 'onnxruntime' or 'tensorrt'" if is_onnx else "make one with `sfi export`"
        raise OptionError(f"backend {backend!r} cannot run {weights or 'the default weights'}: {remedy}")
    if warning := experimental(f"backend={backend}"):
        logger.warning("%s", warning)
    if threads is not None:
        _bound_threads(threads)
    chosen = choose_device(device)
    if is_onnx:
        return _open_onnx(Path(str(weights)), backend, chosen, precision, threads)
    dtype = choose_precision(precision, chosen)
    checkpoint, name = load_weights(weights)
    if checkpoint.network.options.mask_source == "given":
        raise OptionError(
            f"{name} was trained with mask_source='given': it predicts no mask of its own, so it cannot run on a "
            "camera alone"
        )
    if backend == "pytorch" and chosen.type == "cpu" and processor.this_processor().has_onednn:
        network = folded_for_onednn(checkpoint.network, dtype)
    else:
        network = folded(checkpoint.network, chosen, dtype)
    camera = CameraNetwork(network, chosen, dtype)
    run: NetworkRunner = CompiledNetwork(camera, chosen) if backend == "compile" else camera
    pipeline = CpuPipeline(run) if chosen.type == "cpu" else CudaPipeline(run, chosen)
    return Model(pipeline, checkpoint.metadata, name, backend, chosen, dtype)


def _open_onnx(path: Path, backend: str, device: torch.device, precision: str, threads: int | None) -> Model:
    if precision not in ("auto", "float32"):
        raise OptionError(f"an exported network computes in float32; got precision {precision!r}: use auto")
    from sfi_ros.inference.onnx_network import OnnxNetwork  # ONNX Runtime is optional

    provider = "tensorrt" if backend == "tensorrt" else None  # None: that of the device
    network = OnnxNetwork(path, device=device, threads=threads, provider=provider)
    return Model(CpuPipeline(network), network.metadata, path.name, backend, device, torch.float32)


def _bound_threads(threads: int) -> None:
    if threads < 1:
        raise OptionError(f"threads must be at least 1; got {threads}")
    threads = min(threads, available_cores())  # more threads than cores wait for each other
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
