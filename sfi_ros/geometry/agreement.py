"""The street tells the truth later: how often what was inferred behind objects was seen there afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from sfi_ros.classes import BACKGROUND_CLASSES

DEPTHS: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Metres behind the object's foot at which the bins of depth begin."""
CONFIDENCES: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Confidences at which the bins of confidence begin."""

_CLASSES: Final = len(BACKGROUND_CLASSES)


class Agreement:
    """Counts cells that were inferred behind an object and seen later.

    It is agreement with what the same network says once it sees the cell, not with a person's labels.

    Attributes:
        counts: (inferred class, class seen later, bin of depth, bin of confidence) int64.
        confidence_sums: (bins of confidence,) float64, of the cells' confidences when they were last inferred.
    """

    def __init__(self) -> None:
        self.counts = np.zeros((_CLASSES, _CLASSES, len(DEPTHS), len(CONFIDENCES)), np.int64)
        self.confidence_sums = np.zeros(len(CONFIDENCES))

    @property
    def cells(self) -> int:
        """How many cells were counted."""
        return int(self.counts.sum())

    def add(self, inferred: np.ndarray, seen: np.ndarray, depth: np.ndarray, confidence: np.ndarray) -> None:
        """Count cells, (N,) each.

        Args:
            inferred, seen: class indices, before and now.
            depth: metres behind the object's foot.
            confidence: 0 to 1, of the inferred class.
        """
        if len(inferred) == 0:
            return
        sure = np.digitize(confidence, CONFIDENCES) - 1
        place = (inferred.astype(np.intp), seen.astype(np.intp), np.digitize(depth, DEPTHS) - 1, sure)
        flat = np.ravel_multi_index(place, self.counts.shape)
        self.counts += np.bincount(flat, minlength=self.counts.size).reshape(self.counts.shape)
        self.confidence_sums += np.bincount(sure, weights=confidence, minlength=len(CONFIDENCES))

    @property
    def share(self) -> float | None:
        """Share of the cells whose class was seen to be the inferred one; None without cells."""
        return _share(self.counts)

    def summary(self) -> dict[str, Any]:
        """Return all numbers as JSON has them.

        `by_class` goes by the class seen later, and says what had been inferred there; `calibration` holds mean
        confidence and agreement by bin, and their mean gap weighted by cells (`expected_calibration_error`).
        """
        bins: list[dict[str, Any]] = []
        gap = 0.0
        for number, name in enumerate(_names(CONFIDENCES, "")):
            counts = self.counts[..., number]
            cells, agreed = int(counts.sum()), _share(counts)
            mean = float(self.confidence_sums[number]) / cells if cells else None
            gap += cells * abs(mean - agreed) if mean is not None and agreed is not None else 0.0
            mean = None if mean is None else round(mean, 4)
            bins.append({"bin": name, "cells": cells, "agreement": agreed, "confidence": mean})
        return {
            "cells": self.cells,
            "agreement": self.share,
            "by_class": {
                name: {
                    "cells": int(self.counts[:, number].sum()),
                    "agreement": _share(self.counts[:, number : number + 1], number),
                    "inferred_as": {
                        other: int(self.counts[place, number].sum()) for place, other in enumerate(BACKGROUND_CLASSES)
                    },
                }
                for number, name in enumerate(BACKGROUND_CLASSES)
            },
            "by_depth": {
                name: {
                    "cells": int(self.counts[:, :, number].sum()),
                    "agreement": _share(self.counts[:, :, number]),
                }
                for number, name in enumerate(_names(DEPTHS, " m"))
            },
            "calibration": {
                "bins": bins,
                "expected_calibration_error": round(gap / self.cells, 4) if self.cells else None,
            },
        }


def _share(counts: np.ndarray, only: int | None = None) -> float | None:
    """Return the share of counts on the diagonal of the first two axes; `only`: of the one class seen there."""
    total = int(counts.sum())
    if not total:
        return None
    right = counts[only].sum() if only is not None else sum(counts[n, n].sum() for n in range(_CLASSES))
    return round(int(right) / total, 4)


def _names(starts: Sequence[float], unit: str) -> list[str]:
    ends = [f" to {end:g}" for end in starts[1:]] + [" and more" if unit else " to 1"]
    return [f"{start:g}{end}{unit}" for start, end in zip(starts, ends, strict=True)]
