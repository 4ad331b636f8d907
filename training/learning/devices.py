"""On what a run is computed: devices, processes and precision, by Lightning Fabric."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers import Logger
from lightning.fabric.utilities.exceptions import MisconfigurationException

from sfi_ros.network.bfloat16 import multiplies_bfloat16
from training.configuration import ConfigurationError, RunConfig

PRECISIONS: Final = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
"""Our names -> Fabric's."""


def build_fabric(options: RunConfig, loggers: Sequence[Logger] = ()) -> Fabric:
    """Choose devices, processes and precision, and start the other processes of this machine if there are any.

    Raises:
        ConfigurationError: the machine does not have what was asked for.
    """
    on_gpu = options.accelerator == "gpu" or (options.accelerator == "auto" and torch.cuda.is_available())
    # torchrun says how many processes there are; otherwise all GPUs of the machine, or one CPU process.
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 0))
    devices = local or options.devices or (torch.cuda.device_count() if on_gpu else 1)
    nodes = int(os.environ["WORLD_SIZE"]) // local if local else options.nodes
    if on_gpu and not devices:
        raise ConfigurationError("run.accelerator=gpu, but PyTorch finds no GPU: set run.accelerator=cpu")
    precision = options.precision
    if precision == "auto":
        precision = "bfloat16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if precision == "float16" and not on_gpu:
        raise ConfigurationError("run.precision=float16 trains on a GPU only: set run.precision=float32")
    if precision == "bfloat16" and not on_gpu and not multiplies_bfloat16():
        raise ConfigurationError(
            "run.precision=bfloat16 trains on a GPU, or on a processor whose AVX-512 multiplies bfloat16, which this "
            "one's does not: set run.precision=float32"
        )
    if on_gpu:
        torch.set_float32_matmul_precision("high")  # float32 is multiplied on tensor cores
        torch.backends.cudnn.benchmark = not options.deterministic  # looks for the fastest convolutions
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(options.deterministic, warn_only=True)
    try:
        fabric = Fabric(
            accelerator="gpu" if on_gpu else "cpu",
            devices=devices,
            num_nodes=nodes,
            strategy="ddp" if devices * nodes > 1 else "auto",
            precision=PRECISIONS[precision],
            loggers=list(loggers),
        )
    except MisconfigurationException as error:  # more devices than there are, …
        raise ConfigurationError(f"run.accelerator, run.devices: {error}") from error
    fabric.launch()
    return fabric


def rank() -> int:
    """Return this process's number, as torchrun says, or Fabric, which starts the processes of one machine itself."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))
