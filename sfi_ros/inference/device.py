"""On what and with which numbers an engine computes."""

from __future__ import annotations

import logging
import os
from typing import Final

import torch

from sfi_ros.errors import OptionError, UnavailableError

logger = logging.getLogger(__name__)

PRECISIONS: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_said: set[str] = set()


def choose_device(device: str) -> torch.device:
    """Resolve "auto", "cpu", "cuda" or "cuda:N".

    "auto" takes CUDA when it works and the CPU otherwise, and logs once what it took and why.

    Raises:
        OptionError: not the name of a device that this package supports.
        UnavailableError: a CUDA device was named and does not work; an engine never runs elsewhere than it was told to.
    """
    if device == "auto":
        problem = _cuda_problem(torch.device("cuda"))
        chosen = torch.device("cpu" if problem else "cuda")
        _say_once(f"device 'auto': running on the CPU ({problem})" if problem else "device 'auto': running on CUDA")
        return chosen
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise OptionError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:N") from error
    if chosen.type not in ("cpu", "cuda"):
        raise OptionError(f"unsupported device {device!r}; use auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (problem := _cuda_problem(chosen)):
        raise UnavailableError(
            f"device {device!r} was asked for, but {problem}; name 'cpu' or 'auto' to run without it"
        )
    return chosen


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Resolve "auto", "float32", "float16" or "bfloat16".

    "auto" is float16 on CUDA; on a CPU bfloat16 where the processor multiplies it natively, else float32.

    Raises:
        OptionError: another name, or float16 on a CPU, which is slower there than float32.
    """
    if precision == "auto":
        if device.type == "cuda":
            return torch.float16
        return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32
    if precision not in PRECISIONS:
        raise OptionError(f"unknown precision {precision!r}; use auto, {', '.join(PRECISIONS)}")
    if precision == "float16" and device.type == "cpu":
        raise OptionError("float16 is slower than float32 on a CPU; use float32, bfloat16 or auto")
    return PRECISIONS[precision]


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cuda_problem(device: torch.device) -> str | None:
    """Why a CUDA device does not work, or None. A driver that lists a GPU may still fail to run on it."""
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device"
    if device.index is not None and device.index >= torch.cuda.device_count():
        return f"PyTorch finds {torch.cuda.device_count()} CUDA device(s)"
    try:
        torch.ones(8, device=device).sum().item()
    except RuntimeError as error:
        return f"CUDA failed: {str(error).splitlines()[0]}"
    return None


def _cpu_has_bfloat16() -> bool:
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check is not None and check())


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        logger.warning(message)
