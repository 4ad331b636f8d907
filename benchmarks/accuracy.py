"""What speed costs in accuracy: the engine's backends and precisions against the plain float32 network.

    .venv/bin/python benchmarks/accuracy.py --dataset kitti --root ../shared/data/kitti_dev
    .venv/bin/python benchmarks/accuracy.py                                    # the synthetic street

Every row sees the same images at network resolution; scores are in points of mIoU, pixels pooled over the set.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import tables
from sfi_ros.inference import DEFAULT_WEIGHTS, InferenceEngine
from sfi_ros.inference.device import choose_device, possible_precisions
from sfi_ros.network import checkpoint
from sfi_ros.network.preprocessing import normalize
from training.data.datasets import DATASET_NAMES, open_dataset
from training.data.pasted_occluders import PastedOccluders
from training.data.sample import collate
from training.measuring.metrics import SceneMetrics

Answer = tuple[np.ndarray, np.ndarray]
"""Foreground 0/1 and class index, each (H, W)."""

COLUMNS = (
    tables.Column("runs", "runs by", identity=True),
    tables.Column("foreground_region", "foreground-region mIoU", ".2f"),
    tables.Column("all_region", "all-region mIoU", ".2f"),
    tables.Column("mask", "mask IoU", ".2f"),
    tables.Column("worst_change", "largest change", "+.2f"),
    tables.Column("equal_classes", "pixels with the same class", ".3%"),
)


def plain(weights: Path) -> Callable[[np.ndarray], Answer]:
    """Return the network as it was trained: eager PyTorch in float32 on the CPU."""
    network = checkpoint.load(weights).network.eval()

    @torch.inference_mode()
    def run(image: np.ndarray) -> Answer:
        logits = network(normalize(torch.from_numpy(image).permute(2, 0, 1)[None]))
        return (logits.foreground[0, 0] > 0).byte().numpy(), logits.background[0].max(0).indices.byte().numpy()

    return run


def by_engine(weights: Path, variant: str, device: str) -> Callable[[np.ndarray], Answer]:
    """Return the engine; `variant` is "backend/precision" or the path of an exported network."""
    if variant.endswith(".onnx"):
        engine = InferenceEngine.load(variant, device=device, output_size="network")
    else:
        backend, _, precision = variant.partition("/")
        engine = InferenceEngine.load(
            weights, device=device, backend=backend, precision=precision or "auto", output_size="network"
        )

    def run(image: np.ndarray) -> Answer:
        engine.input_height = image.shape[0]  # the image has the network's resolution already
        scene = engine(image)
        return scene.foreground, scene.background

    return run


def main() -> None:
    """Run all variants over the set, image by image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "variants",
        nargs="*",
        metavar="VARIANT",
        help="backend/precision, or an exported .onnx file (default: PyTorch in every precision of the device)",
    )
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dataset", choices=DATASET_NAMES, default="synthetic")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--pasted", action="store_true", help="paste objects of other images, for a true background")
    parser.add_argument("--limit", type=int, help="at most this many images, evenly spread")
    tables.add_options(parser)
    arguments = parser.parse_args()

    dataset = open_dataset(arguments.dataset, arguments.root)
    if arguments.pasted:
        dataset = PastedOccluders(dataset)
    numbers = np.unique(np.linspace(0, len(dataset) - 1, arguments.limit or len(dataset)).astype(int))
    runs = {"plain float32": plain(arguments.weights)}
    variants = arguments.variants or [
        f"pytorch/{name}" for name in possible_precisions(choose_device(arguments.device))
    ]
    runs |= {variant: by_engine(arguments.weights, variant, arguments.device) for variant in variants}
    metrics = {name: SceneMetrics() for name in runs}
    equal = dict.fromkeys(runs, 0)
    pixels = 0
    for sample in track((dataset[int(number)] for number in numbers), total=len(numbers), transient=True):
        image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
        batch = collate([sample])
        answers = {name: run(image) for name, run in runs.items()}
        pixels += image[..., 0].size
        for name, (mask, classes) in answers.items():
            one_hot = torch.nn.functional.one_hot(torch.from_numpy(classes).long(), 3).permute(2, 0, 1)[None]
            metrics[name].update(torch.from_numpy(mask)[None, None].float(), one_hot, batch)
            equal[name] += int((classes == answers["plain float32"][1]).sum())
    table = tables.Table("accuracy", f"{len(numbers)} images of {arguments.dataset}", COLUMNS)
    table.rows += _rows(metrics, {name: count / pixels for name, count in equal.items()})
    tables.report(arguments, table)


def _rows(metrics: dict[str, SceneMetrics], equal: dict[str, float]) -> Iterator[tables.Row]:
    reference: list[float] = []
    for name, metric in metrics.items():
        found = metric.compute()
        scores = [found["foreground_region"]["miou"], found["all_region"]["miou"], found["foreground_mask"]["iou"]]
        scores = [100 * score for score in scores]
        reference = reference or scores
        changes = [score - other for score, other in zip(scores, reference, strict=True)]
        yield {
            "runs": name,
            "foreground_region": scores[0],
            "all_region": scores[1],
            "mask": scores[2],
            "worst_change": max(changes, key=abs),
            "equal_classes": equal[name],
        }


if __name__ == "__main__":
    main()
