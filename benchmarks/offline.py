"""Recordings offline: frames/s of `sfi run` with reading, inferring and writing, by one process or several at a time.

    .venv/bin/python benchmarks/offline.py                    # one process, then two with half of the cores each
    .venv/bin/python benchmarks/offline.py --processes 1,2,4,8 --device cuda

Each process reads the same video, encoded from frames of the synthetic street, and writes all that `sfi run` writes:
two PNG, an overlay and a video, at the size of the images. One process alone leaves a core to that, as is the default.
Frames/s are those of the summaries, without loading.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2

from benchmarks import stand_ins, tables
from sfi_ros.inference.threads import available_cores

PICTURES = 8  # different ones, in turn

COLUMNS = (
    tables.Column("processes", "processes", identity=True),
    tables.Column("threads", "threads each", identity=True),
    tables.Column("frames", "frames", ",d"),
    tables.Column("frames_per_second", "frames/s", ".1f"),
    tables.Column("over_one", "over one process", ".2f"),
    tables.Column("engine_ms", "engine ms p50", ".1f"),
)
NOTE = "frames/s: of all processes together. engine: of one frame, while all that happens."


def write_video(path: Path, size: tuple[int, int], frames: int) -> None:
    """Encode frames of the street.

    Raises:
        SystemExit: OpenCV has no encoder for that.
    """
    pictures = [cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) for picture in stand_ins.street_frames(*size, PICTURES)]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, size)
    if not video.isOpened():
        raise SystemExit(f"OpenCV has no MPEG-4 encoder for {size[0]}x{size[1]}: nothing to measure")
    for number in range(frames):
        video.write(pictures[number % PICTURES])
    video.release()


def measure(videos: Sequence[Path], output: Path, threads: int, options: Sequence[str]) -> tables.Row:
    """One process for each video, all at a time."""
    processes = []
    for number, video in enumerate(videos):
        command = [sys.executable, "-m", "sfi_ros.cli", "run", str(video), "-o", str(output / str(number))]
        command += ["--threads", str(threads), *options]
        processes.append(subprocess.Popen(command, cwd=tables.ROOT, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, said = process.communicate()
        if process.returncode:
            raise SystemExit(f"`{' '.join(map(str, process.args))}` failed: {said.strip()[-500:]}")
    summaries = [json.loads((output / str(number) / "summary.json").read_text()) for number in range(len(videos))]
    return {
        "processes": len(videos),
        "threads": threads,
        "frames": sum(summary["frames"] for summary in summaries),
        "frames_per_second": sum(summary["frames_per_second"] for summary in summaries),
        "engine_ms": sum(summary["latency_ms"]["p50"] for summary in summaries) / len(summaries),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=tables.numbers, default="1,2", help="at a time (default: %(default)s)")
    parser.add_argument("--source", type=tables.sizes, default="1920x1080", help="of the video (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=200, help="of each video (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    tables.add_options(parser)
    options = parser.parse_args(arguments)
    size = options.source[0]
    rows: list[tables.Row] = []
    with tempfile.TemporaryDirectory() as name:
        video = Path(name) / "drive.mp4"
        write_video(video, size, options.frames)
        for count in options.processes:
            threads = max(1, available_cores() - 1 if count == 1 else available_cores() // count)
            rows.append(measure([video] * count, Path(name) / f"out{count}", threads, ["--device", options.device]))
            rows[-1]["over_one"] = rows[-1]["frames_per_second"] / rows[0]["frames_per_second"]
    title = f"`sfi run` of {size[0]}x{size[1]} videos on {available_cores()} cores, device {options.device}"
    tables.report(options, tables.Table("offline", title, COLUMNS, rows, (NOTE,)))


if __name__ == "__main__":
    main()
