"""Max-pooling as inpainting: Algorithm 1 of the paper against the fast implementation, in one run on one machine.

    .venv/bin/python benchmarks/mpi.py
    .venv/bin/python benchmarks/mpi.py --device cuda --json out/mpi.json

Each row times both on the same random features and the same mask, in turn; times are medians. The fast result is
checked to equal Algorithm 1 in every value before anything is timed. "Alone" are `--calls` calls of the fast one, one
after the other: what an engine sees, and how even they are.

On a GPU these times are those of a host that waits for each call. Beside them stands what the GPU itself needs: the
call, with `--compiled` the same within `torch.compile`, and a copy of the features, which reads and writes them once.
Each is replayed from a CUDA graph over copies of the features: so many that caches cannot hold them, but 64 at most.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from benchmarks import tables
from sfi_ros.network import mpi

SIZES = ((512, 64, 128), (192, 32, 64), (128, 32, 64), (32, 32, 64))  # channels, height, width
SHARES = (0.05, 0.25, 0.5)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
DTYPES = {"cpu": (torch.float32,), "cuda": (torch.float32, torch.float16)}
CACHES = 256 << 20  # bytes; more than the caches of a GPU

COLUMNS = (
    tables.Column("size", "features", identity=True),
    tables.Column("foreground_share", "foreground", ".0%", identity=True),
    tables.Column("layout", "layout", identity=True),
    tables.Column("dtype", "numbers", identity=True),
    tables.Column("algorithm_1_ms", "Algorithm 1 ms", ".2f"),
    tables.Column("fast_ms", "fast ms", ".2f"),
    tables.Column("ratio", "ratio", ".0f"),
    tables.Column("alone_p50_ms", "alone p50 ms", ".2f"),
    tables.Column("alone_p99_ms", "p99", ".2f"),
)
GPU_COLUMNS = (
    tables.Column("device_us", "on the GPU us", ".1f"),
    tables.Column("compiled_us", "compiled us", ".1f"),
    tables.Column("copy_us", "copy us", ".1f"),
    tables.Column("copy_bytes", "bytes read + written", ",d"),
    tables.Column("over_copy", "over copy", ".1f"),
    tables.Column("device_ratio", "Algorithm 1 over it", ".0f"),
)


def street_mask(height: int, width: int, share: float) -> Tensor:
    """One block of foreground in the lower middle, as a car ahead would give, with this share of the pixels."""
    mask = torch.zeros(1, 1, height, width)
    block_height, block_width = round(height * math.sqrt(share)), round(width * math.sqrt(share))
    left = (width - block_width) // 2
    mask[..., height - block_height :, left : left + block_width] = 1
    return mask


def literal(features: Tensor, foreground: Tensor) -> Tensor:
    """Sample, dilate and run Algorithm 1, as the paper has them."""
    dilated = mpi.dilate(mpi.sample_mask(foreground, features))
    return torch.where(dilated, mpi.algorithm_1(features, dilated), features)


def paired_medians(
    first: Callable[[], Tensor], second: Callable[[], Tensor], repeats: int, device: torch.device
) -> tuple[float, float]:
    """Median milliseconds of two functions that are called in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for function, taken in zip((first, second), times, strict=True):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            began = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repeat > 0:  # the first round warms up
                taken.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


def alone(function: Callable[[], Tensor], calls: int, device: torch.device) -> tuple[float, float]:
    """Median and 99th percentile of the milliseconds of a function that is called again and again."""
    taken = []
    for call in range(calls + 3):
        began = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if call >= 3:  # the first ones warm up
            taken.append((time.perf_counter() - began) * 1e3)
    p50, p99 = statistics.quantiles(taken, n=100, method="inclusive")[49::49]
    return p50, p99


def graph_microseconds(function: Callable[[Tensor], Tensor], inputs: Sequence[Tensor], repeats: int) -> float:
    """Median microseconds per call on the GPU: all inputs in one CUDA graph, replayed."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for features in inputs:
            function(features)  # compiles
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = [function(features) for features in inputs]  # kept, so that each has memory of its own
    taken = []
    for _ in range(repeats + 1):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        graph.replay()
        ended.record()
        ended.synchronize()
        taken.append(began.elapsed_time(ended) * 1e3 / len(results))
    return statistics.median(taken[1:])


@dataclass(frozen=True)
class Case:
    """What one row measures: features of (channels, height, width), and the share of foreground in them."""

    size: tuple[int, int, int]
    share: float
    layout: str
    dtype: torch.dtype

    def inputs(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Features (1, C, h, w), not negative, and a mask (1, 1, h, w)."""
        channels, height, width = self.size
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(1, channels, height, width, generator=generator).relu()
        features = features.to(device, self.dtype).contiguous(memory_format=LAYOUTS[self.layout])
        return features, street_mask(height, width, self.share).to(device)


