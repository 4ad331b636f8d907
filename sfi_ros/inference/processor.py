"""What this computer's processor can do. Every decision that depends on it asks here."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sfi_ros.inference.fused_network import OneDnnConv, OneDnnPointwise
from sfi_ros.network.bfloat16 import multiplies_bfloat16


@dataclass(frozen=True)
class Processor:
    """What PyTorch can do on one processor.

    Attributes:
        name: as the operating system calls it.
        instructions: the widest vector instructions that PyTorch uses, in its own words: "AVX2", "AVX512", "SVE256",
            or "DEFAULT" for those that every processor of this kind has.
        has_onednn: whether oneDNN computes a convolution and its activation as one primitive.
        has_bfloat16: whether it does so in bfloat16.
        has_fast_bfloat16: whether that is faster than float32. It is where AVX-512 multiplies bfloat16. Other AVX-512
            converts it to float32 and back, which is slower; ARM with bfloat16 has not been measured.
    """

    name: str
    instructions: str
    has_onednn: bool
    has_bfloat16: bool
    has_fast_bfloat16: bool

    @property
    def precisions(self) -> list[str]:
        """The precisions in which an engine can run, the fastest first."""
        if not self.has_bfloat16:
            return ["float32"]
        return ["bfloat16", "float32"] if self.has_fast_bfloat16 else ["float32", "bfloat16"]

    def __str__(self) -> str:
        """Name and what decides on speed, as in "AMD EPYC (AVX2, no bfloat16)"."""
        bfloat16 = "bfloat16" if self.has_fast_bfloat16 else "slow bfloat16" if self.has_bfloat16 else "no bfloat16"
        facts = [self.instructions, bfloat16] if self.has_onednn else [self.instructions, bfloat16, "no oneDNN"]
        return f"{self.name} ({', '.join(facts)})"


@functools.cache
def this_processor() -> Processor:
    """Return the processor of this computer, as far as PyTorch and oneDNN use it.

    Both can be told to use less of it, by the environment variables ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA.
    """
    instructions = torch.backends.cpu.get_cpu_capability()
    has_bfloat16 = _onednn_computes(torch.bfloat16)
    return Processor(
        name=_name(),
        instructions=instructions,
        has_onednn=_onednn_computes(torch.float32),
        has_bfloat16=has_bfloat16,
        has_fast_bfloat16=has_bfloat16 and instructions == "AVX512" and multiplies_bfloat16(),
    )


@torch.inference_mode()
def _onednn_computes(dtype: torch.dtype) -> bool:
    """Whether the convolutions that an engine runs through oneDNN work in `dtype`.

    Tried, not derived from the processor's flags: what oneDNN needs differs between x86 and ARM and between versions,
    and PyTorch may be built without it.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    with torch.random.fork_rng(devices=[]):
        convolutions = [OneDnnConv(nn.Conv2d(8, 8, 3), ("relu", ()), dtype)]
        convolutions += [OneDnnPointwise(nn.Conv2d(8, 8, 1), ("relu", ()), dtype)]
    features = torch.zeros(1, 8, 8, 8, dtype=dtype)
    try:
        for convolution in convolutions:
            convolution(features)
    except (AttributeError, RuntimeError):  # AttributeError: a PyTorch that does not have these primitives
        return False
    return True


def _name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]  # not on every ARM
    return names[0] if names else platform.processor() or platform.machine()
