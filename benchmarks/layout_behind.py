r"""Use of the ground layout: of the road behind objects, how much is called road, on real and synthetic streets.

    .venv/bin/python benchmarks/layout_behind.py
    .venv/bin/python benchmarks/layout_behind.py --kitti ../shared/data/kitti_dev \
        --cityscapes ../shared/data/cityscapes_256

Cells of 0.1 m within 15 m to both sides, in view, whose true background is known; "hidden" are those behind a true
object. The true background is laid out with the same camera, and by it a cell is road or not; ground behind something
fixed is none, and counts where it is called road. "hidden ground" leaves out what is behind something fixed.

Beside our network stand two others, made of its own answer outside of its mask: `black` knows nothing behind objects,
`nearest` fills them with the nearest pixel that is none. A depth camera has no cell there at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import tables
from sfi_ros.classes import BACKGROUND_CLASSES, IGNORE
from sfi_ros.frames.decoding import decode_photo
from sfi_ros.frames.sources import UNSEEN_SEED
from sfi_ros.geometry.calibration import Calibration
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.layout import LayoutMaker, lay_out
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.inference import DEFAULT_WEIGHTS, InferenceEngine
from sfi_ros.scores import compare_layouts, iou
from sfi_ros.synthetic import SyntheticStreet
from training.data.datasets import Cityscapes, Kitti
from training.data.sample import Sample

REGIONS = ("hidden", "hidden ground", "seen")
BANDS = [(4, 10), (10, 20), (20, 40), (4, 20)]
METHODS = ("this network", "nearest", "black")

COLUMNS = (
    tables.Column("set", "set", identity=True),
    tables.Column("region", "cells", identity=True),
    tables.Column("metres", "metres", identity=True),
    tables.Column("method", "behind objects", identity=True),
    tables.Column("iou", "road IoU", ".3f"),
    tables.Column("recall", "recall", ".3f"),
    tables.Column("precision", "precision", ".3f"),
    tables.Column("sidewalk_iou", "sidewalk IoU", ".3f"),
    tables.Column("share", "of the cells in view", ".1%"),
)


@dataclass(frozen=True)
class Case:
    """One image with its camera and the truth; arrays as in `SyntheticFrame`."""

    image: np.ndarray
    foreground: np.ndarray
    background: np.ndarray
    calibration: Calibration
    pose: CameraPose


def synthetic_cases(streets: int, frames: int, seed: int = UNSEEN_SEED) -> Iterator[Case]:
    """Frames of streets on which nothing was trained, flat ones and others, 1024x512, two seconds apart."""
    for number in range(streets):
        street = SyntheticStreet(seed=seed + number, width=1024, height=512)
        for index in range(0, 30 * frames, 30):
            frame = street.frame(index)
            yield Case(frame.image, frame.foreground, frame.background, street.calibration, street.pose(index))


def kitti_cases(root: Path, pitch: float) -> Iterator[Case]:
    """Photos at full size; the camera as `calibration.yaml` says, its pitch changed by `pitch` radians."""
    facts = yaml.safe_load((root / "calibration.yaml").read_text(encoding="utf-8"))
    pose = CameraPose(facts["height_over_ground"], facts["pitch"] + pitch)
    dataset = Kitti(root, height=376)
    for number, photo in enumerate(dataset.photos):
        height, width, _ = decode_photo(photo.read_bytes()).shape
        calibration = pinhole(width, height, *facts["intrinsics"][width])
        yield case(dataset[number], calibration, pose)


def cityscapes_cases(root: Path, pitch: float) -> Iterator[Case]:
    """Photos of val with a manual annotation, at 1024x512; see `kitti_cases`."""
    facts = yaml.safe_load((root / "calibration.yaml").read_text(encoding="utf-8"))
    inside, outside = facts["intrinsics"], facts["extrinsics"]
    calibration = pinhole(*(inside[name] for name in ("width", "height", "fx", "fy", "cx", "cy")))
    angles = (outside["pitch"] + pitch, outside["roll"], outside["yaw"])
    pose = CameraPose(outside["z"], *angles, outside["x"], outside["y"])
    dataset = Cityscapes(root, "val", height=512)
    for number in range(len(dataset)):
        yield case(dataset[number], calibration, pose)


def pinhole(width: int, height: int, fx: float, fy: float, cx: float, cy: float) -> Calibration:
    """Return a calibration from published numbers."""
    return Calibration.pinhole(width, height, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))


def case(sample: Sample, calibration: Calibration, pose: CameraPose) -> Case:
    """Return a sample of a dataset with its camera, scaled to the sample's size."""
    if sample.true_background is None:
        raise SystemExit(f"{sample.name} has no true background: gt_manual is missing")
    image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
    size = image.shape[1], image.shape[0]
    return Case(image, sample.foreground.numpy(), sample.true_background.numpy(), calibration.resized(size), pose)


