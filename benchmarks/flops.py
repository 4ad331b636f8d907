"""What one pass of each network costs: operations, parameters, and the least time that this machine could take for it.

    .venv/bin/python benchmarks/flops.py
    .venv/bin/python benchmarks/flops.py --height 512 --width 1024
    .venv/bin/python benchmarks/flops.py --height 384 --width 768 --views 4    # as weights may ask for
    .venv/bin/python benchmarks/flops.py --floor              # also measures the machine (benchmarks/machine.py)

GFLOP by torch.utils.flop_counter; a multiply-add counts two. Nothing is computed for that: tensors are on the "meta"
device, and the foreground is blacked out instead of inpainted, which has no multiplications either.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import tables
from benchmarks.machine import Machine, measure
from sfi_ros.network import zoo
from sfi_ros.network.options import VIEW_COUNTS


@dataclass(frozen=True)
class Layer:
    """One convolution: its operations, and the numbers that it must read and write."""

    flop: int
    elements: int


@dataclass(frozen=True)
class Cost:
    """What one pass of one image costs.

    Attributes:
        flop: operations of the whole network.
        foreground_flop: of it, those of the foreground branch.
        parameters: numbers in its weights.
        layers: its convolutions, one by one.
    """

    flop: int
    foreground_flop: int
    parameters: int
    layers: tuple[Layer, ...]

    def floor(self, machine: Machine, precision: str, images: int = 1, read: int = 0, written: int = 0) -> float:
        """Seconds below which no implementation can be: all operations at the peak rate, or all bytes that must move.

        These are the weights, and the bytes of camera images (`read`) and results (`written`), which cross the bus of a
        GPU, too; everything between could stay in caches.
        """
        moved = self.parameters * machine.element_bytes(precision) + read + written
        up, down = machine.to_device_gbytes, machine.from_device_gbytes
        bus = max(read / up, written / down) / 1e9 if up and down else 0.0
        return max(images * self.flop / machine.peak(precision), moved / machine.bandwidth, bus)

    def traffic(self, precision: str) -> int:
        """Bytes that the convolutions of one image read and write, one after the other."""
        return sum(layer.elements for layer in self.layers) * Machine.element_bytes(precision)

    def floor_by_layers(self, machine: Machine, precision: str) -> float:
        """Seconds below which no implementation can be that goes through memory between two convolutions."""
        size = machine.element_bytes(precision)
        return sum(
            max(layer.flop / machine.peak(precision), layer.elements * size / machine.bandwidth)
            for layer in self.layers
        )


@functools.cache
def cost(name: str, height: int, width: int, views: int = 1) -> Cost:
    """Count one (1, 3, height, width) pass of a network of the zoo, with the option `views`."""
    with torch.device("meta"):
        fill = {} if name.startswith("two-stage") else {"fill": "zero"}
        network = zoo.build(name, views=views, **fill).eval()
        image = torch.zeros(1, 3, height, width)
    layers: list[Layer] = []

    def note(module: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        weights = module.weight.numel()
        flop = 2 * output.numel() * weights // module.out_channels
        layers.append(Layer(flop, inputs[0].numel() + output.numel() + weights))

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(image)
    foreground = counter.get_flop_counts().get(f"{type(network).__name__}.foreground", {})
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(counter.get_total_flops(), sum(foreground.values()), parameters, tuple(layers))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--views", type=int, default=1, choices=VIEW_COUNTS, help="of an image (default: 1)")
    parser.add_argument("--floor", action="store_true", help="measure the machine and print the least time as well")
    parser.add_argument("--device", default="cpu", help="which device's floor (default: cpu)")
    tables.add_options(parser)
    options = parser.parse_args(arguments)
    columns = [
        tables.Column("network", "network", identity=True),
        tables.Column("gflop", "GFLOP", ".1f"),
        tables.Column("foreground_gflop", "of it foreground", ".1f"),
        tables.Column("parameters_m", "parameters, M", ".1f"),
    ]
    machine = measure(options.device) if options.floor else None
    for precision in machine.gflops if machine else ():
        columns.append(tables.Column(f"floor_ms_{precision}", f"floor {precision}, ms", ".2f"))
        columns.append(tables.Column(f"layers_ms_{precision}", f"layer by layer {precision}, ms", ".2f"))
    size = f"{options.width}x{options.height}" + (f", views {options.views}" if options.views > 1 else "")
    table = tables.Table(f"flops {size}", f"One image of {size}", columns)
    for name in zoo.NAMES:
        counted = cost(name, options.height, options.width, options.views)
        row: tables.Row = {
            "network": name,
            "gflop": counted.flop / 1e9,
            "foreground_gflop": counted.foreground_flop / 1e9,
            "parameters_m": counted.parameters / 1e6,
        }
        for precision in machine.gflops if machine else ():
            row[f"floor_ms_{precision}"] = 1e3 * counted.floor(machine, precision)
            row[f"layers_ms_{precision}"] = 1e3 * counted.floor_by_layers(machine, precision)
        table.rows.append(row)
    if machine:
        tables.report(options, machine.table(), table)
    else:
        tables.report(options, table)


if __name__ == "__main__":
    main()
