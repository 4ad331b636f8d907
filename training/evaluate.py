"""Score checkpoints on a dataset.

    python training/evaluate.py --weights sfi_ros/weights/default.safetensors \\
        --dataset kitti --root DATA/kitti --json out/kitti.json --report out/kitti.html

Prints a table with one row for each checkpoint. The primary score is the foreground-region mIoU: how well the
background *behind* objects is known, measured on the pixels that the ground-truth foreground mask covers. A set
without truth there (Cityscapes) gets it from `--pasted`: objects of other images are pasted onto each image.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import os
import shlex
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sfi_ros.classes import BACKGROUND_CLASSES, IGNORE
from sfi_ros.network import checkpoint
from sfi_ros.network.preprocessing import normalize
from training.data.datasets import DATASET_NAMES, DatasetError, open_dataset
from training.data.pasted_occluders import PastedOccluders
from training.data.sample import Batch, Sample, collate
from training.measuring.metrics import FOREGROUND_THRESHOLD, SceneAnalysis, SceneMetrics, background_scores

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class ImageScore:
    """Scores of one image; nan where the image has no pixel to score."""

    index: int
    name: str
    foreground_region_accuracy: float
    foreground_region_miou: float
    foreground_region_pixels: int
    all_region_accuracy: float
    foreground_mask_iou: float


@dataclass
class Evaluation:
    """One checkpoint on one dataset.

    Attributes:
        label: short name for tables and plots.
        scores: what `SceneMetrics` and `SceneAnalysis` compute, the three headline numbers, and `speed`.
        images: scores of each image, in the dataset's order.
        about: dataset, weights, options and command line, for the record.
    """

    label: str
    scores: dict[str, Any]
    images: list[ImageScore]
    about: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Everything but the scores of single images; nan becomes None."""
        return _without_nan({**self.scores, **self.about})


class Runner:
    """A network on a device, as it is evaluated: normalised images in, probabilities out, the pass timed."""

    def __init__(
        self,
        network: nn.Module,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        mask_source: str = "predicted",
    ):
        """Move `network` to the device.

        Args:
            network: of `sfi_ros.network.zoo`.
            device: where it runs.
            precision: `fp32`, or `bf16` or `fp16` autocast.
            mask_source: `predicted`, or `given`: the ground-truth foreground is handed to the network, which
                then fills exactly the pixels that are scored. The published mask is predicted in either case.
        """
        self.device, self.dtype = torch.device(device), PRECISIONS[precision]
        self.network = network.eval().to(self.device, memory_format=torch.channels_last)
        self.give_mask = mask_source == "given"

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor, float]:
        """Run one batch that lies on the device.

        Returns:
            Foreground probability (N, 1, H, W), background probabilities (N, 3, H, W), both float32, and the
            seconds that the network's pass took.
        """
        images = normalize(batch.image).contiguous(memory_format=torch.channels_last)
        given = batch.foreground[:, None] if self.give_mask else None
        self._wait()
        start = time.perf_counter()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.network(images, given_foreground=given)
        self._wait()
        seconds = time.perf_counter() - start
        # Several foreground classes count as their union, as they do where the network fills them.
        foreground = logits.foreground.float().amax(1, keepdim=True).sigmoid()
        return foreground, logits.background.float().softmax(1), seconds

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def evaluate(
    runner: Runner,
    dataset: Dataset[Sample],
    *,
    category_names: Mapping[int, str] = MappingProxyType({}),
    batch_size: int = 1,
    workers: int = 0,
    label: str = "network",
    quiet: bool = False,
) -> Evaluation:
    """Score a network on every sample of a dataset.

    Args:
        runner: the network.
        dataset: samples; sizes may differ, a batch takes images of equal size.
        category_names: label id -> name of the object categories to break the score down by.
        batch_size: images in one pass; the last ones of each size come in smaller batches.
        workers: processes that load samples; 0 loads in this one and disturbs the timing least.
        label: name of the result.
        quiet: show no progress bar.

    Raises:
        DatasetError: a sample cannot be loaded.
    """
    metrics = SceneMetrics().to(runner.device)
    analysis = SceneAnalysis(category_names).to(runner.device)
    images: list[ImageScore] = []
    times: dict[tuple[int, ...], list[float]] = {}
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    samples = track(loader, f"evaluating {label}", total=len(dataset), disable=quiet, transient=True)
    for indices, batch in _batches(samples, batch_size):
        batch = batch.to(runner.device)
        foreground, background, seconds = runner(batch)
        metrics.update(foreground, background, batch)
        analysis.update(background, batch)
        images += _image_scores(indices, foreground, background, batch)
        times.setdefault(tuple(batch.image.shape), []).append(seconds / len(batch))
    images.sort(key=lambda image: image.index)
    scores = metrics.compute()
    scores = {
        "foreground_region_miou": scores["foreground_region"]["miou"],
        "all_region_miou": scores["all_region"]["miou"],
        "foreground_mask_iou": scores["foreground_mask"]["iou"],
        **scores,
        **analysis.compute(),
        "speed": _speed(times, runner, batch_size),
    }
    return Evaluation(label, scores, images)