def backgrounds(foreground: np.ndarray, background: np.ndarray) -> dict[str, np.ndarray]:
    """Return the background as each of `METHODS` has it behind the predicted objects."""
    filled = dict.fromkeys(METHODS, background)
    covered = foreground != 0
    filled["black"] = np.where(covered, np.uint8(IGNORE), background)
    if covered.any() and not covered.all():
        places = cv2.distanceTransformWithLabels(
            foreground, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
        )[1]
        classes = np.zeros(places.max() + 1, np.uint8)
        classes[places[~covered]] = background[~covered]
        filled["nearest"] = np.where(covered, classes[places], background)
    return filled


def measure(name: str, cases: Sequence[Case] | Iterator[Case], engine: InferenceEngine, total: int) -> list[tables.Row]:
    """Return the rows of one set."""
    maker = LayoutMaker(GroundGrid())
    regions = [(region, band) for region in REGIONS for band in BANDS]
    counts = {(method, *key): np.zeros((2, 3), np.int64) for method in METHODS for key in regions}
    cells = {key: np.zeros(2, np.int64) for key in regions}
    for one in track(cases, description=name, total=total, transient=True):
        scene = engine(one.image)
        height, width = scene.foreground.shape
        table = maker.table(one.calibration, one.pose, (width, height))
        truth = lay_out(table, one.foreground, one.background)
        for method, background in backgrounds(scene.foreground, scene.background).items():
            layout = maker(one.calibration, one.pose, scene.foreground, background, scene.confidence)
            found = compare_layouts(table, layout, truth, one.foreground, one.background)
            places = dict(
                zip(REGIONS, (found.hidden, found.hidden & (found.truth != IGNORE), ~found.hidden), strict=True)
            )
            for region, band in regions:
                near = (found.ranges >= band[0]) & (found.ranges < band[1])
                where = near & places[region]
                counts[method, region, band] += [found.counts(number, where) for number in (0, 1)]
                if method == METHODS[0]:
                    cells[region, band] += [int(where.sum()), int(near.sum())]
    return [
        row(name, region, band, method, counts[method, region, band], cells[region, band])
        for region, band in regions
        for method in (METHODS[:1] if region == "seen" else METHODS)
    ]


def row(
    name: str, region: str, band: tuple[int, int], method: str, counts: np.ndarray, cells: np.ndarray
) -> dict[str, Any]:
    """Return a row of the table."""
    both, predicted, true = map(int, counts[BACKGROUND_CLASSES.index("road")])
    return {
        "set": name,
        "region": region,
        "metres": "{}-{}".format(*band),
        "method": method,
        "iou": iou(both, predicted, true),
        "recall": both / max(true, 1),
        "precision": both / max(predicted, 1),
        "sidewalk_iou": iou(*map(int, counts[BACKGROUND_CLASSES.index("sidewalk")])),
        "share": float(cells[0] / max(cells[1], 1)),
        "cells": int(cells[0]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, one set after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--streets", type=int, default=20, help="synthetic ones; 0 leaves them out")
    parser.add_argument("--frames", type=int, default=5, help="of each synthetic street")
    parser.add_argument(
        "--kitti", type=Path, metavar="ROOT", help="KITTI semantics with gt_manual and calibration.yaml"
    )
    parser.add_argument(
        "--cityscapes", type=Path, metavar="ROOT", help="Cityscapes with gt_manual and calibration.yaml"
    )
    parser.add_argument("--pitch", type=float, default=0.0, metavar="DEGREES", help="what the pitch is wrong by")
    tables.add_options(parser)
    options = parser.parse_args(arguments)
    engine = InferenceEngine.load(options.weights, device=options.device)
    pitch = float(np.radians(options.pitch))
    table = tables.Table("layout behind", f"Road behind objects, {options.weights.name}", COLUMNS)
    if options.streets:
        cases = synthetic_cases(options.streets, options.frames)
        table.rows += measure("synthetic", cases, engine, options.streets * options.frames)
    if options.kitti:
        total = len(Kitti(options.kitti).photos)
        table.rows += measure("KITTI dev", kitti_cases(options.kitti, pitch), engine, total)
    if options.cityscapes:
        total = len(Cityscapes(options.cityscapes, "val").photos)
        table.rows += measure("Cityscapes val", cityscapes_cases(options.cityscapes, pitch), engine, total)
    tables.report(options, table)


if __name__ == "__main__":
    main()
