"""Whether the confidence of the ground layout is right, and the weights that make it so.

    .venv/bin/python benchmarks/layout_confidence.py            # how well the weights in the package fit
    .venv/bin/python benchmarks/layout_confidence.py --fit      # which weights would fit best

A confidence is right when, of all cells that have it, that share has the right class. The right class is that of the
street from above, at the cell, unless something fixed stands there or in front of it. The camera's pose is known as
well as on a vehicle: with an error, which counts more the farther a cell is away. `--fit` uses streets of the synthetic
validation split, the table others, on which nothing is trained or fitted.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import tables
from sfi_ros.classes import IGNORE
from sfi_ros.frames.sources import UNSEEN_SEED
from sfi_ros.geometry.confidence import INFERRED_WEIGHTS, LOGITS, SEEN_WEIGHTS, cell_confidence
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.layout import BLOCKED, INFERRED, SEEN, LayoutMaker, lay_out
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.inference import DEFAULT_WEIGHTS, InferenceEngine
from sfi_ros.synthetic import SyntheticStreet
from training.data.datasets.synthetic import SPLIT_SEEDS

OTHER = 2
EVERY = 17  # of the cells: neighbours say the same
HEIGHT_ERROR, PITCH_ERROR, YAW_ERROR = 0.055, 0.009, 0.005
"""Standard deviations, metres and radians; the first two are those of 239 road calibrations of KITTI."""
BINS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.001)

COLUMNS = (
    tables.Column("cells", "cells", identity=True),
    tables.Column("confidence", "confidence", identity=True),
    tables.Column("count", "share of the cells", ".1%"),
    tables.Column("network", "the network's own", ".3f"),
    tables.Column("said", "said", ".3f"),
    tables.Column("right", "right", ".3f"),
)


def observe(engine: InferenceEngine, streets: int, frames: int, seed: int) -> dict[str, np.ndarray]:
    """Lay out frames of some streets; return for some of the known cells what is known, and whether the class is right.

    Returns:
        Arrays (K,): pixel_confidence uint8, log_spread and depth float32, hidden and right bool.
    """
    maker, rng = LayoutMaker(GroundGrid()), np.random.default_rng(seed)
    x, y = maker.grid.centres()
    parts: dict[str, list[np.ndarray]] = {}
    for number in track(range(streets), transient=True):
        street = SyntheticStreet(seed=seed + number, width=1024, height=512)
        for index in range(0, 30 * frames, 30):
            frame = street.frame(index)
            scene = engine(frame.image)
            pose = street.pose(index)
            truth = maker(street.calibration, pose, frame.foreground, frame.background)
            table = maker.table(street.calibration, roughly(pose, rng), (1024, 512))
            layout = lay_out(table, scene.foreground, scene.background, scene.confidence)
            below = street.ground_at(index, x, y).classes
            stands = (truth.evidence == BLOCKED) | (truth.classes == OTHER)
            right = (layout.classes == np.where(stands, truth.classes, below)).reshape(-1)[table.cells]
            evidence = layout.evidence.reshape(-1)[table.cells]
            known = (layout.classes.reshape(-1)[table.cells] != IGNORE) & (evidence <= INFERRED) & (evidence >= SEEN)
            chosen = np.flatnonzero(known)
            chosen = rng.choice(chosen, len(chosen) // EVERY, replace=False)
            found = {
                "pixel_confidence": scene.confidence.reshape(-1)[table.pixels[chosen]],
                "log_spread": table.log_spread[chosen],
                "hidden": evidence[chosen] == INFERRED,
                "depth": layout.depth.reshape(-1)[table.cells[chosen]].astype(np.float32) / 10,
                "right": right[chosen],
            }
            for name, values in found.items():
                parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def roughly(pose: CameraPose, rng: np.random.Generator) -> CameraPose:
    """Return a pose as well known as on a vehicle."""
    return replace(
        pose,
        height=pose.height + rng.normal(0, HEIGHT_ERROR),
        pitch=pose.pitch + rng.normal(0, PITCH_ERROR),
        yaw=pose.yaw + rng.normal(0, YAW_ERROR),
    )


def fit(features: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Fit a logistic regression by Newton's method.

    Args:
        features: (K, F) float64, a column of ones among them.
        right: (K,) bool.

    Returns:
        (F,) weights. Those of the third column on are 0 where they would be positive: nobody is surer of what is
        farther away or deeper behind an object.
    """
    used = np.ones(features.shape[1], bool)
    while True:
        weights = np.zeros(features.shape[1])
        for _ in range(30):
            likely = 1 / (1 + np.exp(-features @ weights))
            curvature = (features * (likely * (1 - likely))[:, None]).T @ features + 1e-6 * np.eye(len(weights))
            slope = features.T @ (right - likely)
            weights[used] += np.linalg.solve(curvature[np.ix_(used, used)], slope[used])
        positive = (weights > 0) & (np.arange(len(weights)) >= 2)
        if not positive.any():
            return weights
        used &= ~positive


def fitted_weights(seen: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights for cells that are seen and for those that are inferred."""
    ones = np.ones(len(seen["right"]))
    features = np.stack([ones, LOGITS[seen["pixel_confidence"]], seen["log_spread"], seen["depth"]], axis=1)
    hidden = seen["hidden"]
    return {
        "SEEN_WEIGHTS": fit(features[~hidden][:, :3].astype(np.float64), seen["right"][~hidden]),
        "INFERRED_WEIGHTS": fit(features[hidden].astype(np.float64), seen["right"][hidden]),
    }


def reliability(seen: dict[str, np.ndarray]) -> list[tables.Row]:
    """Return the rows of the table: cells by what is said about them, and how often that is right."""
    inferred = np.flatnonzero(seen["hidden"])
    said = cell_confidence(seen["pixel_confidence"], seen["log_spread"], inferred, seen["depth"][inferred]) / 255
    rows = []
    for name, of_these in (("seen", ~seen["hidden"]), ("inferred", seen["hidden"])):
        for low, high in (*itertools.pairwise(BINS), (0.0, BINS[-1])):
            here = of_these & (said >= low) & (said < high)
            if here.any():
                rows.append(
                    {
                        "cells": name,
                        "confidence": "all" if high - low > 0.9 else f"{low:g}-{min(high, 1):g}",
                        "count": here.sum() / of_these.sum(),
                        "network": seen["pixel_confidence"][here].mean() / 255,
                        "said": said[here].mean(),
                        "right": seen["right"][here].mean(),
                    }
                )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, or weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--streets", type=int, default=40)
    parser.add_argument("--frames", type=int, default=4, help="of each street, two seconds apart")
    parser.add_argument("--fit", action="store_true", help="print weights for sfi_ros/geometry/confidence.py")
    tables.add_options(parser)
    options = parser.parse_args(arguments)
    engine = InferenceEngine.load(options.weights, device=options.device)
    seed = SPLIT_SEEDS["val"] if options.fit else UNSEEN_SEED
    seen = observe(engine, options.streets, options.frames, seed)
    if options.fit:
        for name, weights in fitted_weights(seen).items():
            print(f"{name}: Final = ({', '.join(f'{weight:.3g}' for weight in weights)})")
        print(f"now: {SEEN_WEIGHTS}, {INFERRED_WEIGHTS}")
        return
    table = tables.Table("layout confidence", f"Confidence of the ground layout, {options.weights.name}", COLUMNS)
    table.rows += reliability(seen)
    tables.report(options, table)


if __name__ == "__main__":
    main()
