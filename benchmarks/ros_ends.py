"""The two ends of `ros_latency.py` and `ros_cameras.py`, processes that these start: a camera and a listener.

    ros_ends.py camera TOPIC START PICTURE RATE SECONDS
    ros_ends.py images|results TOPIC START

START is for how many seconds they wait for each other. They import no PyTorch.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sfi_ros.ros.image_messages import image_message
from sfi_ros.ros.qos import camera_qos, result_qos

QUIET = 3.0  # seconds without a message after which the stream is over


def camera(topic: str, start: float, picture: str, rate: float, seconds: float) -> None:
    """Publish one picture, an .npy file of (H, W, 3) uint8, again and again; prints how often."""
    rclpy.init()
    node = rclpy.create_node("bench_camera")
    publisher = node.create_publisher(Image, topic, result_qos())
    pixels = np.load(picture)
    message = image_message(pixels, "rgb8", Header(frame_id="bench"))
    deadline = time.monotonic() + start
    while publisher.get_subscription_count() == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(1.0)  # the other end learns of the match, too
    due = time.monotonic()
    frames = round(seconds * rate)
    for _ in range(frames):
        time.sleep(max(0.0, due - time.monotonic()))
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        due += 1 / rate
    publisher.wait_for_all_acked(Duration(seconds=5))
    time.sleep(1.0)
    print(json.dumps({"sent": frames}))


def listener(kind: str, topic: str, start: float) -> None:
    """Receive until nothing comes any more; prints latencies from the stamp (ms) and the node's diagnostics."""
    rclpy.init()
    node = rclpy.create_node("bench_listener")
    latencies: list[float] = []
    last = [time.monotonic() + start]
    values: dict[str, str] = {}

    def receive(message: Image) -> None:
        stamp = Time.from_msg(message.header.stamp).nanoseconds
        latencies.append((node.get_clock().now().nanoseconds - stamp) * 1e-6)
        last[0] = time.monotonic()

    def diagnose(message: DiagnosticArray) -> None:
        found = {value.key: value.value for value in message.status[0].values}
        if found.get("inference p50 (ms)", "-") != "-":
            values.update(found)

    node.create_subscription(Image, topic, receive, camera_qos() if kind == "images" else result_qos())
    node.create_subscription(DiagnosticArray, "/diagnostics", diagnose, 10)
    while time.monotonic() < last[0] + QUIET:
        rclpy.spin_once(node, timeout_sec=0.2)
    print(json.dumps({"latencies": latencies, "diagnostics": values}))


if __name__ == "__main__":
    role, where, patience = sys.argv[1], sys.argv[2], float(sys.argv[3])
    if role == "camera":
        camera(where, patience, sys.argv[4], float(sys.argv[5]), float(sys.argv[6]))
    else:
        listener(role, where, patience)
