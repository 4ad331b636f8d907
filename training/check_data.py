"""Scan a dataset before hours are spent on it: class shares, unreadable files, label problems.

    python training/check_data.py --dataset cityscapes --root DATA/cityscapes --split train

Every sample is loaded once, in parallel, exactly as training would load it. Ends with status 1 if a sample
cannot be loaded.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sfi_ros.classes import BACKGROUND_CLASSES, FOREGROUND_CLASSES, IGNORE
from training.data.datasets import DATASET_NAMES, DatasetError, open_dataset
from training.data.label_check import label_problem
from training.data.sample import Sample

RARE_SHARE = 0.001


@dataclass
class CheckReport:
    """What a scan found.

    Attributes:
        images: number of samples scanned.
        problems: one message for each sample that could not be loaded; training would stop at it.
        warnings: oddities of the set as a whole, such as a class that hardly occurs.
        shares: share of all pixels that are road, sidewalk, other, foreground, unlabeled.
        images_with: number of images in which each of these occurs.
        categories: share of all pixels by object category.
        truth_behind: share of the foreground pixels behind which the true background is known.
        kinds: share of the foreground pixels by kind of object; what is left is of unknown kind.
        sizes: number of images by (height, width) at network resolution.
    """

    images: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    images_with: dict[str, int] = field(default_factory=dict)
    categories: dict[str, float] = field(default_factory=dict)
    truth_behind: float = 0.0
    kinds: dict[str, float] = field(default_factory=dict)
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every sample could be loaded."""
        return not self.problems

    def print(self, console: Console | None = None) -> None:
        """Show the report as tables."""
        console = console or Console()
        table = Table("class", "share of pixels", "images with it", title=f"{self.images} images")
        for name, share in self.shares.items():
            table.add_row(name, f"{share:.2%}", str(self.images_with[name]))
        for name, share in self.categories.items():
            table.add_row(f"  {name}", f"{share:.2%}", "")
        console.print(table)
        sizes = ", ".join(f"{w}x{h} ({count})" for (h, w), count in sorted(self.sizes.items()))
        console.print(f"sizes at network resolution, width x height (images): {sizes or 'none'}")
        console.print(f"true background known behind {self.truth_behind:.1%} of the foreground")
        kinds = ", ".join(f"{name} {share:.1%}" for name, share in self.kinds.items())
        console.print(f"kinds of objects known of {sum(self.kinds.values()):.1%} of the foreground: {kinds}")
        for warning in self.warnings:
            console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)
        for problem in self.problems[:20]:
            console.print(f"[red]problem:[/] {escape(problem)}", highlight=False, soft_wrap=True)
        if len(self.problems) > 20:
            console.print(f"… and {len(self.problems) - 20} problems more")
        if self.ok:
            console.print("[green]every sample can be loaded[/]")


SHARE_NAMES = (*BACKGROUND_CLASSES, "foreground", "unlabeled")


def check_dataset(dataset: Dataset[Sample], workers: int | None = None, quiet: bool = False) -> CheckReport:
    """Load every sample of a dataset once and report on what was found.

    Args:
        dataset: any dataset of samples with a length.
        workers: processes that load; default one for each core, 0 loads in this process.
        quiet: show no progress bar.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    loader = DataLoader(_Probe(dataset), batch_size=None, num_workers=workers)
    report = CheckReport()
    pixels = torch.zeros(len(SHARE_NAMES), dtype=torch.long)
    images_with = torch.zeros_like(pixels)
    categories, kinds, known = torch.zeros(256, dtype=torch.long), torch.zeros(256, dtype=torch.long), 0
    sizes: Counter[tuple[int, int]] = Counter()
    for found in track(loader, "checking", total=len(dataset), disable=quiet):
        report.images += 1
        if isinstance(found, str):
            report.problems.append(found)
            continue
        pixels += found.pixels
        images_with += found.pixels > 0
        categories += found.categories
        kinds += found.kinds
        known += found.truth_behind
        sizes[found.size] += 1
    total = max(int(pixels.sum()), 1)
    report.shares = dict(zip(SHARE_NAMES, (pixels / total).tolist(), strict=True))
    report.images_with = dict(zip(SHARE_NAMES, images_with.tolist(), strict=True))
    names = getattr(dataset, "category_names", {})
    report.categories = {name: int(categories[label_id]) / total for label_id, name in names.items()}
    foreground = max(int(pixels[SHARE_NAMES.index("foreground")]), 1)
    report.truth_behind = known / foreground
    report.kinds = {name: int(count) / foreground for name, count in zip(FOREGROUND_CLASSES, kinds, strict=False)}
    report.sizes = dict(sizes)
    report.warnings = _warnings(report)
    return report


def _warnings(report: CheckReport) -> list[str]:
    if report.images == len(report.problems):
        return []
    problem = label_problem(report.images - len(report.problems), report.shares)
    if problem is not None:
        return [problem]
    warnings = [
        f"'{name}' covers {report.shares[name]:.3%} of the pixels: are these the right label files?"
        for name in (*BACKGROUND_CLASSES, "foreground")
        if report.shares[name] < RARE_SHARE
    ]
    if report.shares["unlabeled"] > 0.5:
        warnings.append(f"{report.shares['unlabeled']:.0%} of the pixels are unlabeled: is the class map complete?")
    return warnings


@dataclass
class _Finding:
    pixels: Tensor  # by SHARE_NAMES
    categories: Tensor  # (256,)
    kinds: Tensor  # (256,)
    truth_behind: int
    size: tuple[int, int]


class _Probe(Dataset):
    """Statistics of each sample instead of its pictures, or the message of the error that loading it raised."""

    def __init__(self, dataset: Dataset[Sample]):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> _Finding | str:
        try:
            sample = self.dataset[index]
        except DatasetError as error:
            return str(error)
        except (OSError, RuntimeError, ValueError) as error:
            return f"sample {index}: {error!r}"
        classes = torch.bincount(sample.partial_background.flatten().int(), minlength=256)
        foreground = sample.foreground > 0
        unlabeled = classes[IGNORE] - foreground.sum()
        known = 0
        if sample.true_background is not None:
            known = int((sample.true_background[foreground] != IGNORE).sum())
        return _Finding(
            pixels=torch.stack([*classes[: len(BACKGROUND_CLASSES)], foreground.sum(), unlabeled]),
            categories=torch.bincount(sample.categories.flatten().int(), minlength=256),
            kinds=torch.bincount(sample.kinds.flatten().int(), minlength=256),
            truth_behind=known,
            size=tuple(sample.image.shape[-2:]),
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Scan a dataset for unreadable files and label problems.")
    parser.add_argument("--dataset", choices=DATASET_NAMES, required=True)
    parser.add_argument("--root", type=Path, help="folder of the dataset (not for synthetic)")
    parser.add_argument("--split", help="train or val, of cityscapes and synthetic (default val)")
    parser.add_argument("--height", type=int, default=256, help="image height in pixels (default %(default)s)")
    parser.add_argument("--workers", type=int, help="loading processes (default: one for each core)")
    options = parser.parse_args(arguments)
    for name, least in (("height", 1), ("workers", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"--{name} must be {least} or more, got {value}")
    try:
        dataset = open_dataset(options.dataset, options.root, options.split, options.height)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = check_dataset(dataset, options.workers)
    report.print()
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
