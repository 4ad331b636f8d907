"""How likely the class of a cell is right: the network's probability, corrected for where the cell lies."""

from __future__ import annotations

from typing import Final

import numpy as np

SEEN_WEIGHTS: Final = (-1.85, 0.877, -0.201)
"""Logistic regression for cells that are seen: constant, weights of the network's logit and of the log spread."""
INFERRED_WEIGHTS: Final = (-0.274, 1.25, -0.00502, -0.0319)
"""The same for cells behind objects, and the weight of the depth behind the object, per metre.

Both are what `benchmarks/layout_confidence.py --fit` prints for the default weights, on held-out synthetic streets.
"""

LOGITS: Final = np.log((np.arange(256) + 0.5) / (255.5 - np.arange(256))).astype(np.float32)
"""float32[256]: logit of a probability that is stored in a byte."""


def cell_confidence(
    confidence: np.ndarray | None, log_spread: np.ndarray, inferred: np.ndarray, depth: np.ndarray
) -> np.ndarray:
    """Return how likely classes of cells are right, (V,) uint8, 255 = 1.

    Args:
        confidence: (V,) uint8, the network's probability of the class, 255 = 1; None: certain.
        log_spread: (V,) float32, see `GroundTable.log_spread`.
        inferred: (K,) intp, which of the cells lie behind an object.
        depth: (K,) float32, how many metres these lie behind the object's foot.
    """
    constant, certain, wide = map(np.float32, SEEN_WEIGHTS)
    table = certain * LOGITS + constant
    score = wide * log_spread
    score += table[-1] if confidence is None else table.take(confidence)
    constant, certain, wide, deep = map(np.float32, INFERRED_WEIGHTS)
    table = certain * LOGITS + constant
    behind = wide * log_spread.take(inferred) + deep * depth
    behind += table[-1] if confidence is None else table.take(confidence.take(inferred))
    score[inferred] = behind
    np.exp(-score, out=score)
    score += 1
    np.divide(np.float32(255), score, out=score)
    score += np.float32(0.5)
    return score.astype(np.uint8)
