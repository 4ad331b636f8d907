"""What this machine can do at most: multiply rate by type, and copy bandwidth, measured with PyTorch itself.

    .venv/bin/python benchmarks/machine.py
    .venv/bin/python benchmarks/machine.py --device cuda --json out/machine.json

The rate is the best of a large matrix product and of a large 3x3 convolution, so that no network of ours can be above
it but by noise. Meaningful only while nothing else runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F

from benchmarks import tables
from sfi_ros.inference.device import PRECISIONS, choose_device, possible_precisions
from sfi_ros.inference.processor import this_processor

# Sizes at which the rate no longer grows: products N x N, convolutions of C channels on an image of H x W pixels.
SIZES = {"cpu": (2048, (256, 64, 128), 64 << 20), "cuda": (8192, (512, 256, 256), 1 << 30)}


@dataclass(frozen=True)
class Machine:
    """The measured peak of one device.

    Attributes:
        device: "cpu" or "cuda:N".
        name: GPU, or processor and what it can do.
        threads: with how many threads of the CPU it was measured.
        matmul_gflops, conv_gflops: 1e9 operations per second by precision ("float32", ...), of those that are possible.
        copy_gbytes: 1e9 bytes per second, read and written bytes both counted, from the device's memory to itself.
        to_device_gbytes, from_device_gbytes: 1e9 bytes per second between pinned host memory and a GPU; None on a CPU.
    """

    device: str
    name: str
    threads: int
    matmul_gflops: dict[str, float]
    conv_gflops: dict[str, float]
    copy_gbytes: float
    to_device_gbytes: float | None = None
    from_device_gbytes: float | None = None

    @property
    def gflops(self) -> dict[str, float]:
        """The better rate of both, by precision."""
        return {name: max(rate, self.conv_gflops[name]) for name, rate in self.matmul_gflops.items()}

    @property
    def bandwidth(self) -> float:
        """Bytes per second."""
        return self.copy_gbytes * 1e9

    def peak(self, precision: str) -> float:
        """Operations per second."""
        return self.gflops[precision] * 1e9

    @staticmethod
    def element_bytes(precision: str) -> int:
        """Bytes of one number."""
        return PRECISIONS[precision].itemsize

    def table(self) -> tables.Table:
        """Return the numbers as a table."""
        columns = (tables.Column("what", "what", identity=True), tables.Column("value", "measured", ",.1f"))
        rows = [{"what": f"matmul {name}, GFLOP/s", "value": rate} for name, rate in self.matmul_gflops.items()]
        rows += [{"what": f"3x3 conv {name}, GFLOP/s", "value": rate} for name, rate in self.conv_gflops.items()]
        rows.append({"what": "copy, GB/s read + written", "value": self.copy_gbytes})
        if self.to_device_gbytes:
            rows.append({"what": "host to device, pinned, GB/s", "value": self.to_device_gbytes})
            rows.append({"what": "device to host, pinned, GB/s", "value": self.from_device_gbytes})
        threads = f", {self.threads} threads" if self.device == "cpu" else ""
        return tables.Table(f"machine {self.device}", f"Measured peak of {self.name}{threads}", columns, rows)

    def facts(self) -> dict:
        """Everything by name, for JSON."""
        return asdict(self)


@torch.inference_mode()
def measure(device: str = "cpu", seconds: float = 0.3) -> Machine:
    """Measure the peak of a device.

    Args:
        device: see `sfi_ros.inference.device.choose_device`.
        seconds: how long each quantity is repeated, at least; the best repetition counts.

    Raises:
        ValueError, RuntimeError: a device that is unknown or does not work.
    """
    chosen = choose_device(device)
    side, (channels, height, width), copied = SIZES[chosen.type]
    on_gpu = chosen.type == "cuda"
    matmul, conv = {}, {}
    possible = possible_precisions(chosen)  # others may be slower by a hundred times: bfloat16 without AVX-512
    for name, dtype in PRECISIONS.items():
        if name not in possible:
            continue
        a, b = (torch.randn(side, side, device=chosen).to(dtype) for _ in range(2))
        matmul[name] = 2 * side**3 / _best(lambda a=a, b=b: a @ b, seconds, chosen) / 1e9
        x = torch.randn(1, channels, height, width, device=chosen).to(dtype, memory_format=torch.channels_last)
        w = torch.randn(channels, channels, 3, 3, device=chosen).to(dtype, memory_format=torch.channels_last)
        flop = 2 * 9 * channels**2 * height * width
        conv[name] = flop / _best(lambda x=x, w=w: F.conv2d(x, w, padding=1), seconds, chosen) / 1e9
    source = torch.ones(copied, dtype=torch.uint8, device=chosen)
    target = torch.zeros_like(source)
    copy = 2 * copied / _best(lambda: target.copy_(source), seconds, chosen) / 1e9
    there = back = None
    if on_gpu:
        host = torch.empty(copied // 4, dtype=torch.uint8, pin_memory=True)
        part = source[: copied // 4]
        there = len(host) / _best(lambda: part.copy_(host, non_blocking=True), seconds, chosen) / 1e9
        back = len(host) / _best(lambda: host.copy_(part, non_blocking=True), seconds, chosen) / 1e9
    name = torch.cuda.get_device_name(chosen) if on_gpu else str(this_processor())
    return Machine(str(chosen), name, torch.get_num_threads(), matmul, conv, copy, there, back)


def _best(function: Callable[[], object], seconds: float, device: torch.device) -> float:
    """Return the shortest time that one call took."""
    best, deadline = float("inf"), time.perf_counter() + seconds
    for _ in range(2):  # the first calls choose kernels
        function()
    while time.perf_counter() < deadline or best == float("inf"):
        _finish(device)
        began = time.perf_counter()
        function()
        _finish(device)
        best = min(best, time.perf_counter() - began)
    return best


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=int, help="of the CPU; default: PyTorch's own choice")
    parser.add_argument("--seconds", type=float, default=0.5, help="per quantity (default: %(default)s)")
    tables.add_options(parser)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    found = measure(options.device, options.seconds)
    tables.report(options, found.table(), peak=found.facts())


if __name__ == "__main__":
    main()
