"""How right a scene is where the true background is known: confusion matrices, IoU, and the two regions of the paper.

Training counts with torchmetrics, which sums over processes and devices; what a confusion matrix is worth is computed
here for both.
"""

from __future__ import annotations

import numpy as np

from sfi_ros.classes import BACKGROUND_CLASSES, IGNORE


class RegionScores:
    """Pools pixels over frames: background mIoU over all pixels, and over those that the true foreground covers."""

    def __init__(self) -> None:
        classes = len(BACKGROUND_CLASSES)
        self._all = np.zeros((classes, classes), dtype=np.int64)
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
        behind = true_foreground > 0
        self._all += confusion_matrix(true_background, background)
        self._behind += confusion_matrix(true_background[behind], background[behind])
        predicted = foreground > 0
        self._mask += [int((predicted & behind).sum()), int((predicted | behind).sum())]

    def compute(self) -> dict[str, float]:
        """all_region_miou, foreground_region_miou and foreground_mask_iou, 0 to 1; NaN where nothing was counted."""
        return {
            "all_region_miou": mean_iou(self._all),
            "foreground_region_miou": mean_iou(self._behind),
            "foreground_mask_iou": float(self._mask[0] / self._mask[1]) if self._mask[1] else float("nan"),
        }


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Count pairs of background classes.

    Args:
        truth: class indices of any shape, integer; 255 is not counted.
        prediction: class indices of the same shape.

    Returns:
        (3, 3) int64, truth in rows, prediction in columns.
    """
    classes = len(BACKGROUND_CLASSES)
    known = truth != IGNORE
    pairs = truth[known].astype(np.int64) * classes + prediction[known]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, (C,) float64.

    NaN for a class that the truth does not have: a set that does not label sidewalk cannot say how well sidewalk is
    found. What was wrongly taken for it still counts as missing from the other classes.

    Args:
        confusion: (C, C), truth in rows.
    """
    intersection = np.diag(confusion).astype(np.float64)
    occurrences = confusion.sum(1)
    union = occurrences + confusion.sum(0) - intersection
    return np.divide(intersection, union, out=np.full(len(confusion), np.nan), where=occurrences > 0)


def mean_iou(confusion: np.ndarray) -> float:
    """Mean of `class_iou` over the classes that the truth has; NaN when it has none."""
    known = confusion.sum(1) > 0
    return float(class_iou(confusion)[known].mean()) if known.any() else float("nan")
