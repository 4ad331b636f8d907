"""Ctrl-C and SIGTERM end a process in order at any moment of its life, and so does the death of `ros2 launch`."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

from ros_harness import STOP_SIGNALS, Camera, Probe, Process, small_weights, wait_for

from sfi_ros.network import checkpoint, zoo
from sfi_ros.ros.stopping import LAUNCH_PID

pytest_plugins = ["ros_harness"]
pytestmark = pytest.mark.timeout(1200)
SIGNALS = pytest.mark.parametrize("number", STOP_SIGNALS)


def end(process: Process, number: int) -> None:
    """Send it the signal, and once more as a terminal and launch both do; it must end well and without complaint."""
    process.send(number)
    time.sleep(0.01)
    if process.alive:
        process.send(number)
    status = process.wait()
    log = process.log()
    assert status == 0, log
    for complaint in ("Traceback", "KeyboardInterrupt", "[ERROR]", "terminate called"):
        assert complaint not in log


def node_names(probe: Probe) -> list[str]:
    return probe.node.get_node_names()


@SIGNALS
@pytest.mark.parametrize("module", ["inpaint_node", "camera_player"])
def test_in_the_first_moment(tmp_path, module, number):
    end(Process(module, log=tmp_path / "log", blocked=True), number)


@SIGNALS
def test_while_pytorch_is_imported(tmp_path, number):
    process = Process("inpaint_node", log=tmp_path / "log")
    wait_for(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(), "loading libtorch")
    end(process, number)
    assert "configured" not in process.log()


def test_at_random_moments(tmp_path):
    """Four of them, spread over what a start takes here."""
    weights = small_weights(tmp_path / "small.safetensors")
    arguments = ("-p", f"weights:={weights}", "-p", "device:=cpu")
    began = time.monotonic()
    with Process("inpaint_node", *arguments, log=tmp_path / "whole", blocked=True) as process:
        wait_for(lambda: "active" in process.log(), "activation")
        duration = time.monotonic() - began
    for quarter in range(4):
        moment = duration * random.uniform(quarter, quarter + 1) / 4
        process = Process("inpaint_node", *arguments, log=tmp_path / f"{moment:.2f}s", blocked=True)
        time.sleep(moment)
        end(process, signal.SIGINT)


@SIGNALS
def test_while_it_configures(probe, tmp_path, number):
    """Warming up this network takes seconds anywhere, in which the node is known to others but answers nobody."""
    weights = checkpoint_of_height(2048, tmp_path / "slow.safetensors")
    name = f"configuring_{number}"
    process = Process(
        "inpaint_node", "-p", f"weights:={weights}", "-p", "device:=cpu", "-r", f"__node:={name}", log=tmp_path / "log"
    )
    wait_for(lambda: name in node_names(probe), "the node")
    end(process, number)
    assert "configured" not in process.log()
    wait_for(lambda: name not in node_names(probe), "its leave", timeout=10)  # a lost one is kept for 20 s


@SIGNALS
def test_under_load(probe, tmp_path, number):
    """Each frame takes seconds, more than there is time to wait for."""
    weights = checkpoint_of_height(1024, tmp_path / "slow.safetensors")
    name = f"loaded_{number}"
    arguments = ("-p", f"weights:={weights}", "-p", "device:=cpu", "-p", "lazy:=false", "-r", f"__node:={name}")
    process = Process("inpaint_node", *arguments, "-r", f"image:=/{name}/image", log=tmp_path / "log")
    image = np.zeros((480, 640, 3), np.uint8)
    with Camera(probe, f"/{name}/image") as camera:
        camera.show_until(
            lambda: probe.status(f"/{name}").get("frames published", "0") != "0", "a result", image, pause=0.2
        )
        camera.show(image)
        time.sleep(0.5)
        end(process, number)
    wait_for(lambda: name not in node_names(probe), "its leave", timeout=10)


def checkpoint_of_height(height: int, path: Path) -> Path:
    checkpoint.save(path, zoo.build("fast-mobilenetv2").eval(), input_height=height)
    return path


# Starts a process as `ros2 launch` does, says its id, and goes on.
LAUNCH = f"""
import os, subprocess, sys, time
environment = dict(os.environ)
if sys.argv[1] == "launch":
    environment["{LAUNCH_PID}"] = str(os.getpid())
print(subprocess.Popen([sys.executable, "-m", "sfi_ros.ros.camera_player"], env=environment).pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("by", ["launch", "hand"])
def test_when_what_started_it_is_killed(probe, by):
    """Nothing that launch started is left behind; what was put into the background by hand stays."""
    parent = subprocess.Popen([sys.executable, "-c", LAUNCH, by], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    try:
        wait_for(lambda: "camera_player" in node_names(probe), "the player")
        time.sleep(0.3)
        assert running(child)
        parent.kill()
        parent.wait()
        if by == "launch":
            wait_for(lambda: not running(child), "the end of the player")
        else:
            time.sleep(2.0)
            assert running(child)
    finally:
        parent.kill()
        if running(child):
            os.kill(child, signal.SIGKILL)
    wait_for(lambda: "camera_player" not in node_names(probe), "its leave")


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
