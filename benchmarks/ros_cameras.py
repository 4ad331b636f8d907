"""Several cameras in one process beside a process for each: frames per second, latency and memory.

    .venv/bin/python benchmarks/ros_cameras.py              # two cameras, 1920x1080 rgb8, 30 Hz, 10 s, 3 rounds
    .venv/bin/python benchmarks/ros_cameras.py --cameras 3 --rate 5 --seconds 5 --device cpu

Each camera and each listener of ~/foreground_mask is a process of its own (`ros_ends.py`). Both ways take turns, round
by round, so that a machine that grows busy is busy for both. Frames per second are those of all cameras together;
memory is that of the node's processes at the end of a stream, "shared" with each page counted once for all that have
it. On a machine that does other work, two processes get more of the processor than one: there, compare its time per
frame, at a rate that both keep up with (--rate 2).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import memory, stand_ins, tables
from benchmarks.ros_latency import START, ros_environment, running
from sfi_ros.inference.device import choose_device

WAYS = ("one process", "a process each")
COLUMNS = (
    tables.Column("way", "cameras", identity=True),
    tables.Column("rate", "Hz each", "g", identity=True),
    tables.Column("frames_s", "frames/s", ".1f"),
    tables.Column("slowest_s", "slowest camera", ".1f"),
    tables.Column("p50_ms", "latency ms p50", ".0f"),
    tables.Column("p95_ms", "p95", ".0f"),
    tables.Column("cpu_ms", "CPU ms per frame", ".0f"),
    tables.Column("resident_mib", "resident MiB", ".0f"),
    tables.Column("shared_mib", "shared MiB", ".0f"),
)


def measure(arguments: argparse.Namespace, picture: Path, way: str) -> dict:
    """Let all cameras play once; returns the latencies of each (ms), and the bytes of the node's processes."""
    environment = ros_environment(profile=True)
    ends = str(Path(__file__).with_name("ros_ends.py"))
    names = [f"camera{number}" for number in range(arguments.cameras)]
    settings = [f"weights:={json.dumps(arguments.weights)}", f"device:={arguments.device}"]
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:

        def start(name: str, *command: str) -> subprocess.Popen:
            return stack.enter_context(running(*command, environment=environment, log=Path(folder) / name))

        def start_node(name: str, *words: str) -> subprocess.Popen:
            common = [word for setting in settings for word in ("-p", setting)]
            return start(name, "-m", "sfi_ros.ros.inpaint_node", "--ros-args", *common, *words)

        listeners = [
            start(f"of {name}", ends, "results", f"/{name}/inpaint/foreground_mask", str(START)) for name in names
        ]
        if way == WAYS[0]:
            nodes = [start_node("node", "-p", f"cameras:=[{', '.join(names)}]")]
        else:
            nodes = [start_node(name, "-r", f"__ns:=/{name}", "-r", "image:=image_raw") for name in names]
        logs = [Path(folder) / "node"] if way == WAYS[0] else [Path(folder) / name for name in names]
        _wait_until_active(logs, arguments.cameras)
        spent = sum(_processor_seconds(node.pid) for node in nodes)
        stream = (str(START), str(picture), str(arguments.rate), str(arguments.seconds))
        players = [start(f"as {name}", ends, "camera", f"/{name}/image_raw", *stream) for name in names]
        for player in players:
            player.communicate(timeout=2 * START + 10 * arguments.seconds)
        spent = sum(_processor_seconds(node.pid) for node in nodes) - spent
        used = [(memory.resident(node.pid), memory.proportional(node.pid)) for node in nodes]
        received = [json.loads(listener.communicate(timeout=2 * START)[0])["latencies"] for listener in listeners]
    return {"latencies": received, "memory": np.sum(used, axis=0).tolist(), "processor": spent}


def _wait_until_active(logs: Sequence[Path], cameras: int) -> None:
    deadline = time.monotonic() + START
    while sum(log.read_text().count("active: camera") for log in logs) < cameras:
        if time.monotonic() > deadline:
            raise SystemExit("the node does not start:\n" + "\n".join(log.read_text() for log in logs))
        time.sleep(0.05)


def _processor_seconds(process: int) -> float:
    """Return the time that all threads of a process have used of the processor."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(arguments: argparse.Namespace) -> None:
    """Measure both ways in turns and print medians over the rounds."""
    size = f"{arguments.width}x{arguments.height} rgb8, {arguments.rate:g} Hz, {arguments.seconds:g} s"
    table = tables.Table("ros cameras", f"{arguments.cameras} cameras: {size}, {arguments.rounds} rounds", COLUMNS)
    results: dict[str, list[dict]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.npy"
        np.save(picture, stand_ins.street_frames(arguments.width, arguments.height, 1)[0])
        for _ in range(arguments.rounds):
            for way in WAYS:
                results[way].append(measure(arguments, picture, way))
                time.sleep(1.0)
    table.rows = [row(arguments, way, rounds) for way, rounds in results.items()]
    tables.report(arguments, table, device=str(choose_device(arguments.device)))


def row(arguments: argparse.Namespace, way: str, rounds: list[dict]) -> tables.Row:
    """Return the row of one way, of what `measure` returned in each round."""
    counts = np.array([[len(latencies) for latencies in each["latencies"]] for each in rounds])
    milliseconds = [value for each in rounds for latencies in each["latencies"] for value in latencies]
    p50, p95 = map(float, np.percentile(milliseconds, [50, 95])) if milliseconds else (None, None)
    cpu = [1e3 * each["processor"] / max(frames, 1) for each, frames in zip(rounds, counts.sum(axis=1), strict=True)]
    resident, shared = np.median([each["memory"] for each in rounds], axis=0) / 2**20
    return {
        "way": f"{arguments.cameras}, {way}",
        "rate": arguments.rate,
        "frames_s": float(np.median(counts.sum(axis=1))) / arguments.seconds,
        "slowest_s": float(np.median(counts.min(axis=1))) / arguments.seconds,
        "p50_ms": p50,
        "p95_ms": p95,
        "cpu_ms": float(np.median(cpu)),
        "resident_mib": float(resident),
        "shared_mib": float(shared),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--rate", type=float, default=30.0, help="Hz, of each camera")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each stream")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", default="", help="checkpoint; default: the one that ships")
    parser.add_argument("--device", default="auto")
    tables.add_options(parser)
    report(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
