"""The node runs an exported network where PyTorch cannot be imported, through real ROS."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import ros_harness  # noqa: F401 - claims a ROS domain, for processes of this one, too
from onnx_models import declared, model, written
from without_pytorch import run_without_pytorch

CODE = """
import time
import numpy as np, rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from sfi_ros.ros.image_messages import image_message
from sfi_ros.ros.node import InpaintNode

rclpy.init(args=["--ros-args", "-p", "weights:=" + sys.argv[1], "-p", "input_height:=32"])
node, camera = InpaintNode(), rclpy.create_node("camera")
assert node.trigger_configure() == node.trigger_activate()
masks = []
camera.create_subscription(Image, "/inpaint/foreground_mask", masks.append, qos_profile_sensor_data)
images = camera.create_publisher(Image, "image", qos_profile_sensor_data)
executor = SingleThreadedExecutor()
executor.add_node(node)
executor.add_node(camera)
deadline = time.monotonic() + 60
while not masks and time.monotonic() < deadline:
    images.publish(image_message(np.full((64, 96, 3), 200, np.uint8), "rgb8", Header(frame_id="front")))
    executor.spin_once(timeout_sec=0.1)
mask = masks[0]
loaded = sorted({"torch", "cv2"} & set(sys.modules))
print(mask.header.frame_id, mask.height, mask.width, set(mask.data), loaded)
node.close()
node.destroy_node()
"""


def test_the_node_gives_scenes(tmp_path):
    exported = written(declared(model()), tmp_path / "small.onnx", record={"max_side": 512})
    result = run_without_pytorch(CODE, exported, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("front 64 96 {255} ['cv2']")