def _batches(samples: Iterable[Sample], size: int) -> Iterator[tuple[list[int], Batch]]:
    """Group samples of equal size into batches; yields the samples' numbers and the batch."""
    waiting: dict[tuple[int, ...], list[tuple[int, Sample]]] = {}
    for index, sample in enumerate(samples):
        group = waiting.setdefault(tuple(sample.image.shape), [])
        group.append((index, sample))
        if len(group) == size:
            del waiting[tuple(sample.image.shape)]
            yield [i for i, _ in group], collate([s for _, s in group])
    for group in waiting.values():
        yield [i for i, _ in group], collate([s for _, s in group])


def _image_scores(indices: list[int], foreground: Tensor, background: Tensor, batch: Batch) -> list[ImageScore]:
    predicted = background.max(1).indices.cpu()
    mask = (foreground[:, 0] > FOREGROUND_THRESHOLD).cpu()
    truths, insides = batch.truth.cpu().long(), batch.foreground.cpu() > 0
    scores = []
    for number, (index, name) in enumerate(zip(indices, batch.names, strict=True)):
        truth, inside = truths[number], insides[number]
        everywhere = background_scores(confusion(predicted[number], truth))
        behind = background_scores(confusion(predicted[number][inside], truth[inside]))
        union = int((mask[number] | inside).sum())
        scores.append(
            ImageScore(
                index=index,
                name=name,
                foreground_region_accuracy=behind["accuracy"],
                foreground_region_miou=behind["miou"],
                foreground_region_pixels=behind["pixels"],
                all_region_accuracy=everywhere["accuracy"],
                foreground_mask_iou=int((mask[number] & inside).sum()) / union if union else math.nan,
            )
        )
    return scores


def confusion(predicted: Tensor, truth: Tensor) -> Tensor:
    """Confusion matrix (3, 3) of two int64 class maps of equal shape, truth in rows, 255 left out."""
    classes = len(BACKGROUND_CLASSES)
    valid = truth != IGNORE
    index = truth[valid] * classes + predicted[valid]
    return torch.bincount(index, minlength=classes * classes).view(classes, classes)