def measure(case: Case, device: torch.device, repeats: int, calls: int) -> tables.Row:
    """One row of the table."""
    features, mask = case.inputs(device)
    _require_exact(mpi.max_pool_inpaint(features, mask), case, features, mask)
    slow, fast = paired_medians(
        lambda: literal(features, mask), lambda: mpi.max_pool_inpaint(features, mask), repeats, device
    )
    p50, p99 = alone(lambda: mpi.max_pool_inpaint(features, mask), calls, device)
    return {
        "size": "x".join(map(str, case.size)),
        "foreground_share": case.share,
        "layout": case.layout,
        "dtype": str(case.dtype).removeprefix("torch."),
        "algorithm_1_ms": slow,
        "fast_ms": fast,
        "ratio": slow / fast,
        "alone_p50_ms": p50,
        "alone_p99_ms": p99,
    }


def measure_on_the_gpu(case: Case, device: torch.device, repeats: int, algorithm_1_ms: float) -> tables.Row:
    """Return what a row has only on a GPU, beside what it has everywhere."""
    features, mask = case.inputs(device)
    inputs = _rotation(features)
    device_us = graph_microseconds(lambda f: mpi.max_pool_inpaint(f, mask), inputs, repeats)
    copy_us = graph_microseconds(torch.clone, inputs, repeats)
    return {
        "device_us": device_us,
        "copy_us": copy_us,
        "copy_bytes": 2 * features.numel() * features.element_size(),
        "over_copy": device_us / copy_us,
        "device_ratio": algorithm_1_ms * 1e3 / device_us,
    }


def measure_compiled(case: Case, device: torch.device, repeats: int) -> tables.Row:
    """Return what the call needs within `torch.compile`, which takes seconds to make each row's code."""
    features, mask = case.inputs(device)
    torch.compiler.reset()  # else it gives up after several sizes
    compiled = torch.compile(mpi.max_pool_inpaint, fullgraph=True, dynamic=False)
    _require_exact(compiled(features, mask), case, features, mask)
    return {"compiled_us": graph_microseconds(lambda f: compiled(f, mask), _rotation(features), repeats)}


def _rotation(features: Tensor) -> list[Tensor]:
    """Return copies of the features, so many that caches cannot hold them, but 64 at most."""
    return [features.clone() for _ in range(min(CACHES // (features.numel() * features.element_size()) + 1, 64))]


def _require_exact(result: Tensor, case: Case, features: Tensor, mask: Tensor) -> None:
    if not torch.equal(result, literal(features, mask)):
        raise SystemExit(f"the fast result differs from Algorithm 1 for {case}: nothing to time")


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, its largest features first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7, help="of both in turn (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=100, help="of the fast one alone (default: %(default)s)")
    parser.add_argument("--sizes", type=feature_sizes, default=SIZES, metavar="CxHxW,...", help="of the features")
    parser.add_argument("--compiled", action="store_true", help="also within torch.compile, on a GPU")
    tables.add_options(parser)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)  # streams, graphs and events are the current device's
    name = torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    table = tables.Table(f"mpi {device.type}", f"MPI on {name}", COLUMNS + (GPU_COLUMNS if on_gpu else ()))
    for case in itertools.starmap(Case, itertools.product(options.sizes, SHARES, LAYOUTS, DTYPES[device.type])):
        row = measure(case, device, options.repeats, options.calls)
        if on_gpu:
            row |= measure_on_the_gpu(case, device, options.repeats, row["algorithm_1_ms"])
        if on_gpu and options.compiled:
            row |= measure_compiled(case, device, options.repeats)
        tables.add(options, table, row)
    tables.report(options, table)


def feature_sizes(text: str) -> list[tuple[int, ...]]:
    """Return the sizes of an option such as 512x64x128,32x32x64, for argparse's `type`."""
    sizes = [tuple(map(int, part.split("x"))) for part in text.split(",")]
    if any(len(size) != 3 for size in sizes):
        raise argparse.ArgumentTypeError(f"sizes must be CHANNELSxHEIGHTxWIDTH, not {text}")
    return sizes


if __name__ == "__main__":
    main()
