"""What ROS costs: loss and latency of large images with and without the DDS profile, and what the node adds.

    python benchmarks/ros_latency.py                        # 1920x1080 rgb8, 30 Hz, 10 s each
    python benchmarks/ros_latency.py --seconds 5 --device cpu --weights my.safetensors

A camera, the node and a listener run as processes of their own. "Transport" is camera to listener without the node,
best effort, as the node subscribes; "node" is camera to node to a listener of ~/foreground_mask.
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
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sfi_ros.inference import InferenceEngine
from sfi_ros.ros.dds import VARIABLES, profile_environment

IMAGE, MASK = "/bench/image", "/inpaint/foreground_mask"
QUIET = 3.0  # seconds without a message after which the stream is over
START = 120.0  # seconds for everybody to start


def camera(arguments: argparse.Namespace) -> None:
    """Publish one picture again and again; prints how often."""
    import rclpy
    from rclpy.duration import Duration
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from sfi_ros.ros.image_messages import image_message
    from sfi_ros.ros.qos import result_qos

    rclpy.init()
    node = rclpy.create_node("bench_camera")
    publisher = node.create_publisher(Image, IMAGE, result_qos())
    pixels = np.random.default_rng(0).integers(0, 255, (arguments.height, arguments.width, 3), np.uint8)
    message = image_message(pixels, "rgb8", Header(frame_id="bench"))
    deadline = time.monotonic() + START
    while publisher.get_subscription_count() == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(1.0)  # the other end learns of the match, too
    due = time.monotonic()
    frames = round(arguments.seconds * arguments.rate)
    for _ in range(frames):
        time.sleep(max(0.0, due - time.monotonic()))
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        due += 1 / arguments.rate
    publisher.wait_for_all_acked(Duration(seconds=5))
    time.sleep(1.0)
    print(json.dumps({"sent": frames}))


def listener(arguments: argparse.Namespace) -> None:
    """Receive until nothing comes any more; prints latencies from the stamp (ms) and the node's diagnostics."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.time import Time
    from sensor_msgs.msg import Image

    from sfi_ros.ros.qos import camera_qos, result_qos

    rclpy.init()
    node = rclpy.create_node("bench_listener")
    latencies: list[float] = []
    last = [time.monotonic() + START]
    values: dict[str, str] = {}

    def receive(message: Image) -> None:
        stamp = Time.from_msg(message.header.stamp).nanoseconds
        latencies.append((node.get_clock().now().nanoseconds - stamp) * 1e-6)
        last[0] = time.monotonic()

    def diagnose(message: DiagnosticArray) -> None:
        found = {value.key: value.value for value in message.status[0].values}
        if found.get("inference p50 (ms)", "-") != "-":
            values.update(found)

    topic, qos = (IMAGE, camera_qos()) if arguments.role == "transport" else (MASK, result_qos())
    node.create_subscription(Image, topic, receive, qos)
    node.create_subscription(DiagnosticArray, "/diagnostics", diagnose, 10)
    while time.monotonic() < last[0] + QUIET:
        rclpy.spin_once(node, timeout_sec=0.2)
    print(json.dumps({"latencies": latencies, "diagnostics": values}))


@contextlib.contextmanager
def running(*command: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """A Python process that is ended in the end."""
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


def measure(arguments: argparse.Namespace, *, profile: bool, with_node: bool) -> dict:
    """One stream from its first frame to its last."""
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    environment["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if profile:
        environment.update(profile_environment())
    role = "node" if with_node else "transport"
    own = [__file__, "--width", str(arguments.width), "--height", str(arguments.height)]
    own += ["--rate", str(arguments.rate), "--seconds", str(arguments.seconds), "--role"]
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:

        def start(name: str, *command: str) -> subprocess.Popen:
            log = Path(folder) / name
            return stack.enter_context(running(*command, environment=environment, log=log))

        ear = start("listener", *own, role)
        if with_node:
            settings = [f"weights:={json.dumps(arguments.weights)}", f"device:={arguments.device}"]
            words = [word for setting in settings for word in ("-p", setting)]
            start("node", "-m", "sfi_ros.ros.inpaint_node", "--ros-args", *words, "-r", f"image:={IMAGE}")
        eye = start("camera", *own, "camera")
        sent = json.loads(eye.communicate(timeout=START + 10 * arguments.seconds)[0])["sent"]
        heard = json.loads(ear.communicate(timeout=START)[0])
    return {"sent": sent, **heard}


def engine_alone(arguments: argparse.Namespace) -> float:
    """Median milliseconds of the engine on the same picture, without ROS."""
    engine = InferenceEngine.load(arguments.weights or None, device=arguments.device)
    pixels = np.random.default_rng(0).integers(0, 255, (arguments.height, arguments.width, 3), np.uint8)
    times = []
    for _ in range(5 + round(arguments.seconds * 5)):
        began = time.perf_counter()
        engine(pixels)
        times.append((time.perf_counter() - began) * 1e3)
        time.sleep(max(0.0, 1 / arguments.rate - times[-1] * 1e-3))
    return float(np.median(times[5:]))


def report(arguments: argparse.Namespace) -> None:
    """Measure everything and print it as Markdown."""
    print(f"{arguments.width}x{arguments.height} rgb8, {arguments.rate:g} Hz, {arguments.seconds:g} s\n")
    print("| stream | DDS profile | sent | received | lost | latency p50 | p95 |")
    print("|---|---|---|---|---|---|---|")
    node = {}
    for with_node in (False, True):
        for profile in (False, True):
            result = measure(arguments, profile=profile, with_node=with_node)
            milliseconds = result["latencies"]
            received, sent = len(milliseconds), result["sent"]
            p50, p95 = np.percentile(milliseconds, [50, 95]) if milliseconds else (np.nan, np.nan)
            name = "camera → node → mask" if with_node else "camera → listener"
            print(
                f"| {name} | {'yes' if profile else 'no'} | {sent} | {received} | {1 - received / sent:.1%} | "
                f"{p50:.1f} ms | {p95:.1f} ms |",
                flush=True,
            )
            if with_node and profile:
                node = result["diagnostics"]
    alone = engine_alone(arguments)
    stages = ("transport", "wait", "decode", "inference", "publish", "total")
    print("\nThe node with the profile, median of its last 10 s (its own diagnostics):\n")
    print("| " + " | ".join(stages) + " |\n|" + "---|" * len(stages))
    print("| " + " | ".join(f"{node.get(f'{stage} p50 (ms)', '-')} ms" for stage in stages) + " |\n")
    print(f"frames received {node.get('frames received')}, dropped {node.get('frames dropped (newest wins)')}")
    print(f"engine alone, without ROS: {alone:.1f} ms")
    if node:
        added = sum(float(node[f"{stage} p50 (ms)"]) for stage in ("wait", "decode", "publish"))
        print(f"the node adds to its engine (wait + decode + publish): {added:.1f} ms median")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--rate", type=float, default=30.0, help="Hz")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each stream")
    parser.add_argument("--weights", default="", help="checkpoint; default: the one that ships")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--role", choices=("report", "camera", "transport", "node"), default="report")
    arguments = parser.parse_args()
    roles = {"report": report, "camera": camera, "transport": listener, "node": listener}
    roles[arguments.role](arguments)


if __name__ == "__main__":
    main()