def _speed(times: dict[tuple[int, ...], list[float]], runner: Runner, batch_size: int) -> dict[str, Any]:
    # The first pass of each shape allocates and chooses algorithms; it counts only where there is no other.
    later = [seconds for group in times.values() for seconds in group[1:]]
    measured = later or [seconds for group in times.values() for seconds in group]
    name = torch.cuda.get_device_name(runner.device) if runner.device.type == "cuda" else "cpu"
    return {
        "network_ms_per_image_median": 1000 * statistics.median(measured) if measured else math.nan,
        "device": name,
        "threads": torch.get_num_threads(),
        "batch": batch_size,
        "precision": next(key for key, dtype in PRECISIONS.items() if dtype == runner.dtype),
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def comparison_rows(evaluations: list[Evaluation]) -> tuple[list[str], list[list[str]]]:
    """The comparison table: column titles, and one row of formatted cells for each evaluation."""
    titles = ["weights", "network", "foreground-region mIoU", *[f"  {name}" for name in BACKGROUND_CLASSES]]
    titles += ["all-region mIoU", *[f"  {name}" for name in BACKGROUND_CLASSES]]
    titles += ["foreground-mask IoU", "  precision", "  recall", "calibration error", "ms per image"]
    rows = []
    for evaluation in evaluations:
        scores = evaluation.scores
        behind, everywhere, mask = scores["foreground_region"], scores["all_region"], scores["foreground_mask"]
        values = [behind["miou"], *behind["iou"].values(), everywhere["miou"], *everywhere["iou"].values()]
        values += [mask["iou"], mask["precision"], mask["recall"]]
        values.append(scores["calibration"]["foreground_region"]["ece"])
        speed = scores["speed"]["network_ms_per_image_median"]
        network = evaluation.about.get("weights", {}).get("network", "")
        rows.append([evaluation.label, network, *map(format_score, values), f"{speed:.1f}"])
    return titles, rows


def format_score(value: float) -> str:
    """Three decimals, or a dash for nan."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def open_options(options: argparse.Namespace, height: int) -> tuple[Dataset[Sample], Dataset[Sample]]:
    """Open the dataset that the command line describes, at a height.

    Returns:
        What is to be evaluated, and the whole set that it was made from by `--pasted` and `--limit`.
    """
    # Pasted objects bring a truth of their own, so that the whole set can be used.
    choice = {"manual": False} if options.pasted and options.dataset == "cityscapes" else {}
    whole = open_dataset(options.dataset, options.root, options.split, height, **choice)
    dataset = PastedOccluders(whole, seed=options.seed) if options.pasted else whole
    if options.limit is not None and options.limit < len(whole):
        # Evenly spread: the first images of a set are often all of one street.
        dataset = Subset(dataset, [i * len(whole) // options.limit for i in range(options.limit)])
    return dataset, whole


def evaluate_file(path: Path, label: str, options: argparse.Namespace) -> tuple[Evaluation, Dataset, Runner]:
    """Load a checkpoint and score it as the command line says; also returns what a report needs."""
    loaded = checkpoint.load(path)
    if loaded.metadata.options.get("mask_source") == "given" and options.mask_source == "predicted":
        raise checkpoint.CheckpointError(f"{path} only works with a given mask: add --mask-source given")
    height = options.height or loaded.metadata.input_height
    dataset, whole = open_options(options, height)
    runner = Runner(loaded.network, options.device, options.precision, options.mask_source)
    evaluation = evaluate(
        runner,
        dataset,
        category_names=whole.category_names,
        batch_size=options.batch,
        workers=options.workers,
        label=label,
        quiet=options.quiet,
    )
    evaluation.about = {
        "dataset": {
            "name": options.dataset,
            "root": str(options.root) if options.root else None,
            "split": getattr(whole, "split", None),
            "pasted": options.pasted,
            "seed": options.seed if options.pasted else None,
            "height": height,
            "images": len(dataset),
            "images_in_set": len(whole),
        },
        "weights": {
            "file": str(path),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest()[:16],
            "network": loaded.metadata.name,
            "options": dict(loaded.metadata.options),
            "training_data": loaded.metadata.training_data,
            "parameters": sum(p.numel() for p in loaded.network.parameters()),
        },
        "mask_source": options.mask_source,
        "command": options.command,
        "torch": torch.__version__,
    }
    return evaluation, dataset, runner


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Score checkpoints on a dataset: foreground-region and all-region mIoU, foreground mask, "
        "where and how surely the background behind objects is right, and speed.",
        epilog="Labels are nearest-sampled to the network's resolution and compared there; 255 is not counted.",
    )
    parser.add_argument("--weights", type=Path, nargs="+", required=True, help=".safetensors checkpoints")
    parser.add_argument("--dataset", choices=DATASET_NAMES, required=True)
    parser.add_argument("--root", type=Path, help="folder of the dataset (not for synthetic)")
    parser.add_argument("--split", help="train or val, of cityscapes and synthetic (default val)")
    parser.add_argument(
        "--pasted", action="store_true", help="paste objects of other images, so that truth is known behind them"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --pasted (default %(default)s)")
    parser.add_argument(
        "--mask-source",
        choices=("predicted", "given"),
        default="predicted",
        help="given: hand the ground-truth foreground to the network (default %(default)s)",
    )
    parser.add_argument("--height", type=int, help="image height in pixels (default: the checkpoint's own)")
    parser.add_argument("--limit", type=int, help="use this many images, evenly spread over the set")
    parser.add_argument("--batch", type=int, default=1, help="images in one pass (default %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, …")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--workers", type=int, help="loading processes (default: 0 on a CPU, else up to 8)")
    parser.add_argument("--json", type=Path, help="write all scores; of several checkpoints: a list under 'results'")
    parser.add_argument("--csv", type=Path, help="write the scores of each image, one row each")
    parser.add_argument("--report", type=Path, help="write a self-contained HTML page with plots and pictures")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    options = parser.parse_args(arguments)
    for name in ("height", "limit", "batch"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be 1 or more, got {value}")
    if options.workers is None:
        on_cpu = torch.device(options.device).type == "cpu"
        options.workers = 0 if on_cpu else min(8, os.cpu_count() or 1)
    words = sys.argv[1:] if arguments is None else arguments
    options.command = shlex.join(["python", "training/evaluate.py", *map(str, words)])
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse(arguments)
    console = Console()
    results = []
    try:
        for path, label in zip(options.weights, _labels(options.weights), strict=True):
            results.append(evaluate_file(path, label, options))
    except (DatasetError, checkpoint.CheckpointError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    evaluations = [evaluation for evaluation, _, _ in results]
    _print(console, evaluations)
    if options.json:
        content = [evaluation.to_json() for evaluation in evaluations]
        _write(options.json, json.dumps(content[0] if len(content) == 1 else {"results": content}, indent=2) + "\n")
    if options.csv:
        _write_csv(options.csv, evaluations)
    if options.report:
        from training.measuring.report import write_report  # matplotlib only when it is needed

        options.report.parent.mkdir(parents=True, exist_ok=True)
        write_report(options.report, results)
    for path in (options.json, options.csv, options.report):
        if path:
            console.print(f"wrote {path}", highlight=False)
    return 0


def _labels(paths: list[Path]) -> list[str]:
    """The shortest names that tell the files apart: the file's, or with as many folders as it takes."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        labels = ["/".join(path.with_suffix("").parts[-depth:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]


def _print(console: Console, evaluations: list[Evaluation]) -> None:
    about = evaluations[0].about["dataset"]
    pasted = " with pasted occluders" if about["pasted"] else ""
    titles, rows = comparison_rows(evaluations)
    # Scores run down: a terminal has room for a few checkpoints beside each other, not for twelve columns.
    table = Table(
        "",
        *[row[0] for row in rows],
        title=f"{about['name']}{pasted}: {about['images']} images, {about['height']} high",
    )
    for number, title in enumerate(titles[1:], start=1):
        table.add_row(title, *[row[number] for row in rows])
    console.print(table)
    if evaluations[0].scores["foreground_region"]["pixels"] == 0:
        console.print("No truth behind the foreground in this set: add --pasted to know some.")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_csv(path: Path, evaluations: list[Evaluation]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [name for name in ImageScore.__dataclass_fields__ if name != "index"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["weights", *names], extrasaction="ignore")
        writer.writeheader()
        for evaluation in evaluations:
            for image in evaluation.images:
                writer.writerow({"weights": evaluation.label, **_without_nan(asdict(image))})


if __name__ == "__main__":
    sys.exit(main())
