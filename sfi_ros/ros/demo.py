"""The product in one command, on a machine with or without a ROS installation.

    python -m sfi_ros.ros.demo synthetic -o out/demo --limit 60
    python -m sfi_ros.ros.demo drive.mp4 -o out/drive

A camera player and the node run as two processes that talk through real ROS 2 and Fast DDS; this one records what they
publish like `sfi run --layout` does, and ends when the source does. The layout is made of what the node publishes, and
only where the camera's pose is known: on the synthetic street.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from sfi_ros.files import write_json
from sfi_ros.frames.sources import SYNTHETIC, UNSEEN_SEED, Frame, Source, open_source
from sfi_ros.frames.synthetic_street import street_frame
from sfi_ros.network.shipped_weights import find_weights
from sfi_ros.offline.layouts import LAYOUT, LayoutOptions
from sfi_ros.offline.recorder import Recorder
from sfi_ros.offline.run import MADE_BY, start_anew
from sfi_ros.offline.summary import SUMMARY
from sfi_ros.ros.dds import profile_environment
from sfi_ros.synthetic import SyntheticStreet

if TYPE_CHECKING:
    from sfi_ros.ros.scene_listener import Recorded, SceneListener

CAMERA, NODE = "/camera/image_raw", "/inpaint"
SYNTHETIC_FRAMES = 60  # the street has no end
START_TIMEOUT = 180.0  # seconds until the first result; loading PyTorch on a busy board takes long
LAST_IMAGE = 1.0  # seconds that the last image may take to get here after the player ended
QUIET = 10.0  # seconds without a result, after the player ended, until the last frames count as lost
INTERRUPTED = 130
SCORES = ("all_region_miou", "foreground_region_miou", "foreground_mask_iou")

console = Console(stderr=True)


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status: 0, 1 for an error that was named, 130 when interrupted."""
    parsed = _parser().parse_args(arguments)
    try:
        if importlib.util.find_spec("rclpy") is None:
            raise DemoError(
                "ROS 2 (rclpy) is not installed here; `pip install 'sfi_ros[ros]'` brings it on x86-64 Linux. "
                f"Without it: sfi run {parsed.source} -o {parsed.output}"
            )
        return _run(parsed)
    except (DemoError, ValueError, OSError) as error:
        console.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sfi_ros.ros.demo", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("source", metavar="SOURCE", help="image folder, video, rosbag2 folder, or 'synthetic'")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the results")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="play N frames (default: all)")
    parser.add_argument("--rate", type=float, default=0.0, help="frames per second (default: the source's own)")
    parser.add_argument("--weights", type=Path, help="checkpoint, exported .onnx, or a name that `sfi weights` lists")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--precision", default="auto", help="auto, float32, float16 or bfloat16 (default: auto)")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    source = open_source(arguments.source)
    limit = arguments.limit or (SYNTHETIC_FRAMES if source.length is None else 0)
    start_anew(arguments.output, {"source": str(arguments.source)}, source=arguments.source)
    layout = LayoutOptions() if arguments.source == SYNTHETIC else None
    with Recorder(arguments.output, arguments.rate or source.rate, layout=layout) as recorder:
        return _record(arguments, source, limit, recorder)


def _record(arguments: argparse.Namespace, source: Source, limit: int, recorder: Recorder) -> int:
    os.environ.update(_environment())  # before rclpy starts, here and in the children
    import rclpy

    from sfi_ros.ros.scene_listener import SceneListener
    from sfi_ros.ros.spinning import spun_by_a_thread, start_ros

    start_ros([])
    listener = SceneListener(CAMERA, NODE)
    latencies: list[float] = []
    interrupted = False
    children: list[Child] = []
    try:
        with spun_by_a_thread(listener):
            try:
                node = Child("inpaint_node", _node_arguments(arguments), arguments.output)
                children.append(node)
                player = Child("camera_player", _player_arguments(arguments, limit), arguments.output)
                children.append(player)
                total = min(filter(None, (limit, source.length)), default=None)
                truth = SyntheticTruth() if arguments.source == SYNTHETIC else None
                for recorded in _until_the_end(listener, node, player, total):
                    frame = Frame(f"frame_{recorded.number:06d}", recorded.image)
                    recorder.add(truth.add_to(frame) if truth else frame, recorded.scene)
                    latencies.append(recorded.latency)
                _await_fresh_status(listener)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                for child in reversed(children):
                    child.stop()
    finally:
        rclpy.shutdown()
        summary = _summarize(recorder, listener, latencies, str(arguments.source), interrupted)
    _print_summary(summary, arguments.output)
    return INTERRUPTED if interrupted else 0


