"""Where the network's time goes on a CPU, convolution by convolution.

Processor time of one thread: other work on the machine changes it less than the clock's. "Of peak" wants an idle one.

    .venv/bin/python benchmarks/layers.py
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 .venv/bin/python benchmarks/layers.py      # as without AVX-512
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import machine, stand_ins, tables
from sfi_ros.inference import DEFAULT_WEIGHTS
from sfi_ros.inference.camera_network import CameraNetwork
from sfi_ros.inference.device import PRECISIONS
from sfi_ros.inference.fused_network import OneDnnConv, folded_for_onednn
from sfi_ros.inference.winograd import WinogradConv
from sfi_ros.network import checkpoint, zoo

COLUMNS = (
    tables.Column("layer", "layer", identity=True),
    tables.Column("shape", "in -> out", identity=True),
    tables.Column("ms", "ms", ".2f"),
    tables.Column("gflops", "GFLOP/s", ".0f"),
    tables.Column("of_peak", "of peak", ".0%"),
    tables.Column("gbytes", "GB/s", ".1f"),
)
NOTES = ("GFLOP/s as if each were computed plainly: Winograd's may exceed the peak. GB/s: features and weights, once.",)


def measure(network: nn.Module, images: Tensor, passes: int, peak: machine.Machine, precision: str) -> list[tables.Row]:
    """Run a fused network and return a row for each convolution, slowest first, and one for all that is none.

    Args:
        network: see `CameraNetwork`.
        images: (N, 3, h, w) uint8, channels last.
        passes: of which the median counts.
        peak: of this machine with one thread.
        precision: that the network computes in.
    """
    times: dict[str, list[float]] = {}
    rows: dict[str, tables.Row] = {}

    def note(name: str, part: OneDnnConv | WinogradConv, inputs: tuple[Tensor], output: Tensor) -> None:
        times[name][-1] = time.thread_time() - times[name][-1]
        taken = inputs[0]
        groups = part.geometry[-1] if isinstance(part, OneDnnConv) else 1
        side = part.weight.shape[-1] if isinstance(part, OneDnnConv) else 3
        flop = 2 * output.numel() * side**2 * taken.shape[1] // groups
        moved = output.element_size() * (taken.numel() + output.numel() + part.weight.numel())
        shape = f"{'x'.join(map(str, taken.shape[1:]))} -> {'x'.join(map(str, output.shape[1:]))}, {side}x{side}"
        rows[name] = {
            "layer": name,
            "shape": shape + (", depthwise" if groups > 1 else ""),
            "flop": flop,
            "moved": moved,
        }

    for name, part in network.named_modules():
        if isinstance(part, OneDnnConv | WinogradConv):
            times[name] = []
            part.register_forward_pre_hook(lambda _, __, name=name: times[name].append(time.thread_time()))
            part.register_forward_hook(lambda part, given, got, name=name: note(name, part, given, got))
    whole = []
    with torch.inference_mode():
        for _ in range(passes):
            began = time.thread_time()
            network(images)
            whole.append(time.thread_time() - began)
    for name, row in rows.items():
        seconds = float(np.median(times[name]))
        row |= {"ms": 1e3 * seconds, "gflops": row["flop"] / seconds / 1e9, "gbytes": row["moved"] / seconds / 1e9}
        row["of_peak"] = row["flop"] / seconds / peak.peak(precision)
    total, flop = 1e3 * float(np.median(whole)), sum(row["flop"] for row in rows.values())
    rest = {"layer": "all that is no convolution", "ms": total - sum(row["ms"] for row in rows.values())}
    everything = {"layer": "all", "ms": total, "gflops": flop / total / 1e6}
    everything["of_peak"] = 1e9 * everything["gflops"] / peak.peak(precision)
    return [*sorted(rows.values(), key=lambda row: -row["ms"]), rest, everything]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="?", type=Path, help="a checkpoint, or a network's name (default: what ships)")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--size", type=lambda text: tables.sizes(text)[0], default=(455, 256), help="WxH of its input")
    parser.add_argument("--passes", type=int, default=40)
    tables.add_options(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if str(options.weights) in zoo.NAMES:
        network = stand_ins.stand_in(str(options.weights))
    else:
        network = checkpoint.load(options.weights or DEFAULT_WEIGHTS).network
    network.options = replace(network.options, views=1)  # the others are the same layers again
    cpu, dtype = torch.device("cpu"), PRECISIONS[options.precision]
    camera = CameraNetwork(folded_for_onednn(network, dtype), cpu, dtype)
    images = torch.from_numpy(stand_ins.street_frames(*options.size, 1)).permute(0, 3, 1, 2)
    peak = machine.measure("cpu")
    rows = measure(camera, images, options.passes, peak, options.precision)
    width, height = options.size
    title = f"{network.name}, {options.precision}, {width}x{height}, one thread of {peak.name}"
    tables.report(options, peak.table(), tables.Table("layers", title, COLUMNS, rows, NOTES), peak=peak.facts())


if __name__ == "__main__":
    main()
