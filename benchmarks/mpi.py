"""Max-pooling as inpainting: Algorithm 1 of the paper against the fast implementation, in one run on one machine.

    .venv/bin/python benchmarks/mpi.py
    .venv/bin/python benchmarks/mpi.py --device cuda --json out/mpi.json

Each row times both on the same random features and the same mask, in turn; times are medians. The fast result is
checked to equal Algorithm 1 in every value before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sfi_ros.network import mpi

SIZES = ((32, 32, 64), (128, 32, 64), (192, 32, 64), (512, 64, 128))  # channels, height, width
SHARES = (0.05, 0.25, 0.5)


def street_mask(height: int, width: int, share: float) -> Tensor:
    """One block of foreground in the lower middle, as a car ahead would give, with this share of the pixels."""
    mask = torch.zeros(1, 1, height, width)
    block_height, block_width = round(height * math.sqrt(share)), round(width * math.sqrt(share))
    left = (width - block_width) // 2
    mask[..., height - block_height :, left : left + block_width] = 1
    return mask


def literal(features: Tensor, foreground: Tensor) -> Tensor:
    """Sampling, dilation and Algorithm 1, as the paper has them."""
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


def measure(size: tuple[int, int, int], share: float, layout: str, device: torch.device, repeats: int) -> dict:
    """One row of the table."""
    channels, height, width = size
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, channels, height, width, generator=generator).relu().to(device)
    if layout == "channels-last":
        features = features.contiguous(memory_format=torch.channels_last)
    mask = street_mask(height, width, share).to(device)
    if not torch.equal(mpi.max_pool_inpaint(features, mask), literal(features, mask)):
        raise SystemExit(f"the fast result differs from Algorithm 1 at {size}, share {share}: nothing to time")
    slow, fast = paired_medians(
        lambda: literal(features, mask), lambda: mpi.max_pool_inpaint(features, mask), repeats, device
    )
    return {
        "size": f"{channels}x{height}x{width}",
        "foreground_share": share,
        "layout": layout,
        "algorithm_1_ms": slow,
        "fast_ms": fast,
        "ratio": slow / fast,
    }


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    table = Table("features", "foreground", "layout", "Algorithm 1 ms", "fast ms", "ratio", title=f"MPI on {name}")
    rows = []
    for size in SIZES:
        for share in SHARES:
            for layout in ("contiguous", "channels-last"):
                row = measure(size, share, layout, device, arguments.repeats)
                rows.append(row)
                table.add_row(
                    row["size"],
                    f"{share:.0%}",
                    layout,
                    f"{row['algorithm_1_ms']:.1f}",
                    f"{row['fast_ms']:.2f}",
                    f"{row['ratio']:.0f}x",
                )
    Console().print(table)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        facts = {"device": name, "machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        arguments.json.write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
