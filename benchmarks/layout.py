"""The ground layout of a frame: by table, as the package does it, against ray by ray in NumPy, in one run.

    .venv/bin/python benchmarks/layout.py
    .venv/bin/python benchmarks/layout.py --sizes 1920x1080 --repeats 101

"processor ms" is the time that the thread had a processor: on a busy machine it tells what a calm one would need.

Both lay the same frames of the synthetic street out, and must agree in every cell before anything is timed. Ray by ray
means: no table; for each ray the points on the ground are projected, the masks are read there, and the ray is followed
to where the ground ends.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import tables
from sfi_ros.classes import IGNORE
from sfi_ros.frames.sources import UNSEEN_SEED
from sfi_ros.geometry.calibration import Calibration
from sfi_ros.geometry.confidence import cell_confidence
from sfi_ros.geometry.ground import GroundCamera, GroundGrid
from sfi_ros.geometry.ground_table import KERB_HEIGHT, GroundTable
from sfi_ros.geometry.layout import BLOCKED, SEEN, GroundLayout, lay_out
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.synthetic import SyntheticStreet

SIZES = [(1920, 1080), (1024, 512)]
ROAD, OTHER = 0, 2

COLUMNS = (
    tables.Column("size", "masks", identity=True),
    tables.Column("grid", "grid", identity=True),
    tables.Column("cells", "cells in view"),
    tables.Column("rays", "rays"),
    tables.Column("table_ms", "by table ms", ".2f"),
    tables.Column("p95_ms", "p95", ".2f"),
    tables.Column("processor_ms", "processor ms", ".2f"),
    tables.Column("rays_ms", "ray by ray ms", ".1f"),
    tables.Column("ratio", "ratio", ".0f"),
    tables.Column("build_ms", "making the table ms", ".0f"),
)


def ray_by_ray(
    table: GroundTable, foreground: np.ndarray, background: np.ndarray, confidence: np.ndarray
) -> GroundLayout:
    """Lay a frame out without a table's pixels: only the directions of its rays and their steps are taken of it."""
    camera, grid, pose = table.camera, table.grid, table.camera.pose
    classes = np.full(grid.shape, IGNORE, np.uint8)
    certainty, evidence, objects, depths = (np.zeros(grid.shape, np.uint8) for _ in range(4))
    x, y = grid.centres()
    pixels = camera.pixel_indices(x.ravel(), y.ravel())
    raised_pixels = camera.pixel_indices(x.ravel(), y.ravel(), KERB_HEIGHT)
    raised_pixels = np.where(raised_pixels < 0, pixels, raised_pixels)
    in_view = np.flatnonzero(pixels >= 0)
    dx, dy = x.ravel()[in_view] - pose.x, y.ravel()[in_view] - pose.y
    ranges, turns = np.hypot(dx, dy), np.arctan2(dy, dx) - pose.yaw
    bearings = np.arctan2(np.sin(turns), np.cos(turns))
    first, between = bearings.min(), (bearings.max() - bearings.min()) / max(len(table.bearings) - 1, 1)
    rays = np.rint((bearings - first) / between).astype(int)
    order = np.argsort(rays, kind="stable")
    bounds = np.searchsorted(rays[order], np.arange(len(table.bearings) + 1))
    for number, bearing in enumerate(table.bearings):
        along_x, along_y = pose.x + np.cos(bearing) * table.steps, pose.y + np.sin(bearing) * table.steps
        samples = camera.pixel_indices(along_x, along_y)
        sample_cells = grid.cells(along_x, along_y)
        seen = samples >= 0
        other = seen & (background.flat[samples] == OTHER)
        ended = np.flatnonzero(other & np.append(other[1:], True))
        end = ended[0] if len(ended) else len(samples)
        covered = seen & (foreground.flat[samples] != 0)
        begins = covered & ~np.insert(covered[:-1], 0, False)
        foot_ranges = table.steps[np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))]
        feet = np.flatnonzero(begins)
        feet = feet[feet <= end]
        feet = np.union1d(feet, feet[feet + 1 < len(samples)] + 1)
        touched = sample_cells[feet][covered[feet]]
        objects.flat[touched[touched >= 0]] = 1
        mine = order[bounds[number] : bounds[number + 1]]
        cells, mine_pixels = in_view[mine], pixels[in_view[mine]]
        steps = np.abs(table.steps.astype(np.float64)[None] - ranges[mine][:, None]).argmin(axis=1)
        values, hidden = background.flat[mine_pixels], foreground.flat[mine_pixels] != 0
        values = np.where((values == ROAD) | (values == IGNORE), values, background.flat[raised_pixels[cells]])
        blocked = (steps > end + 1) | ((steps == end + 1) & (values != OTHER))
        depth = np.maximum(ranges[mine] - foot_ranges[steps], 0).astype(np.float32)
        log_spread = np.log(np.hypot(ranges[mine], pose.height) ** 3 / pose.height * 1e-6).astype(np.float32)
        values[blocked] = IGNORE
        classes.flat[cells] = values
        sure = cell_confidence(confidence.flat[mine_pixels], log_spread, np.flatnonzero(hidden), depth[hidden])
        certainty.flat[cells] = np.where(values == IGNORE, 0, sure)
        evidence.flat[cells] = np.where(blocked, BLOCKED, SEEN + hidden)
        depths.flat[cells] = np.where(hidden & ~blocked, np.minimum(10 * depth, 255), 0)
    return GroundLayout(grid, classes, certainty, evidence, objects, depths)


