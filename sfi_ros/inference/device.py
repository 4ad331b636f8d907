"""On what and with which numbers an engine computes."""

from __future__ import annotations

import logging
from typing import Final

import torch

from sfi_ros import options
from sfi_ros.errors import OptionError, UnavailableError
from sfi_ros.inference import processor

logger = logging.getLogger(__name__)

PRECISIONS: Final = {name: getattr(torch, name) for name in options.PRECISIONS if name != "auto"}
_NEEDED_ON_A_CPU: Final = {
    "float16": "it needs a CUDA device",
    "bfloat16": "it needs AVX-512, or on ARM the BF16 instructions, and a PyTorch built with oneDNN",
}
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
    """Resolve "auto", "float32", "float16" or "bfloat16"; "auto" is the first of `possible_precisions`.

    Raises:
        OptionError: another name, or a precision that is not possible on this device.
    """
    possible = possible_precisions(device)
    if precision == "auto":
        return PRECISIONS[possible[0]]
    if precision not in PRECISIONS:
        raise OptionError(f"unknown precision {precision!r}; use auto, {', '.join(PRECISIONS)}")
    if precision not in possible:
        raise OptionError(
            f"precision {precision!r} is not possible on {processor.this_processor()}: {_NEEDED_ON_A_CPU[precision]}; "
            f"use auto or {' or '.join(possible)}"
        )
    return PRECISIONS[precision]


def possible_precisions(device: torch.device) -> list[str]:
    """Return the precisions in which an engine runs on a device, by name, the fastest first."""
    return ["float16", "bfloat16", "float32"] if device.type == "cuda" else processor.this_processor().precisions


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


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        logger.warning(message)
