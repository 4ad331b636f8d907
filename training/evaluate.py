"""Score checkpoints on a dataset.

    python training/evaluate.py --weights default \\
        --dataset kitti --root DATA/kitti --json out/kitti.json --report out/kitti.html

Prints a table with one row for each checkpoint. The primary score is the foreground-region mIoU: how well the
background *behind* objects is known, measured on the pixels that the ground-truth foreground mask covers. A set
without truth there gets it from `--pasted`: objects of other images are pasted onto each image. Cityscapes has it for
the images that the paper's authors annotated: where `gt_manual/<split>` lies beside the labels, these are measured.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import Dataset

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sfi_ros.errors import SfiError
from sfi_ros.files import replacing, require_writable, write_json
from sfi_ros.network import checkpoint
from sfi_ros.network.shipped_weights import find_weights
from training.data.datasets import DATASET_NAMES, open_dataset
from training.data.label_check import problem_of
from training.data.pasted_occluders import PastedOccluders
from training.data.sample import Sample
from training.data.sources import evenly
from training.measuring.evaluation import (
    PRECISIONS,
    Evaluation,
    ImageScore,
    Runner,
    comparison_rows,
    evaluate,
    without_nan,
)


def open_options(options: argparse.Namespace, height: int) -> tuple[Dataset[Sample], Dataset[Sample]]:
    """Open the dataset that the command line describes, at a height.

    Returns:
        What is to be evaluated, and the whole set that it was made from by `--pasted` and `--limit`.
    """
    # Pasted objects bring a truth of their own, so that the whole set can be used.
    choice = {"manual": False} if options.pasted and options.dataset == "cityscapes" else {}
    whole = open_dataset(options.dataset, options.root, options.split, height, **choice)
    dataset = PastedOccluders(whole, seed=options.seed) if options.pasted else whole
    return dataset if options.limit is None else evenly(dataset, options.limit), whole


def evaluate_file(path: Path, label: str, options: argparse.Namespace) -> tuple[Evaluation, Dataset, Runner]:
    """Load a checkpoint and score it as the command line says; also returns what a report needs."""
    loaded = checkpoint.load(path)
    if loaded.metadata.options.get("mask_source") == "given" and options.mask_source == "predicted":
        raise checkpoint.CheckpointError(f"{path} only works with a given mask: add --mask-source given")
    height = options.height or loaded.metadata.input_height
    dataset, whole = open_options(options, height)
    if problem := problem_of(whole):
        print(f"warning: {problem}", file=sys.stderr)
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
    parser.add_argument(
        "--weights", nargs="+", required=True, help=".safetensors checkpoints, or names that `sfi weights` lists"
    )
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
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--workers", type=int, help="loading processes (default: 0 on a CPU, else up to 8)")
    parser.add_argument("--json", type=Path, help="write all scores; of several checkpoints: a list under 'results'")
    parser.add_argument("--csv", type=Path, help="write the scores of each image, one row each")
    parser.add_argument("--report", type=Path, help="write a self-contained HTML page with plots and pictures")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    options = parser.parse_args(arguments)
    for name, least in (("height", 1), ("limit", 1), ("batch", 1), ("workers", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"--{name} must be {least} or more, got {value}")
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # PyTorch raises either where there is no CUDA
        parser.error(f"--device {options.device} cannot be used: {str(error).splitlines()[0]}")
    if options.workers is None:
        on_cpu = torch.device(options.device).type == "cpu"
        options.workers = 0 if on_cpu else min(8, os.cpu_count() or 1)
    words = sys.argv[1:] if arguments is None else arguments
    options.command = shlex.join(["python", "training/evaluate.py", *map(str, words)])
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse(arguments)
    console = Console(markup=False)
    results = []
    try:
        for path in filter(None, (options.json, options.csv, options.report)):
            require_writable(path)
        files = [find_weights(name) for name in options.weights]
        for path, label in zip(files, _labels(files), strict=True):
            results.append(evaluate_file(path, label, options))
        evaluations = [evaluation for evaluation, _, _ in results]
        _print(console, evaluations)
        _write_files(options, results)
    except (SfiError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in filter(None, (options.json, options.csv, options.report)):
        console.print(f"wrote {path}", highlight=False)
    return 0


def _write_files(options: argparse.Namespace, results: list[tuple[Evaluation, Dataset[Sample], Runner]]) -> None:
    evaluations = [evaluation for evaluation, _, _ in results]
    if options.json:
        content = [evaluation.to_json() for evaluation in evaluations]
        write_json(options.json, content[0] if len(content) == 1 else {"results": content})
    if options.csv:
        _write_csv(options.csv, evaluations)
    if options.report:
        from training.measuring.report import write_report  # matplotlib only when it is needed

        with replacing(options.report) as partial:
            write_report(partial, results)


def _labels(paths: list[Path]) -> list[str]:
    """Return the shortest names that tell the files apart: the file's, or with as many folders as it takes."""
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


def _write_csv(path: Path, evaluations: list[Evaluation]) -> None:
    names = [name for name in ImageScore.__dataclass_fields__ if name != "index"]
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["weights", *names], extrasaction="ignore")
        writer.writeheader()
        for evaluation in evaluations:
            for image in evaluation.images:
                writer.writerow({"weights": evaluation.label, **without_nan(asdict(image))})


if __name__ == "__main__":
    sys.exit(main())