def differences(one: GroundLayout, other: GroundLayout) -> int:
    """Return in how many cells two layouts differ, depths aside; confidences may differ by one step of rounding."""
    different = (one.classes != other.classes) | (one.evidence != other.evidence) | (one.objects != other.objects)
    different |= np.abs(one.confidence.astype(int) - other.confidence) > 1
    return int(different.sum())


def measure(size: tuple[int, int], grid: GroundGrid, repeats: int) -> tables.Row:
    """One row of the table."""
    street = SyntheticStreet(seed=UNSEEN_SEED, width=size[0], height=size[1])
    frame = street.frame(10)
    camera = GroundCamera.of(Calibration.pinhole(*size, street.camera_matrix), CameraPose(1.5, pitch=0.02))
    confidence = np.full(frame.foreground.shape, 230, np.uint8)
    began = time.perf_counter()
    table = GroundTable(camera, grid)
    _ = table.log_spread
    build = time.perf_counter() - began
    masks = frame.foreground, frame.background, confidence
    if wrong := differences(lay_out(table, *masks), ray_by_ray(table, *masks)):
        raise SystemExit(f"the layouts differ in {wrong} cells at {size}: nothing to time")
    fast, busy, slow = [], [], []
    for number in range(repeats):
        busy_since = time.thread_time()
        fast.append(seconds(lambda: lay_out(table, *masks)))
        busy.append(time.thread_time() - busy_since)
        if number % 20 == 0:
            slow.append(seconds(lambda: ray_by_ray(table, *masks)))
    by_table, by_rays = statistics.median(fast) * 1e3, statistics.median(slow) * 1e3
    return {
        "size": f"{size[0]}x{size[1]}",
        "grid": f"{grid.x_max - grid.x_min:g} m x {grid.y_max - grid.y_min:g} m at {grid.resolution:g} m",
        "cells": len(table.cells),
        "rays": len(table.bearings),
        "table_ms": by_table,
        "p95_ms": float(np.percentile(fast, 95)) * 1e3,
        "processor_ms": statistics.median(busy) * 1e3,
        "rays_ms": by_rays,
        "ratio": by_rays / by_table,
        "build_ms": build * 1e3,
    }


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=tables.sizes, default=SIZES, metavar="WxH,...", help="of the masks")
    parser.add_argument("--resolution", type=float, default=0.1, help="of the grid, metres (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=61)
    tables.add_options(parser)
    options = parser.parse_args(arguments)
    table = tables.Table("layout", "Ground layout of a frame on a CPU", COLUMNS)
    for size in options.sizes:
        tables.add(options, table, measure(size, GroundGrid(resolution=options.resolution), options.repeats))
    tables.report(options, table)


if __name__ == "__main__":
    main()
