"""Training: images per second, and how much of the time the network waits for its data.

    .venv/bin/python benchmarks/training.py                       # two CPU cores: under two minutes
    .venv/bin/python benchmarks/training.py --device cuda --json out/training.json
    .venv/bin/python benchmarks/training.py --config config/training/default.yaml data.roots.cityscapes=DATA/cityscapes

The loops are the ones that `training/train.py` runs. The baseline is a loop as of the released code: paper-resnet18 in
plain float32, contiguous, the literal MPI loop, files decoded every time, the loss read in every step; its data,
losses and batch are ours. Data is the synthetic street, drawn and written to temporary files of the size of
Cityscapes' (2048x1024 PNG), or that of --config. Files are in the operating system's cache for all loops alike.

Waiting is the time in which the loop asks for a batch and has none. A GPU is busy while a kernel runs on it (NVML's
count; needs nvidia-ml-py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks import tables
from benchmarks.released import with_literal_fill
from sfi_ros.network.preprocessing import normalize
from sfi_ros.synthetic import SyntheticStreet
from training.configuration import Configuration, load
from training.data.loaders import StepBatches, TrainingData, automatic_workers
from training.data.stream import stack
from training.learning.devices import PRECISIONS, build_fabric
from training.learning.loop import Learner, take_step
from training.learning.losses import losses, supervision
from training.learning.network import build_network
from training.learning.optimizer import build_optimizer

PHOTO_SIZE = (2048, 1024)  # width, height: Cityscapes
PHOTOS = 24
DRAWN_HEIGHT = 256  # enlarged to the size of a photo: only the number of bytes matters here

COLUMNS = (
    tables.Column("loop", "loop", identity=True),
    tables.Column("network", "network", identity=True),
    tables.Column("height", "height", identity=True),
    tables.Column("batch", "batch", identity=True),
    tables.Column("precision", "precision", identity=True),
    tables.Column("images_per_second", "images/s", ".1f"),
    tables.Column("step_ms", "ms per step", ".0f"),
    tables.Column("waiting", "waiting for data", ".1%"),
    tables.Column("gpu_busy", "GPU busy", ".0%"),
    tables.Column("against_released", "images/s over released", ".2f"),
)


class Stopwatch:
    """Time of the measured steps, the part of it that was spent waiting for data, and how busy the GPU was."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = self.waiting = 0.0
        self.gpu_busy: float | None = None
        self._began: float | None = None
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._watch_gpu, daemon=True)

    def begin(self) -> None:
        """Start, when all that was asked of a GPU before is done."""
        self._finish()
        self.waiting, self._began = 0.0, time.perf_counter()
        if self.device.type == "cuda":
            self._watch.start()

    def end(self) -> None:
        """Stop, when the GPU has done what was asked of it."""
        self._finish()
        assert self._began is not None
        self.seconds = time.perf_counter() - self._began
        self._ended.set()
        if self.device.type == "cuda":
            self._watch.join()

    def timed(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Return the batches of a loader."""
        batches = iter(loader)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.waiting += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _watch_gpu(self) -> None:
        shares = []
        try:  # NVML looks back up to a second: the first reading must not see the warm-up
            while not self._ended.wait(0.1 if shares else 1.0):
                shares.append(torch.cuda.utilization(self.device) / 100)
        except Exception as error:  # no package, or whatever the driver says: everything else is measured all the same
            print(f"how busy the GPU was is not known: {error} (needs nvidia-ml-py)", file=sys.stderr)
        self.gpu_busy = sum(shares) / len(shares) if shares else None


def fill_memory(data: TrainingData) -> None:
    """Read every training sample once, as the first epoch of a run would."""
    for dataset in data.training_set.datasets:
        for _ in DataLoader(
            dataset,
            batch_size=8,
            collate_fn=len,
            num_workers=automatic_workers(1),
            multiprocessing_context="fork",
        ):
            pass


def our_loop(configuration: Configuration, stopwatch: Stopwatch, warmup: int, steps: int) -> str:
    """Time the steps of `training/train.py`, without validation and files; returns the precision."""
    fabric = build_fabric(configuration.run)
    data = TrainingData(configuration)
    if data.memory is not None:
        fill_memory(data)
    learner = Learner.build(fabric, configuration)
    for batch in stopwatch.timed(data.training_batches(fabric, 0, warmup + steps)):
        take_step(learner, batch, factor=1.0)
        if learner.step % configuration.run.log_every == 0:
            learner.health.check()  # this waits for a GPU, as logging does
        if learner.step == warmup:
            stopwatch.begin()
    stopwatch.end()
    return next(name for name, fabrics in PRECISIONS.items() if fabrics == fabric.strategy.precision.precision)


def released_loop(configuration: Configuration, stopwatch: Stopwatch, warmup: int, steps: int) -> str:
    """Run a loop as of the released code; returns the precision."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.benchmark = False
    device, batch_size = stopwatch.device, configuration.data.batch_size
    data = TrainingData(configuration)
    sampler = StepBatches(batch_size, processes=1, rank=0, first_step=0, last_step=warmup + steps)
    loader = DataLoader(data.training_set, batch_sampler=sampler, collate_fn=stack, num_workers=automatic_workers(1))
    network = build_network(configuration.network).to(memory_format=torch.contiguous_format)
    network = with_literal_fill(network).to(device).train()
    optimizer = build_optimizer(network, configuration.optimizer)
    for step, batch in enumerate(stopwatch.timed(loader), start=1):
        batch = batch.to(device)
        output = network(normalize(batch.image), fake_foreground=batch.fake_foreground)
        truth = supervision(batch.foreground, batch.background, batch.fake_foreground, configuration.losses)
        loss = losses(output.background, output.foreground, truth, configuration.losses).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if not np.isfinite(loss.item()):
            raise SystemExit(f"the loss of the released loop is not finite in step {step}: nothing to time")
        if step == warmup:
            stopwatch.begin()
    stopwatch.end()
    return "float32"


def write_street(folder: Path) -> None:
    """Write frames of the street as a Cityscapes tree."""
    streets = [SyntheticStreet(seed=seed, width=2 * DRAWN_HEIGHT, height=DRAWN_HEIGHT) for seed in range(3)]
    generator = np.random.default_rng(0)
    for number in range(PHOTOS):
        frame = streets[number % len(streets)].frame(30 * number)
        photo = cv2.resize(frame.image, PHOTO_SIZE, interpolation=cv2.INTER_LINEAR)
        # A little noise, or files would be much smaller than a camera's.
        photo = cv2.add(photo, generator.normal(0, 2, photo.shape), dtype=cv2.CV_8U)
        labels = cv2.resize(frame.labels, PHOTO_SIZE, interpolation=cv2.INTER_NEAREST_EXACT)
        name = f"street_{number:06d}_000000"
        files = {
            f"leftImg8bit/train/street/{name}_leftImg8bit.png": cv2.cvtColor(photo, cv2.COLOR_RGB2BGR),
            f"gtFine/train/street/{name}_gtFine_labelIds.png": labels,
        }
        for file, image in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / file), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    parser.add_argument("--config", type=Path, metavar="FILE", help="measure this recipe and its data")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values that replace a recipe's own")
    parser.add_argument("--height", type=int, default=256, help="of fast-mobilenetv2's images (default: %(default)s)")
    parser.add_argument("--paper-height", type=int, help="of paper-resnet18's images (default: 256, on a CPU 64)")
    parser.add_argument("--batch", type=int, default=8, help="images per step (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="that are measured (default: 300, on a CPU 3)")
    tables.add_options(parser)
    options = parser.parse_intermixed_args(arguments)
    on_gpu = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if on_gpu else "cpu")
    steps, warmup = options.steps or (300 if on_gpu else 3), 10 if on_gpu else 1
    paper_height = options.paper_height or (256 if on_gpu else 64)

    rows: list[tables.Row] = []
    with tempfile.TemporaryDirectory() as folder:
        common = [
            f"output={folder}/run",
            "network.pretrained=null",
            f"data.batch_size={options.batch}",
            "data.validation={street: {dataset: synthetic, split: val, drives: 1, frames: 1}}",
            "schedule.epochs=null",
            f"schedule.steps={warmup + steps}",
            f"schedule.validate_every={warmup + steps}",
            f"run.accelerator={'gpu' if on_gpu else 'cpu'}",
            "run.devices=1",
        ]
        if options.config is None:
            write_street(Path(folder))
            street = [f"data.roots.cityscapes={folder}"]
            paper = [
                *street,
                f"network.input_height={paper_height}",
                f"run.precision={'bfloat16' if on_gpu else 'float32'}",
            ]
            fast = [*street, f"network.input_height={options.height}", "data.train.synthetic.drives=3"]
            fast.append(f"augmentation.crop=[{options.height}, {2 * options.height}]")
            recipes = {"paper.yaml": paper, "default.yaml": fast}
            recipes = {tables.ROOT / "config" / "training" / name: own for name, own in recipes.items()}
        else:
            recipes = {options.config: []}
        for file, own in recipes.items():
            base = [*own, *common, *options.overrides]
            loops = {
                "released": None,
                "ours, workers decode and augment": ["data.cache=none", "data.augment_on=cpu"],
                "ours, cache": ["data.cache=ram"],
            }
            if on_gpu:
                loops["ours, cache, augmented on the GPU"] = ["data.cache=ram", "data.augment_on=device"]
                loops["ours, cache, compile"] = ["data.cache=ram", "run.compile=true"]
            if load(file, base).network.name != "paper-resnet18":
                del loops["released"]
            for loop, overrides in loops.items():
                configuration = load(file, [*base, *(overrides or [])])
                rows.append(measure(loop, configuration, Stopwatch(device), warmup, steps))
                print(f"{loop}: {rows[-1]['images_per_second']:.1f} images/s", file=sys.stderr, flush=True)
    released = {(row["network"], row["height"]): row["images_per_second"] for row in rows if row["loop"] == "released"}
    for row in rows:
        baseline = released.get((row["network"], row["height"]))
        row["against_released"] = row["images_per_second"] / baseline if baseline else None
    name = torch.cuda.get_device_name(device) if on_gpu else f"a CPU, {torch.get_num_threads()} threads"
    tables.report(options, tables.Table(f"training {device.type}", f"Training on {name}", COLUMNS, rows))


def measure(loop: str, configuration: Configuration, stopwatch: Stopwatch, warmup: int, steps: int) -> tables.Row:
    """One row of the table."""
    run = released_loop if loop == "released" else our_loop
    precision = run(configuration, stopwatch, warmup, steps)
    return {
        "loop": loop,
        "network": configuration.network.name,
        "height": configuration.network.input_height,
        "batch": configuration.data.batch_size,
        "precision": precision,
        "images_per_second": steps * configuration.data.batch_size / stopwatch.seconds,
        "step_ms": 1e3 * stopwatch.seconds / steps,
        "waiting": stopwatch.waiting / stopwatch.seconds,
        "gpu_busy": stopwatch.gpu_busy,
    }


if __name__ == "__main__":
    main()
