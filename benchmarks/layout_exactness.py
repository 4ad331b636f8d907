"""Exactness of the ground layout: that of the true background against the street from above, without any network.

    .venv/bin/python benchmarks/layout_exactness.py
    .venv/bin/python benchmarks/layout_exactness.py --sizes 1024x512 --pitch 0,1,-1

Flat streets (with their kerbs) that were drawn for this; what is compared is the ground that the camera sees, behind
objects too: along each ray the cells up to the first fixed thing or ground that is neither road nor sidewalk, and of
the latter the first half metre. `--pitch` says by how many degrees the layout's pitch is wrong.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import tables
from sfi_ros.frames.sources import UNSEEN_SEED
from sfi_ros.geometry.ground import GroundCamera, GroundGrid
from sfi_ros.geometry.ground_table import GroundTable
from sfi_ros.geometry.layout import lay_out
from sfi_ros.scores import iou
from sfi_ros.synthetic import GroundTruth, SyntheticStreet

SIZES = [(512, 256), (1024, 512), (1920, 1080)]
BANDS = [(0, 10), (10, 20), (20, 40), (0, 20), (0, 40)]
ROAD, SIDEWALK, OTHER = 0, 1, 2
MARGIN = 0.5  # metres of other ground that are compared

COLUMNS = (
    tables.Column("size", "image", identity=True),
    tables.Column("pitch", "pitch wrong by", identity=True),
    tables.Column("metres", "metres", identity=True),
    tables.Column("road_iou", "road IoU", ".3f"),
    tables.Column("sidewalk_iou", "sidewalk IoU", ".3f"),
    tables.Column("cells", "cells"),
)


def flat_streets(count: int, size: tuple[int, int]) -> Iterator[SyntheticStreet]:
    """Yield the first flat streets of those on which nothing is trained."""
    found = 0
    for seed in itertools.count(UNSEEN_SEED):
        street = SyntheticStreet(seed=seed, width=size[0], height=size[1])
        if street.is_flat():
            yield street
            found += 1
        if found == count:
            return


def shown(truth: GroundTruth, background: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whether points are in the picture, and which background class it shows there."""
    height, width = background.shape
    columns, rows = np.moveaxis(np.floor(np.nan_to_num(truth.pixels, nan=-9) + 0.5).astype(int), -1, 0)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    return inside, background[rows.clip(0, height - 1), columns.clip(0, width - 1)]


def compared(
    table: GroundTable, street: SyntheticStreet, index: int, background: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which of a table's cells are compared, (V,) bool, and the true classes of all of them."""
    x, y = table.grid.centres()
    cells = street.ground_at(index, x.ravel()[table.cells], y.ravel()[table.cells])
    along_x, along_y = np.cos(table.bearings)[:, None] * table.steps, np.sin(table.bearings)[:, None] * table.steps
    samples = street.ground_at(index, np.maximum(along_x, 0), along_y)
    inside, seen = shown(samples, background)
    ended = inside & ((samples.classes == OTHER) | (seen == OTHER))
    ended[:, :-1] &= ended[:, 1:]
    ends = np.where(ended.any(axis=1), table.steps[ended.argmax(axis=1)], np.inf)[table.cell_rays]
    inside, seen = shown(cells, background)
    other = cells.classes == OTHER
    before = (table.ranges < ends) & (other | (seen != OTHER))
    return inside & (before | (other & (table.ranges <= ends + MARGIN))), cells.classes


def measure(size: tuple[int, int], degrees: float, streets: int, frames: int) -> list[tables.Row]:
    """Return the rows of one image size and error of the pitch."""
    counts = {band: np.zeros((2, 3), np.int64) for band in BANDS}
    for street in track(flat_streets(streets, size), total=streets, transient=True):
        for index in range(0, 30 * frames, 30):
            frame, pose = street.frame(index), street.pose(index)
            true = GroundTable(GroundCamera.of(street.calibration, pose), GroundGrid())
            where, truth = compared(true, street, index, frame.background)
            wrong = GroundCamera.of(street.calibration, replace(pose, pitch=pose.pitch + np.radians(degrees)))
            layout = lay_out(GroundTable(wrong, GroundGrid()), frame.foreground, frame.background)
            predicted = layout.classes.reshape(-1)[true.cells]
            for (low, high), total in counts.items():
                near = where & (true.ranges >= low) & (true.ranges < high)
                for number in (ROAD, SIDEWALK):
                    said, is_so = near & (predicted == number), near & (truth == number)
                    total[number] += [(said & is_so).sum(), said.sum(), is_so.sum()]
    return [
        {
            "size": "{}x{}".format(*size),
            "pitch": f"{degrees:+g}°",
            "metres": "{}-{}".format(*band),
            "road_iou": iou(*map(int, total[ROAD])),
            "sidewalk_iou": iou(*map(int, total[SIDEWALK])),
            "cells": int(total[:, 2].sum()),
        }
        for band, total in counts.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=tables.sizes, default=SIZES, metavar="WxH,...", help="of the images")
    parser.add_argument("--pitch", type=degrees, default=[0.0], metavar="DEGREES,...", help="errors of the pitch")
    parser.add_argument("--streets", type=int, default=10)
    parser.add_argument("--frames", type=int, default=3, help="of each street, two seconds apart")
    tables.add_options(parser)
    options = parser.parse_args(arguments)
    table = tables.Table("layout exactness", "Layout of the true background, flat streets", COLUMNS)
    for size, pitch in itertools.product(options.sizes, options.pitch):
        table.rows += measure(size, pitch, options.streets, options.frames)
    tables.report(options, table)


def degrees(text: str) -> list[float]:
    """Return the numbers of an option such as 0,1,-1, for argparse's `type`."""
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
