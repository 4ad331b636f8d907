"""The scores of the paper and the analyses around them, pooled over all pixels of a set.

`SceneMetrics` is what training validates with: all-region and foreground-region mIoU and the foreground mask,
three confusion matrices and nothing else. The analyses of `SceneAnalysis` (how deep behind an object the
background still holds, by object size and category, calibration) cost more and belong to `evaluate.py`.

Everywhere: ground truth 255 does not count; *foreground-region* are the pixels that the ground-truth
foreground mask covers. A class that the truth does not have has IoU nan and stays out of the mean
(`sfi_ros.scores`); a mean over no class is nan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.classification import BinaryConfusionMatrix, MulticlassConfusionMatrix

from sfi_ros.classes import BACKGROUND_CLASSES, FOREGROUND_CLASSES, FOREGROUND_THRESHOLD, IGNORE
from sfi_ros.scores import class_iou, mean_iou
from training.data.sample import Batch

CLASSES = len(BACKGROUND_CLASSES)
DISTANCE_EDGES = (1, 3, 5, 9, 17, 33)
"""First distance of each bin, in pixels from the object's border at network resolution."""
SIZE_EDGES = (0.0, 0.001, 0.004, 0.016, 0.064)
"""First object size of each bin, as a share of the image's area."""
CALIBRATION_BINS = 15


def background_scores(confusion: np.ndarray) -> dict[str, Any]:
    """Turn a confusion matrix (3, 3), truth in rows, into mIoU, IoU per class, accuracy and pixel count."""
    pixels = int(confusion.sum())
    return {
        "miou": mean_iou(confusion),
        "iou": dict(zip(BACKGROUND_CLASSES, class_iou(confusion).tolist(), strict=True)),
        "accuracy": float(np.trace(confusion) / pixels) if pixels else math.nan,
        "pixels": pixels,
    }


def kind_scores(confusion: np.ndarray) -> dict[str, Any]:
    """Turn a confusion matrix (4, 4) of no object and each kind, truth in rows, into mIoU and IoU of the kinds."""
    of_kinds = class_iou(confusion)[1:]
    known = confusion.sum(1)[1:] > 0
    return {
        "miou": float(of_kinds[known].mean()) if known.any() else math.nan,
        "iou": dict(zip(FOREGROUND_CLASSES, of_kinds.tolist(), strict=True)),
    }


