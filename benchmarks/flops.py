"""What one pass of each network costs: GFLOP by torch.utils.flop_counter (a multiply-add counts two) and parameters.

.venv/bin/python benchmarks/flops.py
.venv/bin/python benchmarks/flops.py --height 512 --width 1024
"""

from __future__ import annotations

import argparse

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from sfi_ros.network import zoo


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=512)
    arguments = parser.parse_args()
    image = torch.zeros(1, 3, arguments.height, arguments.width)
    title = f"one {arguments.width}x{arguments.height} image"
    table = Table("network", "GFLOP", "of it foreground", "parameters, M", title=title)
    for name in zoo.NAMES:
        network = zoo.build(name).eval()
        with FlopCounterMode(display=False) as counter:
            network(image)
        by_module = counter.get_flop_counts()
        foreground = sum(by_module.get(f"{type(network).__name__}.foreground", {}).values())
        parameters = sum(parameter.numel() for parameter in network.parameters())
        total = counter.get_total_flops()
        table.add_row(name, f"{total / 1e9:.1f}", f"{foreground / 1e9:.1f}", f"{parameters / 1e6:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
