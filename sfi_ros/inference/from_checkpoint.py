"""A checkpoint made ready to run by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from sfi_ros.errors import OptionError
from sfi_ros.inference import processor
from sfi_ros.inference.backends import Model, Pipeline
from sfi_ros.inference.camera_network import CameraNetwork
from sfi_ros.inference.cpu_pipeline import CpuPipeline
from sfi_ros.inference.device import choose_device, choose_precision
from sfi_ros.inference.fused_network import folded, folded_for_onednn
from sfi_ros.inference.torch_host import by_torch, resize_by_torch
from sfi_ros.network import checkpoint, zoo
from sfi_ros.network.checkpoint import Checkpoint, Metadata
from sfi_ros.network.outputs import SceneLogits

UNTRAINED_NETWORK: Final = "fast-mobilenetv2"


def open_checkpoint(
    path: Path, may_be_missing: bool, *, device: str, precision: str, backend: str, threads: int | None
) -> Model:
    """Load a checkpoint and make its network ready to run.

    Args:
        path: of the checkpoint.
        may_be_missing: whether an untrained network may take its place, always the same one; for the default weights.
        device, precision, backend: see `backends.open_model`.
        threads: of PyTorch; None leaves them as they are.

    Raises:
        SfiError: see `InferenceEngine.load`.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    chosen = choose_device(device)
    dtype = choose_precision(precision, chosen)
    if may_be_missing and not path.is_file():
        loaded, name = _untrained(), f"untrained {UNTRAINED_NETWORK}"
    else:
        loaded, name = checkpoint.load(path), path.name
    if loaded.network.options.mask_source == "given":
        raise OptionError(
            f"{name} was trained with mask_source='given': it predicts no mask of its own, so it cannot run on a "
            "camera alone"
        )
    if backend == "pytorch" and chosen.type == "cpu" and processor.this_processor().has_onednn:
        network = folded_for_onednn(loaded.network, dtype)
    else:
        network = folded(loaded.network, chosen, dtype)
    camera = CameraNetwork(network, chosen, dtype)
    run: Callable[[Tensor], SceneLogits] = camera
    if backend == "compile":
        from sfi_ros.inference.compiled_network import CompiledNetwork  # brings the compiler, which is large

        run = CompiledNetwork(camera, chosen)
    pipeline: Pipeline
    if chosen.type == "cpu":
        pipeline = CpuPipeline(by_torch(run), resize_by_torch)
    else:
        from sfi_ros.inference.cuda_pipeline import CudaPipeline

        pipeline = CudaPipeline(run, chosen)
    precision = str(dtype).removeprefix("torch.")
    return Model(pipeline, loaded.metadata, name, backend, str(chosen), precision)


def _untrained() -> Checkpoint:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = zoo.build(UNTRAINED_NETWORK).eval()
    metadata = Metadata(name=network.name, options=network.options.to_dict(), training_data="none: untrained")
    return Checkpoint(network, metadata)
