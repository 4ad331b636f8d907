"""What ROS costs: loss and latency of large images with and without the DDS profile, and what the node adds.

    .venv/bin/python benchmarks/ros_latency.py              # 1920x1080 rgb8, 30 Hz, 10 s each
    .venv/bin/python benchmarks/ros_latency.py --seconds 5 --device cpu --weights my.safetensors
    .venv/bin/python benchmarks/ros_latency.py --streams transport      # camera to listener only

A camera, the node and a listener run as processes of their own. "Transport" is camera to listener without the node,
best effort, as the node subscribes; "node" is camera to node to a listener of ~/foreground_mask. The picture is a frame
of the synthetic street. The released network (`benchmarks/released.py`) gets it, too, without ROS.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import released, stand_ins, tables
from sfi_ros.inference import InferenceEngine
from sfi_ros.inference.device import choose_device
from sfi_ros.ros.dds import VARIABLES, profile_environment

IMAGE, MASK = "/bench/image", "/inpaint/foreground_mask"
START = 300.0  # seconds for everybody to start
RELEASED_FRAMES = 3  # of seconds each
STAGES = ("transport", "wait", "decode", "inference", "publish", "total")
ADDED = ("wait", "decode", "publish")

STREAM_COLUMNS = (
    tables.Column("stream", "stream", identity=True),
    tables.Column("rate", "Hz", "g", identity=True),
    tables.Column("profile", "DDS profile", identity=True),
    tables.Column("sent", "sent"),
    tables.Column("received", "received"),
    tables.Column("lost", "lost", ".1%"),
    tables.Column("p50_ms", "latency ms p50", ".1f"),
    tables.Column("p95_ms", "p95", ".1f"),
)
NODE_COLUMNS = (
    tables.Column("rate", "Hz", "g", identity=True),
    *(tables.Column(f"{stage}_ms", f"{stage} ms", ".2f") for stage in STAGES),
    tables.Column("added_ms", "node adds ms", ".2f"),
    tables.Column("received", "received"),
    tables.Column("dropped", "dropped"),
)
ALONE_COLUMNS = (
    tables.Column("what", "without ROS", identity=True),
    tables.Column("p50_ms", "ms p50", ".1f"),
    tables.Column("ratio", "ratio", ".1f"),
)


@contextlib.contextmanager
def running(*command: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """Return a Python process that is ended in the end."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, *command], env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ros_environment(*, profile: bool) -> dict[str, str]:
    """Return the variables of a benchmark's processes: a domain of their own, with or without the DDS profile."""
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    environment["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    return {**environment, **(profile_environment() if profile else {})}


def measure(arguments: argparse.Namespace, picture: Path, *, profile: bool, with_node: bool) -> dict:
    """One stream from its first frame to its last."""
    environment = ros_environment(profile=profile)
    ends = str(Path(__file__).with_name("ros_ends.py"))
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:

        def start(name: str, *command: str) -> subprocess.Popen:
            log = Path(folder) / name
            return stack.enter_context(running(*command, environment=environment, log=log))

        listener = start("listener", ends, *(("results", MASK) if with_node else ("images", IMAGE)), str(START))
        if with_node:
            settings = [f"weights:={json.dumps(arguments.weights)}", f"device:={arguments.device}"]
            words = [word for setting in settings for word in ("-p", setting)]
            start("node", "-m", "sfi_ros.ros.inpaint_node", "--ros-args", *words, "-r", f"image:={IMAGE}")
        player = start(
            "camera", ends, "camera", IMAGE, str(START), str(picture), str(arguments.rate), str(arguments.seconds)
        )
        sent = json.loads(player.communicate(timeout=2 * START + 10 * arguments.seconds)[0])["sent"]
        received = json.loads(listener.communicate(timeout=2 * START)[0])
    return {"sent": sent, **received}


def engine_alone(arguments: argparse.Namespace, pixels: np.ndarray) -> float:
    """Median milliseconds of the engine on the same picture, without ROS, at the camera's rate."""
    engine = InferenceEngine.load(arguments.weights or None, device=arguments.device)
    times = []
    for _ in range(5 + round(arguments.seconds * 5)):
        began = time.perf_counter()
        engine(pixels)
        times.append((time.perf_counter() - began) * 1e3)
        time.sleep(max(0.0, 1 / arguments.rate - times[-1] * 1e-3))
    return float(np.median(times[5:]))


def released_alone(folder: Path, device: str, pixels: np.ndarray) -> float:
    """Median milliseconds of the released network on the same picture."""
    weights = stand_ins.weights_for(released.NAME, folder, boundary="raw")
    engine = released.ReleasedEngine(weights, device=device)
    engine([pixels])
    return 1e3 * float(np.median([engine([pixels])[0].timing.total for _ in range(RELEASED_FRAMES)]))


def report(arguments: argparse.Namespace) -> None:
    """Measure everything and print it."""
    size = f"{arguments.width}x{arguments.height} rgb8, {arguments.seconds:g} s each"
    streams = tables.Table("ros streams", f"ROS 2: {size}", STREAM_COLUMNS)
    node = tables.Table("ros node", "The node with the profile: medians of its own diagnostics", NODE_COLUMNS)
    alone = tables.Table("ros alone", "The same picture without ROS", ALONE_COLUMNS)
    device = str(choose_device(arguments.device))
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.npy"
        pixels = stand_ins.street_frames(arguments.width, arguments.height, 1)[0]
        np.save(picture, pixels)
        for stream in arguments.streams:
            for profile in (False, True):
                result = measure(arguments, picture, profile=profile, with_node=stream == "node")
                streams.rows.append(_stream_row(arguments, stream, profile, result))
                if stream == "node" and profile and result["diagnostics"]:
                    node.rows.append(_node_row(arguments, result["diagnostics"]))
        if "node" in arguments.streams:
            slow, fast = released_alone(Path(folder), device, pixels), engine_alone(arguments, pixels)
            alone.rows.append({"what": "released network, literal MPI, float32", "p50_ms": slow, "ratio": 1.0})
            alone.rows.append({"what": "the node's engine", "p50_ms": fast, "ratio": slow / fast})
    tables.report(arguments, *(table for table in (streams, node, alone) if table.rows), device=device)


def _stream_row(arguments: argparse.Namespace, stream: str, profile: bool, result: dict) -> tables.Row:
    milliseconds = result["latencies"]
    received, sent = len(milliseconds), result["sent"]
    p50, p95 = map(float, np.percentile(milliseconds, [50, 95])) if milliseconds else (None, None)
    return {
        "stream": "camera to node to mask" if stream == "node" else "camera to listener",
        "rate": arguments.rate,
        "profile": "yes" if profile else "no",
        "sent": sent,
        "received": received,
        "lost": 1 - received / sent,
        "p50_ms": p50,
        "p95_ms": p95,
    }


def _node_row(arguments: argparse.Namespace, diagnostics: dict[str, str]) -> tables.Row:
    stages = {stage: float(diagnostics[f"{stage} p50 (ms)"]) for stage in STAGES}
    return {
        "rate": arguments.rate,
        **{f"{stage}_ms": value for stage, value in stages.items()},
        "added_ms": sum(stages[stage] for stage in ADDED),
        "received": int(diagnostics["frames received"]),
        "dropped": int(diagnostics["frames dropped (newest wins)"]),
    }


def _streams(text: str) -> list[str]:
    chosen = tables.words(text)
    if not chosen or set(chosen) - {"transport", "node"}:
        raise argparse.ArgumentTypeError(f"streams are transport and node, not {text}")
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--rate", type=float, default=30.0, help="Hz")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each stream")
    parser.add_argument("--streams", type=_streams, default="transport,node", help="default: %(default)s")
    parser.add_argument("--weights", default="", help="checkpoint; default: the one that ships")
    parser.add_argument("--device", default="auto")
    tables.add_options(parser)
    report(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
