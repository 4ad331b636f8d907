"""What the paper says of its tables, held against runs of ours: row A scores higher than row B.

Runs of equal seed are compared in pairs: they saw the same images in the same order. A claim holds here where the mean
of the differences is larger than their spread over the seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Label = tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """One sentence, and the rows that it compares.

    Attributes:
        text: the sentence.
        better, worse: labels of two rows of the table.
        score: by which they are compared.
    """

    text: str
    better: Label
    worse: Label
    score: str = "foreground_region_miou"


@dataclass(frozen=True)
class Finding:
    """What our runs say to a claim.

    Attributes:
        mean: of the differences between the two rows, better less worse; nan where no run of both has the score.
        spread: their standard deviation over the seeds; nan where there are fewer than two.
    """

    mean: float
    spread: float

    @property
    def verdict(self) -> str:
        """In words."""
        if math.isnan(self.mean):
            return "not measured"
        if math.isnan(self.spread):
            return "one seed: cannot be said"
        if abs(self.mean) <= self.spread:
            return "within the spread"
        return "held" if self.mean > 0 else "the opposite"

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return self.verdict
        spread = "" if math.isnan(self.spread) else f" ± {100 * self.spread:.1f}"
        return f"{100 * self.mean:+.1f}{spread}: {self.verdict}"


def examine(claim: Claim, scores: Mapping[Label, Sequence[Mapping[str, float]]]) -> Finding:
    """Compare two rows.

    Args:
        claim: what is said of them.
        scores: label of a row -> the scores of its runs, in the order of the seeds.
    """
    pairs = zip(scores.get(claim.better, ()), scores.get(claim.worse, ()), strict=False)
    differences = [better[claim.score] - worse[claim.score] for better, worse in pairs]
    differences = [difference for difference in differences if not math.isnan(difference)]
    return Finding(
        statistics.fmean(differences) if differences else math.nan,
        statistics.stdev(differences) if len(differences) > 1 else math.nan,
    )