class Child:
    """A process of ours with a log file.

    Args:
        name: module in `sfi_ros.ros`.
        arguments: for ROS.
        folder: where its log goes.
    """

    def __init__(self, name: str, arguments: list[str], folder: Path):
        self.name, self._log = name, folder / f"{name}.log"
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", f"sfi_ros.ros.{name}", "--ros-args", *arguments]
            # In a session of its own: Ctrl-C reaches this process only, which then stops its children in order.
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def running(self) -> bool:
        """Return True while it runs, False after it ended well.

        Raises:
            DemoError: it ended with an error; quotes its last lines.
        """
        status = self._process.poll()
        if status:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise DemoError(f"{self.name} ended with status {status}:\n" + "\n".join(lines[-5:]))
        return status is None

    def stop(self) -> None:
        """Ask it to end, and make it end if it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class SyntheticTruth:
    """Finds what the synthetic street knows about an image that went through ROS, by its bytes."""

    _LOOK_AHEAD = 100  # frames: more are not lost in a row

    def __init__(self) -> None:
        self._street, self._next = SyntheticStreet(seed=UNSEEN_SEED), 0

    def add_to(self, frame: Frame) -> Frame:
        """Return a frame with the truth and the camera's calibration and pose.

        Raises:
            DemoError: none of the next frames of the street has exactly these pixels.
        """
        for number in range(self._next, self._next + self._LOOK_AHEAD):
            known = street_frame(self._street, number)
            if np.array_equal(known.image, frame.image):
                self._next = number + 1
                return replace(known, name=frame.name)
        raise DemoError(f"{frame.name} is not one of the synthetic street's: did another camera publish on {CAMERA}?")


def _until_the_end(listener: SceneListener, node: Child, player: Child, total: int | None) -> Iterator[Recorded]:
    """Results as they arrive, until the player has ended and nothing more is to come."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=total)
        began = quiet_since = time.monotonic()
        while True:
            playing = player.running()
            if not node.running():
                raise DemoError("the node ended before the player did")
            if playing:
                quiet_since = time.monotonic()
            try:
                recorded: Recorded = listener.complete.get(timeout=0.1)
            except queue.Empty:
                _check_start(listener, began)
                if time.monotonic() - quiet_since > (LAST_IMAGE if listener.finished else QUIET):
                    break
                continue
            quiet_since = time.monotonic()
            yield recorded
            progress.update(task, description="frames", completed=recorded.number + 1)
    if listener.frames_out == 0:
        raise DemoError(f"no result arrived; the node says: {_said(listener)}")


def _check_start(listener: SceneListener, began: float) -> None:
    status = listener.status
    if status is not None and "configure failed" in status.message:
        raise DemoError(f"the node says: {status.message}")
    if listener.frames_out == 0 and time.monotonic() - began > START_TIMEOUT:
        raise DemoError(f"no result within {START_TIMEOUT:.0f} s; the node says: {_said(listener)}")


def _said(listener: SceneListener) -> str:
    return listener.status.message if listener.status is not None else "nothing"


def _await_fresh_status(listener: SceneListener) -> None:
    """Wait for diagnostics that count the last frames, too."""
    old, deadline = listener.status, time.monotonic() + 5
    while listener.status is old and time.monotonic() < deadline:
        time.sleep(0.05)


