"""How right a scene is where the true background is known: the two regions of the paper, counted in plain numpy.

The training room measures with torchmetrics; a vehicle has none of it, and a test holds the two equal.
"""

from __future__ import annotations

import numpy as np

from sfi_ros.classes import BACKGROUND_CLASSES, IGNORE


class RegionScores:
    """Pools pixels over frames: background mIoU over all pixels, and over those that the true foreground covers."""

    def __init__(self) -> None:
        classes = len(BACKGROUND_CLASSES)
        self._all = np.zeros((classes, classes), dtype=np.int64)  # [truth, prediction]
        self._behind = np.zeros((classes, classes), dtype=np.int64)
        self._mask = np.zeros(2, dtype=np.int64)  # intersection, union

    def add(
        self,
        foreground: np.ndarray,
        background: np.ndarray,
        true_foreground: np.ndarray,
        true_background: np.ndarray,
    ) -> None:
        """Count one frame.

        Args:
            foreground, background: predicted, (H, W) uint8: 0/1 and classes.
            true_foreground, true_background: the truth, likewise; 255 in the background is not counted.
        """
        valid = true_background != IGNORE
        self._all += _confusion(true_background[valid], background[valid])
        behind = valid & (true_foreground > 0)
        self._behind += _confusion(true_background[behind], background[behind])
        predicted, true = foreground > 0, true_foreground > 0
        self._mask += [int((predicted & true).sum()), int((predicted | true).sum())]

    def compute(self) -> dict[str, float]:
        """all_region_miou, foreground_region_miou and foreground_mask_iou, 0 to 1; NaN where nothing was counted."""
        return {
            "all_region_miou": mean_iou(self._all),
            "foreground_region_miou": mean_iou(self._behind),
            "foreground_mask_iou": float(self._mask[0] / self._mask[1]) if self._mask[1] else float("nan"),
        }


def mean_iou(confusion: np.ndarray) -> float:
    """Mean intersection over union of the classes that occur in truth or prediction; NaN when none does."""
    intersection = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    present = union > 0
    return float((intersection[present] / union[present]).mean()) if present.any() else float("nan")


def _confusion(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    classes = len(BACKGROUND_CLASSES)
    pairs = truth.astype(np.int64) * classes + prediction
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
