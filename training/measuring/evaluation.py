"""Score a network on a dataset: the numbers of the paper, the analyses around them, and every image by itself."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sfi_ros import options
from sfi_ros.classes import BACKGROUND_CLASSES, FOREGROUND_CLASSES, FOREGROUND_THRESHOLD
from sfi_ros.network.outputs import to_probabilities
from sfi_ros.network.preprocessing import normalize
from sfi_ros.scores import confusion_matrix
from training.data.sample import Batch, Sample, collate
from training.measuring.metrics import SceneAnalysis, SceneMetrics, background_scores

PRECISIONS = {name: getattr(torch, name) for name in options.PRECISIONS if name != "auto"}


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
        return without_nan({**self.scores, **self.about})


class Runner:
    """A network on a device, as it is evaluated: normalised images in, probabilities out, the pass timed."""

    def __init__(
        self,
        network: nn.Module,
        device: str | torch.device = "cpu",
        precision: str = "float32",
        mask_source: str = "predicted",
    ):
        """Move `network` to the device.

        Args:
            network: of `sfi_ros.network.zoo`.
            device: where it runs.
            precision: `float32`, or `bfloat16` or `float16` autocast.
            mask_source: `predicted`, or `given`: the ground-truth foreground is handed to the network, which
                then fills exactly the pixels that are scored. The published mask is predicted in either case.
        """
        self.device, self.dtype = torch.device(device), PRECISIONS[precision]
        self.network = network.eval().to(self.device, memory_format=torch.channels_last)
        self.give_mask = mask_source == "given"

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None, float]:
        """Run one batch that lies on the device.

        Returns:
            Foreground probability (N, 1, H, W), background probabilities (N, 3, H, W), those of kinds of objects
            (N, 3, H, W) or None, all float32, and the seconds that the network's pass took.
        """
        images = normalize(batch.image).contiguous(memory_format=torch.channels_last)
        given = batch.foreground[:, None] if self.give_mask else None
        self._wait()
        start = time.perf_counter()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.network(images, given_foreground=given)
        self._wait()
        seconds = time.perf_counter() - start
        probabilities = to_probabilities(logits)
        kinds = None if logits.kinds is None else probabilities[:, 4:]
        return probabilities[:, :1], probabilities[:, 1:4], kinds, seconds

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
        foreground, background, kinds, seconds = runner(batch)
        metrics.update(foreground, background, batch, kinds)
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
    predicted = background.max(1).indices.cpu().numpy()
    mask = (foreground[:, 0] > FOREGROUND_THRESHOLD).cpu().numpy()
    truths, insides = batch.truth.cpu().numpy(), (batch.foreground > 0).cpu().numpy()
    scores = []
    for number, (index, name) in enumerate(zip(indices, batch.names, strict=True)):
        truth, inside = truths[number], insides[number]
        everywhere = background_scores(confusion_matrix(truth, predicted[number]))
        behind = background_scores(confusion_matrix(truth[inside], predicted[number][inside]))
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


def without_nan(value: Any) -> Any:
    """Replace nan and infinity, which JSON does not have, by None, in lists and dictionaries of any depth."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def comparison_rows(evaluations: list[Evaluation]) -> tuple[list[str], list[list[str]]]:
    """Return the comparison table: column titles, and one row of formatted cells for each evaluation."""
    titles = ["weights", "network", "foreground-region mIoU", *[f"  {name}" for name in BACKGROUND_CLASSES]]
    titles += ["all-region mIoU", *[f"  {name}" for name in BACKGROUND_CLASSES]]
    titles += ["foreground-mask IoU", "  precision", "  recall"]
    titles += ["kinds of objects mIoU", *[f"  {name}" for name in FOREGROUND_CLASSES]]
    titles += ["calibration error", "ms per image"]
    rows = []
    for evaluation in evaluations:
        scores = evaluation.scores
        behind, everywhere, mask = scores["foreground_region"], scores["all_region"], scores["foreground_mask"]
        values = [behind["miou"], *behind["iou"].values(), everywhere["miou"], *everywhere["iou"].values()]
        values += [mask["iou"], mask["precision"], mask["recall"]]
        values += [scores["foreground_classes"]["miou"], *scores["foreground_classes"]["iou"].values()]
        values.append(scores["calibration"]["foreground_region"]["ece"])
        speed = scores["speed"]["network_ms_per_image_median"]
        network = evaluation.about.get("weights", {}).get("network", "")
        rows.append([evaluation.label, network, *map(format_score, values), f"{speed:.1f}"])
    return titles, rows


def format_score(value: float) -> str:
    """Three decimals, or a dash for nan."""
    return "–" if math.isnan(value) else f"{value:.3f}"