def _summarize(
    recorder: Recorder, listener: SceneListener, latencies: list[float], source: str, interrupted: bool
) -> dict[str, Any]:
    values = {value.key: value.value for value in listener.status.values} if listener.status else {}
    recorded = recorder.finish()
    summary: dict[str, Any] = {
        "made_by": MADE_BY,
        "frames": recorded.frames,
        "source": source,
        "interrupted": interrupted,
        "frames_in": listener.frames_in,
        "frames_out": listener.frames_out,
        "every_result_has_the_stamp_of_an_image": listener.stamps_without_image() == 0,
        **{name: values.get(name) for name in ("weights", "network", "device", "precision")},
        "mean_foreground_share": recorded.mean_foreground_share,
        **recorded.scores,
    }
    milliseconds = np.array(latencies) * 1e3
    for percent in (50, 95):
        value = float(np.percentile(milliseconds, percent)) if latencies else None
        summary[f"latency_ms_p{percent}"] = value
    for percent in (50, 95):
        summary[f"stages_ms_p{percent}"] = {
            stage: _number(values.get(f"{stage} p{percent} (ms)"))
            for stage in ("transport", "wait", "decode", "inference", "publish")
        }
    write_json(recorder.folder / SUMMARY, summary)
    return summary


def _number(text: str | None) -> float | None:
    return None if text in (None, "-") else float(text)


def _print_summary(summary: dict[str, Any], output: Path) -> None:
    lines = [
        f"camera player and node, two processes over ROS 2: {summary['frames_in']} frames in, "
        f"{summary['frames_out']} out (the node takes the newest frame and leaves out what it has no time for)",
        f"weights: {summary['weights']} on {summary['device']} ({summary['precision']})",
    ]
    if summary["latency_ms_p50"] is not None:
        lines.append(
            f"latency from the image's stamp to all results: median {summary['latency_ms_p50']:.1f} ms, "
            f"95 % below {summary['latency_ms_p95']:.1f} ms"
        )
    scores = (*SCORES, "layout_seen_road_iou", "layout_hidden_road_iou")
    lines += [f"{name}: {summary[name]:.3f}" for name in scores if summary.get(name) is not None]
    if summary["interrupted"]:
        lines.append("interrupted; what was written until then is complete")
    lines.append(f"look at {output}/overlay.mp4 and the pictures in {output}/overlay; numbers: {output}/{SUMMARY}")
    if (output / LAYOUT).is_dir():
        lines.append(
            f"the ground in metres, seen and inferred behind objects: right in the video, and in {output}/{LAYOUT}"
        )
    lines.append("next: your own pictures with `make demo SOURCE=path`, your own camera with docs/node.md")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _environment() -> dict[str, str]:
    """Keep the demo to this machine and away from robots in the same network."""
    environment = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", **profile_environment()}
    if os.environ.get("ROS_DISTRO") == "humble":  # which knows only this name for it; later ones warn of it
        environment["ROS_LOCALHOST_ONLY"] = "1"
    if "ROS_DOMAIN_ID" not in os.environ:
        environment["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    return environment


def _node_arguments(arguments: argparse.Namespace) -> list[str]:
    parameters = {
        "weights": "" if arguments.weights is None else str(find_weights(arguments.weights).resolve()),
        "device": arguments.device,
        "precision": arguments.precision,
        "autostart_retry": 0.0,
    }
    return _at_the_camera(parameters)


def _player_arguments(arguments: argparse.Namespace, limit: int) -> list[str]:
    parameters = {
        "source": arguments.source,
        "rate": arguments.rate,
        "limit": limit,
        "wait_for_subscribers": 2,  # the recorder and, once it is ready, the node
    }
    return _at_the_camera(parameters)


def _at_the_camera(parameters: dict[str, Any]) -> list[str]:
    """Return arguments for ROS that set parameters and name the camera's topics."""
    topics = ("-r", f"image:={CAMERA}", "-r", f"camera_info:={CAMERA.rsplit('/', 1)[0]}/camera_info")
    return [*(word for name, value in parameters.items() for word in ("-p", f"{name}:={json.dumps(value)}")), *topics]


if __name__ == "__main__":
    sys.exit(main())
