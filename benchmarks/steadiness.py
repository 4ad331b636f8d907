"""How much results flicker from frame to frame, each image by itself and with the memory of `TemporalFilter`.

    .venv/bin/python benchmarks/steadiness.py                                  # three drives of the synthetic street
    .venv/bin/python benchmarks/steadiness.py ../shared/data/clips/aachen_05 VIDEO.mp4 --limit 60 --json out/steady.json

Consecutive frames are brought together by dense optical flow (OpenCV's DIS at its medium preset, at the network's
size). A pixel counts where the flow there and the flow back meet within a pixel and both show nearly the same grey.
Flicker is the share of these pixels whose class changed. On the synthetic street, where the truth is known, the scores
stand beside it: steadiness that smears objects would lower them.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from benchmarks import tables
from sfi_ros.frames.sources import UNSEEN_SEED, Frame, open_source
from sfi_ros.inference import InferenceEngine, Scene
from sfi_ros.inference.temporal import TemporalFilter
from sfi_ros.scores import RegionScores

SYNTHETIC_DRIVES = 3
MOST_APART = 1.0  # pixels between where a flow begins and where the flow back ends
MOST_DIFFERENT = 20  # grey values

COLUMNS = (
    tables.Column("source", "source", identity=True),
    tables.Column("memory", "memory", identity=True),
    tables.Column("frames", "frames", "d"),
    tables.Column("background_flicker", "background flicker", ".2%"),
    tables.Column("mask_flicker", "mask flicker", ".2%"),
    tables.Column("foreground_mask_iou", "mask IoU", ".3f"),
    tables.Column("foreground_region_miou", "foreground region", ".3f"),
    tables.Column("all_region_miou", "all regions", ".3f"),
    tables.Column("ms", "ms p50", ".2f"),
)
NOTES = ("ms: of a whole call of the engine, the memory's part included; the flow of this script is not in it.",)


class Flicker:
    """Counts pixels whose class changed from one frame to the next."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._counted, self._changed = 0, np.zeros(2, np.int64)

    def add(self, before: tuple[np.ndarray, Scene], now: tuple[np.ndarray, Scene]) -> None:
        """Count a frame: image, (h, w) uint8 grey, and scene of it and of the one before, of one size."""
        (grey_before, scene_before), (grey, scene) = before, now
        height, width = grey.shape
        backward, forward = (
            np.asarray(self._flow.calc(*pair, np.empty(0))) for pair in ((grey, grey_before), (grey_before, grey))
        )
        places = backward + np.dstack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
        way = backward + cv2.remap(forward, places, None, cv2.INTER_LINEAR)
        difference = cv2.absdiff(cv2.remap(grey_before, places, None, cv2.INTER_LINEAR), grey)
        inside = cv2.inRange(places, (0, 0), (width - 1, height - 1)) > 0
        counts = inside & (np.hypot(way[..., 0], way[..., 1]) < MOST_APART) & (difference < MOST_DIFFERENT)
        for index, name in enumerate(("background", "foreground")):
            moved = cv2.remap(getattr(scene_before, name), places, None, cv2.INTER_NEAREST)
            self._changed[index] += int(((moved != getattr(scene, name)) & counts).sum())
        self._counted += int(counts.sum())

    def shares(self) -> tuple[float, float]:
        """Return the share of pixels whose background class changed, and of those whose mask did."""
        background, mask = self._changed / max(self._counted, 1)
        return float(background), float(mask)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help=f"as of `sfi run`; default: {SYNTHETIC_DRIVES} synthetic drives")
    parser.add_argument("--weights", type=Path, help="default: the ones that ship")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--limit", type=int, default=60, help="frames of each source (default: %(default)s)")
    tables.add_options(parser)
    options = parser.parse_args(arguments)
    engine = InferenceEngine.load(options.weights, device=options.device, output_size="network")
    table = tables.Table("steadiness", "Steadiness from frame to frame", COLUMNS, notes=NOTES)
    drives = [("synthetic", seed) for seed in range(UNSEEN_SEED, UNSEEN_SEED + SYNTHETIC_DRIVES)]
    for source, seed in [(source, UNSEEN_SEED) for source in options.sources] or drives:
        frames = list(_frames(source, seed, options.limit))
        name = f"{Path(source).name} {seed}" if source == "synthetic" else Path(source).name
        for memory in (None, TemporalFilter()):
            row = {"source": name, "memory": "no" if memory is None else "yes", "frames": len(frames)}
            tables.add(options, table, row | measure(engine, frames, memory))
    tables.report(options, table)


def measure(engine: InferenceEngine, frames: Sequence[Frame], memory: TemporalFilter | None) -> tables.Row:
    """Infer frames in order, and say how steady and how right the results are."""
    flicker, scores, times = Flicker(), RegionScores(), []
    before: tuple[np.ndarray, Scene] | None = None
    for frame in frames:
        began = time.perf_counter()
        scene = engine(frame.image, memory)
        times.append(time.perf_counter() - began)
        size = scene.foreground.shape[::-1]
        now = cv2.cvtColor(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY), scene
        if before is not None:
            flicker.add(before, now)
        before = now
        if frame.truth is not None:
            truths = frame.truth.foreground, frame.truth.background
            resized = (cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST_EXACT) for truth in truths)
            scores.add(scene.foreground, scene.background, *resized)
    background, mask = flicker.shares()
    row = {"background_flicker": background, "mask_flicker": mask, "ms": 1e3 * float(np.median(times))}
    return row | {name: value for name, value in scores.compute().items() if not math.isnan(value)}


def _frames(source: str, seed: int, limit: int) -> Iterator[Frame]:
    readable = (frame for frame in open_source(source, seed=seed) if isinstance(frame, Frame))
    return itertools.islice(readable, limit)


if __name__ == "__main__":
    main()
