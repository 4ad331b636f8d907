"""Whether memory stays bounded: thousands of frames whose size and batch change all the time, through one engine.

    .venv/bin/python benchmarks/soak.py                        # 10 000 frames: three minutes on two CPU cores
    .venv/bin/python benchmarks/soak.py --device cuda --network fast-resnet18 --json out/soak.json

In every round each size comes with each batch, in another order, as often as there are frames for. These are more than
the engine keeps graphs and layouts for, so that they are thrown away and made again. Memory is read behind each round;
the first one fills caches. Results are compared with those of the first round.

Exit status 1: the later half of the rounds needed more memory than the earlier by more than --most-growth, or a frame's
classes were not those of the first round.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from benchmarks import stand_ins, tables
from benchmarks.memory import resident
from sfi_ros.inference import InferenceEngine

SIZES = "1920x1080,1280x720,640x480,1242x375,2048x1024,960x540,800x600,1600x900,1024x768,512x512"
FRAMES = 4  # different ones of each size
LEAST_EQUAL = 0.99  # of a frame's pixels; on a GPU another kernel may be chosen in each round, which rounds otherwise

COLUMNS = (
    tables.Column("round", "round", identity=True),
    tables.Column("frames", "frames", ",d"),
    tables.Column("frames_per_second", "frames/s", ".1f"),
    tables.Column("resident_mb", "resident MB", ",.0f"),
    tables.Column("allocated_mb", "on the GPU, allocated MB", ",.0f"),
    tables.Column("reserved_mb", "reserved MB", ",.0f"),
    tables.Column("equal", "equal classes, least", ".2%"),
)
NOTE = (
    "equal classes: share of the pixels that have the class of the first round, in the frame where it is least. "
    "reserved: what PyTorch keeps of the GPU's memory."
)


class Soak:
    """One engine, its images, and what it made of them in the first round.

    Args:
        engine: what is tried.
        sizes: (width, height) of the images.
        batches: images in a call.
    """

    def __init__(self, engine: InferenceEngine, sizes: Sequence[tuple[int, int]], batches: Sequence[int]):
        self.engine = engine
        self.images = {size: stand_ins.street_frames(*size, FRAMES) for size in sizes}
        self.variants = list(itertools.product(sizes, batches))
        self._first: dict[tuple[tuple[int, int], int], np.ndarray] = {}
        self._order = random.Random(0)

    def round(self, number: int, frames: int) -> tables.Row:
        """Infer about so many frames; each variant comes at least once."""
        equal, inferred, seconds = 1.0, 0, 0.0
        calls = max(1, round(frames / sum(batch for _, batch in self.variants)))
        for size, batch in self._order.sample(self.variants, len(self.variants)):
            pictures = self.images[size]
            for call in range(calls):
                began = time.perf_counter()
                scenes = self.engine([pictures[(call + place) % FRAMES] for place in range(batch)])
                seconds += time.perf_counter() - began
                inferred += batch
                for place, scene in enumerate(scenes):
                    first = self._first.setdefault((size, (call + place) % FRAMES), scene.background.copy())
                    equal = min(equal, float((scene.background == first).mean()))
        row: tables.Row = {"round": number, "frames": inferred, "frames_per_second": inferred / seconds}
        row |= {"resident_mb": resident() / 1e6, "equal": equal}
        if self.engine.device != "cpu":
            row["allocated_mb"] = torch.cuda.memory_allocated(self.engine.device) / 1e6
            row["reserved_mb"] = torch.cuda.memory_reserved(self.engine.device) / 1e6
        return row


def growth(rows: Sequence[tables.Row], key: str) -> float:
    """How much more the later half of the rounds had at most than the earlier half, the first round left out."""
    values = [row[key] for row in rows[1:]]
    half = len(values) // 2
    return max(values[half:]) / max(values[:half]) - 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="fast-mobilenetv2", help="name in the zoo (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--precision", default="auto", help="default: %(default)s")
    parser.add_argument("--backend", default="auto", help="default: %(default)s")
    parser.add_argument("--height", type=int, default=256, help="at which the network runs (default: %(default)s)")
    parser.add_argument("--sizes", type=tables.sizes, default=SIZES, help="of the images (default: %(default)s)")
    parser.add_argument("--batches", type=tables.numbers, default="1,2", help="images per call (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=10_000, help="in all (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="at least 3 (default: %(default)s)")
    parser.add_argument("--most-growth", type=float, default=0.05, help="of memory, as a share (default: %(default)s)")
    tables.add_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rounds < 3:
        parser.error(f"--rounds must be 3 or more, one of them to warm up; got {options.rounds}")
    with tempfile.TemporaryDirectory() as folder:
        engine = InferenceEngine.load(
            stand_ins.weights_for(options.network, Path(folder)),
            device=options.device,
            precision=options.precision,
            backend=options.backend,
            input_height=options.height,
        )
    soak = Soak(engine, options.sizes, options.batches)
    numbers = track(range(options.rounds), f"{options.frames} frames", console=Console(stderr=True), transient=True)
    rows = [soak.round(number, options.frames // options.rounds) for number in numbers]
    title = f"Memory of {options.network}, {engine.precision}, {engine.backend} on {engine.device}"
    grown = {key: growth(rows, key) for key in ("resident_mb", "reserved_mb") if rows[0].get(key)}
    notes = [NOTE, *(f"growth of {key}, later rounds over earlier: {value:+.2%}" for key, value in grown.items())]
    tables.report(options, tables.Table("soak", title, COLUMNS, rows, notes), growth=grown)
    if any(value > options.most_growth for value in grown.values()):
        raise SystemExit(f"memory grew by more than {options.most_growth:.0%}")
    if min(row["equal"] for row in rows) < LEAST_EQUAL:
        raise SystemExit("a frame's classes were not those of the first round")


if __name__ == "__main__":
    main()
