"""`colcon build` from the wheels of PyPI, with and without --symlink-install, and ~/scene from what it built."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

from ros_harness import PATIENCE, Probe, Process, installed_environment, python_path, small_weights, wait_for

from sfi_ros.ros.dds import PROFILE
from sfi_ros.ros.stopping import REFUSED
from sfi_ros.ros.wheel_build import BuildError, build, missing

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(missing()), reason=f"building messages needs {missing()}"),
]

# What a subscriber does in a process that has the built messages: prints what it received.
LISTEN = """
import rclpy, json, numpy as np
from sfi_ros.msg import InpaintedScene
rclpy.init()
node = rclpy.create_node("listener")
received = []
node.create_subscription(InpaintedScene, "/inpaint/scene", received.append, 10)
while not received:
    rclpy.spin_once(node, timeout_sec=1.0)
scene = received[0]
images = {n: getattr(scene, n) for n in ("foreground_mask", "background", "confidence", "foreground_classes")}
print(json.dumps({
    "frame_id": scene.header.frame_id,
    "stamps": [(i.header.stamp.sec, i.header.stamp.nanosec) for i in images.values()],
    "stamp": (scene.header.stamp.sec, scene.header.stamp.nanosec),
    "sizes": [(i.height, i.width, i.encoding, len(i.data)) for i in images.values()],
    "classes": dict(zip(scene.class_names, map(int, scene.class_ids))),
    "kinds": dict(zip(scene.foreground_class_names, map(int, scene.foreground_class_ids))),
    "share": scene.foreground_share,
    "true_share": float((np.frombuffer(images["foreground_mask"].data, np.uint8) > 0).mean()),
    "seconds": scene.processing_time,
    "weights": scene.weights,
}))
"""


@pytest.mark.parametrize("symlink_install", [False, True])
def test_built_scenes_are_published(built, tmp_path, symlink_install):
    install = built(symlink_install)
    share = install / "sfi_ros" / "share" / "sfi_ros"
    for name in ("launch/inpaint.launch.py", "launch/demo.launch.py", "config/inpaint.yaml", "package.xml"):
        assert (share / name).is_file()
    assert (share / "config" / "fastdds_large_images.xml").read_bytes() == PROFILE.read_bytes()
    for name in ("inpaint_node", "camera_player", "map_node", "sfi", "demo"):
        assert os.access(install / "sfi_ros" / "lib" / "sfi_ros" / name, os.X_OK)
    modules = python_path(install)
    assert (modules / "sfi_ros" / "msg" / "__init__.py").is_file()
    assert (modules / "sfi_ros" / "weights" / "default.safetensors").is_file()
    assert (modules / "sfi_ros" / "ros" / "inpaint_node.py").is_symlink() == symlink_install

    libraries = os.pathsep.join([str(install / "sfi_ros" / "lib"), os.environ.get("LD_LIBRARY_PATH", "")])
    environment = {"PYTHONPATH": str(modules), "LD_LIBRARY_PATH": libraries}
    weights = small_weights(tmp_path / "small.safetensors")
    probe = Probe()
    try:
        with (
            Process(
                "inpaint_node",
                *("-p", f"weights:={weights}", "-p", "device:=cpu"),
                log=tmp_path / "node",
                env=environment,
                cwd=tmp_path,
            ) as node,
            Process(
                "camera_player",
                *("-p", "loop:=true", "-p", "rate:=5.0", "-p", "frame_id:=front"),
                log=tmp_path / "player",
                env=environment,
                cwd=tmp_path,
            ),
        ):
            listener = subprocess.run(
                [sys.executable, "-c", LISTEN],
                env={**os.environ, **environment},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=900,
            )
            assert listener.returncode == 0, listener.stderr + node.log()
            assert "~/scene is left out" not in node.log()
            wait_for(lambda: probe.status().get("weights") == "small.safetensors", "diagnostics")
    finally:
        probe.close()
    scene = json.loads(listener.stdout.strip().splitlines()[-1])
    assert scene["frame_id"] == "front"
    assert scene["stamps"] == [scene["stamp"]] * 4
    assert scene["sizes"] == [[256, 512, "mono8", 256 * 512]] * 4
    assert scene["classes"] == {"road": 0, "sidewalk": 1, "other": 2}
    assert scene["kinds"] == {"no object": 0, "person": 1, "two-wheeler": 2, "vehicle": 3}
    assert scene["share"] == pytest.approx(scene["true_share"], abs=1e-6)
    assert scene["seconds"] > 0
    assert scene["weights"] == "small.safetensors"


def test_a_folder_without_the_package_is_refused(tmp_path):
    """What an installed wheel has around it, for example: messages are built from a checkout."""
    with pytest.raises(BuildError, match=r"is not a checkout of sfi_ros: it has no package.xml"):
        build(tmp_path / "workspace", package=tmp_path)
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize("executable", ["inpaint_node", "camera_player", "map_node"])
def test_executables_run(built, executable):
    """As `ros2 run` starts them; --help of ROS is not a thing, a parameter of a wrong type is refused at once."""
    install = built(False)
    path = install / "sfi_ros" / "lib" / "sfi_ros" / executable
    wrong = {"inpaint_node": "lazy:=7", "camera_player": "loop:=7", "map_node": "size:=true"}[executable]
    result = subprocess.run(
        [str(path), "--ros-args", "-p", wrong],
        env=installed_environment(install),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == REFUSED
    assert f"[{executable}]: " in result.stderr
    assert wrong.split(":=")[0] in result.stderr


@pytest.mark.parametrize("executable", ["inpaint_node", "camera_player"])
def test_ctrl_c_while_an_executable_starts(built, executable):
    """From the moment on when Python has its place, and before it has read a line."""
    install = built(False)
    process = subprocess.Popen(
        [install / "sfi_ros" / "lib" / "sfi_ros" / executable],
        env=installed_environment(install),
        stderr=subprocess.PIPE,
        text=True,
    )
    command = Path(f"/proc/{process.pid}/cmdline")
    wait_for(lambda: command.read_bytes().startswith(b"python3"), "the start of Python")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE)[1] == ""
    assert process.returncode == 0