class SceneMetrics(nn.Module):
    """All-region mIoU, foreground-region mIoU, foreground-mask and kind scores, pooled over the batches of a set.

    A module, so that it moves with the model that holds it; under distributed training the torchmetrics
    inside are summed over the processes by `compute()`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.all_region = MulticlassConfusionMatrix(CLASSES, ignore_index=IGNORE, validate_args=False)
        self.foreground_region = MulticlassConfusionMatrix(CLASSES, ignore_index=IGNORE, validate_args=False)
        self.foreground_mask = BinaryConfusionMatrix(validate_args=False)
        of_kinds = 1 + len(FOREGROUND_CLASSES)  # 0: no object
        self.foreground_classes = MulticlassConfusionMatrix(of_kinds, ignore_index=IGNORE, validate_args=False)

    def update(
        self, foreground_probability: Tensor, background: Tensor, batch: Batch, kinds: Tensor | None = None
    ) -> None:
        """Count one batch.

        Args:
            foreground_probability: (N, 1, H, W) in 0..1; above 0.5 is foreground, as in the networks.
            background: (N, 3, H, W) probabilities or logits: only their order matters.
            batch: the labels. Its true background is the truth, or its partial one where there is none: the
                foreground region is empty then and its scores are nan.
            kinds: (N, 3, H, W) probabilities or logits of the kinds of objects; None where the network tells none. An
                object of unknown kind does not count, wherever it is found.
        """
        # argmax(1) would give the same and takes thirty times as long on a CPU.
        predicted, truth = background.max(1).indices, batch.truth.long()
        inside = batch.foreground > 0
        self.all_region.update(predicted, truth)
        self.foreground_region.update(predicted[inside], truth[inside])
        found = foreground_probability[:, 0] > FOREGROUND_THRESHOLD
        self.foreground_mask.update(found.long(), inside.long())
        if kinds is None:
            self.foreground_classes.update(truth[:0], truth[:0])
        else:
            known = torch.where(batch.kinds == IGNORE, IGNORE, batch.kinds + 1).long()
            self.foreground_classes.update((kinds.max(1).indices + 1) * found, known * inside)

    def compute(self) -> dict[str, dict[str, Any]]:
        """Return `all_region`, `foreground_region` (`background_scores`), `foreground_mask`, `foreground_classes`.

        `foreground_mask` has `iou`, `precision` and `recall`, nan where their denominator is zero; `foreground_classes`
        is `kind_scores`, nan where the network tells no kinds.
        """
        mask = self.foreground_mask.compute().double()
        hit, extra, missed = mask[1, 1], mask[0, 1], mask[1, 0]
        return {
            "all_region": background_scores(self.all_region.compute().cpu().numpy()),
            "foreground_region": background_scores(self.foreground_region.compute().cpu().numpy()),
            "foreground_mask": {
                "iou": (hit / (hit + extra + missed)).item(),
                "precision": (hit / (hit + extra)).item(),
                "recall": (hit / (hit + missed)).item(),
            },
            "foreground_classes": kind_scores(self.foreground_classes.compute().cpu().numpy()),
        }

    def reset(self) -> None:
        """Forget all batches."""
        for metric in (self.all_region, self.foreground_region, self.foreground_mask, self.foreground_classes):
            metric.reset()


class BinnedConfusion(Metric):
    """One confusion matrix of the background classes for each of several bins of pixels."""

    confusion: Tensor
    full_state_update = False

    def __init__(self, names: Sequence[str]) -> None:
        """`names` are the bins' names, in the order of their numbers."""
        super().__init__()
        self.names = tuple(names)
        size = (len(self.names), CLASSES, CLASSES)
        self.add_state("confusion", torch.zeros(size, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, bins: Tensor, predicted: Tensor, truth: Tensor) -> None:
        """Count pixels: bin numbers (negative: not counted), predicted, truth; int64 of equal shapes."""
        counts = (bins >= 0) & (truth != IGNORE)
        index = (bins * CLASSES + truth)[counts] * CLASSES + predicted[counts]
        self.confusion += torch.bincount(index, minlength=self.confusion.numel()).view_as(self.confusion)

    def compute(self) -> dict[str, dict[str, Any]]:
        """Return `background_scores` by bin name."""
        matrices = self.confusion.cpu().numpy()
        return {name: background_scores(confusion) for name, confusion in zip(self.names, matrices, strict=True)}


class Calibration(Metric):
    """Is a pixel of confidence 0.8 right four times in five? Counted in bins of equal width over 0..1."""

    count: Tensor
    confidence: Tensor
    correct: Tensor
    full_state_update = False

    def __init__(self, bins: int = CALIBRATION_BINS) -> None:
        super().__init__()
        self.bins = bins
        for state in ("count", "confidence", "correct"):
            self.add_state(state, torch.zeros(bins, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, confidence: Tensor, correct: Tensor) -> None:
        """Count pixels: confidence in 0..1 and whether the class was right, both (P,)."""
        index = (confidence * self.bins).long().clamp_(0, self.bins - 1)
        self.count += torch.bincount(index, minlength=self.bins).double()
        self.confidence += torch.bincount(index, weights=confidence.double(), minlength=self.bins)
        self.correct += torch.bincount(index, weights=correct.double(), minlength=self.bins)

    def compute(self) -> dict[str, Any]:
        """Return `ece`, the expected calibration error, and `bins` (empty: nan confidence and accuracy)."""
        gap = (self.confidence - self.correct).abs().sum() / self.count.sum()
        edges = torch.linspace(0, 1, self.bins + 1).tolist()
        return {
            "ece": gap.item(),
            "bins": [
                {
                    "from": low,
                    "to": high,
                    "confidence": confidence,
                    "accuracy": accuracy,
                    "pixels": int(count),
                }
                for low, high, confidence, accuracy, count in zip(
                    edges[:-1],
                    edges[1:],
                    (self.confidence / self.count).tolist(),
                    (self.correct / self.count).tolist(),
                    self.count.tolist(),
                    strict=True,
                )
            ],
        }


class SceneAnalysis(nn.Module):
    """Where and how surely the background behind objects is right; all of it inside the foreground region.

    The exception is `calibration.all_region`. Distances and object sizes are those of the ground-truth mask
    at network resolution; an object is a connected component of it, so people in a group are one object.
    """

    def __init__(self, category_names: Mapping[int, str]) -> None:
        """`category_names`: raw label id -> name of the object categories; other ids are not broken down."""
        super().__init__()
        self.by_distance = BinnedConfusion([f"{name} px" for name in interval_names(DISTANCE_EDGES)])
        self.by_size = BinnedConfusion(size_names())
        self.by_category = BinnedConfusion(list(category_names.values()))
        self.calibration = Calibration()
        self.foreground_calibration = Calibration()
        category_bins = torch.full((256,), -1, dtype=torch.long)
        category_bins[list(category_names)] = torch.arange(len(category_names))
        self.register_buffer("category_bins", category_bins, persistent=False)

    def update(self, probabilities: Tensor, batch: Batch) -> None:
        """Count one batch: background probabilities (N, 3, H, W) that sum to 1 over classes, and labels."""
        confidence, predicted = probabilities.max(1)
        truth, inside = batch.truth.long(), batch.foreground > 0
        valid = truth != IGNORE
        outside_value = torch.tensor(-1, device=truth.device)

        def inside_only(bins: Tensor) -> Tensor:
            return torch.where(inside, bins, outside_value)

        distance = border_distance(batch.foreground, limit=DISTANCE_EDGES[-1])
        self.by_distance.update(inside_only(_bin(distance, DISTANCE_EDGES)), predicted, truth)
        area = object_area(batch.foreground) / inside[0].numel()
        self.by_size.update(inside_only(_bin(area, SIZE_EDGES)), predicted, truth)
        categories = self.category_bins[batch.categories.long()]
        self.by_category.update(inside_only(categories), predicted, truth)

        correct = predicted == truth
        self.calibration.update(confidence[valid], correct[valid])
        self.foreground_calibration.update(confidence[valid & inside], correct[valid & inside])

    def compute(self) -> dict[str, Any]:
        """Return `by_distance`, `by_size`, `by_category` (`background_scores` by bin) and `calibration`."""
        return {
            "by_distance": self.by_distance.compute(),
            "by_size": self.by_size.compute(),
            "by_category": self.by_category.compute(),
            "calibration": {
                "all_region": self.calibration.compute(),
                "foreground_region": self.foreground_calibration.compute(),
            },
        }


def border_distance(mask: Tensor, limit: int) -> Tensor:
    """How deep each pixel of a mask (N, H, W) lies in it: int64, in chessboard distance.

    Pixels beside an unset one have 1, unset ones 0; nothing is measured beyond `limit`. What lies outside
    the image is unknown and counts as set.
    """
    # Each step grows the unset region by one ring; a pixel's distance is the number of steps it stays clear.
    unset = (mask == 0).float()[:, None]
    reached = unset.clone()
    for _ in range(limit - 1):
        unset = functional.max_pool2d(unset, 3, stride=1, padding=1)
        reached += unset
    return (limit - reached)[:, 0].long()


def object_area(mask: Tensor) -> Tensor:
    """Area in pixels of the object (connected component) that each pixel of a mask (N, H, W) is part of.

    Returns int64 (N, H, W), 0 at unset pixels.
    """
    areas = []
    for single in mask.cpu().numpy():
        _, components, boxes, _ = cv2.connectedComponentsWithStats((single > 0).astype(np.uint8), connectivity=8)
        area = boxes[:, cv2.CC_STAT_AREA].astype(np.int64)
        area[0] = 0  # what is not foreground
        areas.append(area[components])
    return torch.from_numpy(np.stack(areas)).to(mask.device)


def interval_names(edges: Sequence[int]) -> list[str]:
    """Names of the integer bins that begin at `edges`: (1, 3, 5) -> `1-2`, `3-4`, `5+`."""
    inner = [str(low) if high - low == 1 else f"{low}-{high - 1}" for low, high in pairwise(edges)]
    return [*inner, f"{edges[-1]}+"]


def size_names() -> list[str]:
    """Names of the object-size bins, in per cent of the image's area."""
    percent = [f"{100 * edge:g}" for edge in SIZE_EDGES]
    inner = [f"{low}-{high} %" for low, high in pairwise(percent)]
    return [*inner, f"over {percent[-1]} %"]


def _bin(values: Tensor, edges: Sequence[float]) -> Tensor:
    # Number of the last edge that is not above the value; -1 below the first.
    boundaries = torch.tensor(edges, device=values.device, dtype=values.dtype)
    return torch.bucketize(values, boundaries, right=True) - 1
