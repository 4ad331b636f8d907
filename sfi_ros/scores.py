"""How right a scene is where the true background is known: confusion matrices, IoU, and the two regions of the paper;
and how right its layout on the ground is, where it is seen and where it is hidden behind objects.

Training counts with torchmetrics, which sums over processes and devices; what a confusion matrix is worth is computed
here for both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfi_ros.classes import BACKGROUND_CLASSES, IGNORE
from sfi_ros.geometry.ground_table import GroundTable
from sfi_ros.geometry.layout import GroundLayout


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


@dataclass(frozen=True)
class LayoutComparison:
    """Cells of a layout beside the layout of the truth: those in view whose true background is known, K of them.

    Attributes:
        predicted, truth: (K,) uint8 classes; 255 where there is no ground to be known (behind something fixed).
        confidence: (K,) uint8, of the predicted class.
        hidden: (K,) bool, behind a true object.
        ranges: (K,) float32, metres from the point below the camera.
    """

    predicted: np.ndarray
    truth: np.ndarray
    confidence: np.ndarray
    hidden: np.ndarray
    ranges: np.ndarray

    def counts(self, number: int, where: np.ndarray) -> np.ndarray:
        """Return cells of a class that are both, predicted and true, (3,) int64, of those `where` (K,) is true."""
        predicted, truth = (self.predicted == number) & where, (self.truth == number) & where
        return np.array([(predicted & truth).sum(), predicted.sum(), truth.sum()], dtype=np.int64)


def compare_layouts(
    table: GroundTable,
    layout: GroundLayout,
    truth: GroundLayout,
    true_foreground: np.ndarray,
    true_background: np.ndarray,
) -> LayoutComparison:
    """Put the cells of a layout beside those of the truth, laid out in the same way.

    Args:
        table: that both layouts were made with.
        layout: to be judged.
        truth: what `lay_out` makes of the next two.
        true_foreground, true_background: (H, W) uint8, of the table's image size: 0/1 and classes; cells whose true
            background is 255 are left out.
    """
    known = true_background.reshape(-1)[table.pixels] != IGNORE
    cells = table.cells[known]
    return LayoutComparison(
        predicted=layout.classes.reshape(-1)[cells],
        truth=truth.classes.reshape(-1)[cells],
        confidence=layout.confidence.reshape(-1)[cells],
        hidden=true_foreground.reshape(-1)[table.pixels[known]] != 0,
        ranges=table.ranges[known],
    )


class LayoutScores:
    """Pools cells over frames: IoU of road and of sidewalk on the ground, where it is seen and where it is hidden."""

    def __init__(self) -> None:
        self._counts = {
            (region, name): np.zeros(3, np.int64) for region in ("seen", "hidden") for name in ("road", "sidewalk")
        }

    def add(self, comparison: LayoutComparison) -> None:
        """Count one frame."""
        for (region, name), counts in self._counts.items():
            where = comparison.hidden if region == "hidden" else ~comparison.hidden
            counts += comparison.counts(BACKGROUND_CLASSES.index(name), where)

    def compute(self) -> dict[str, float]:
        """layout_seen_road_iou, layout_hidden_road_iou and the same of sidewalk, 0 to 1; NaN where there is none."""
        return {
            f"layout_{region}_{name}_iou": iou(*map(int, counts)) for (region, name), counts in self._counts.items()
        }


def iou(both: int, predicted: int, true: int) -> float:
    """Intersection over union from counts; NaN where there is no true one."""
    return both / (predicted + true - both) if true else float("nan")


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
