"""The launch files under the real `ros2 launch`, where there is one: what they start, refuse, and leave behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")
pytest.importorskip("launch_ros", reason="launch_ros is not installed: not on PyPI")
pytest.importorskip("ros2launch", reason="ros2launch is not installed: not on PyPI")

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from ros_harness import PATIENCE, Camera, installed_environment, small_weights, wait_for

from sfi_ros.ros.dds import PROFILE, VARIABLES

pytest_plugins = ["ros_harness"]
pytestmark = pytest.mark.timeout(1800)
ROS2 = [sys.executable, "-c", "import sys; from ros2cli.cli import main; sys.exit(main())"]
_MARK = "SFI_ROS_TEST_LAUNCH"


@pytest.fixture
def launch(built, tmp_path):
    """Starts `ros2 launch` with some arguments; whatever is left of it in the end is killed."""
    started = []

    def start(*arguments: str, **variables: str) -> Launch:
        environment = {**installed_environment(built(False)), "ROS_LOG_DIR": str(tmp_path / "logs"), **variables}
        started.append(Launch(arguments, environment, tmp_path))
        return started[-1]

    yield start
    for each in started:
        for process in each.processes():
            os.kill(process, signal.SIGKILL)


class Launch:
    """A running `ros2 launch`.

    Args:
        arguments: behind `ros2 launch`.
        environment: all of its variables.
        folder: where it runs and writes its log.
    """

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str], folder: Path):
        self._mark = f"{_MARK}={uuid.uuid4()}"
        self._log = folder / f"launch_{self._mark[-6:]}.log"
        variables = {**environment, _MARK: self._mark.partition("=")[2]}
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [*ROS2, "launch", *arguments],
                stdout=out,
                stderr=out,
                env=variables,
                cwd=folder,
                start_new_session=True,
            )

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self) -> int:
        return self._process.wait(PATIENCE)

    def ctrl_c(self) -> None:
        """As a terminal does: launch and what it started get the signal."""
        os.killpg(self._process.pid, signal.SIGINT)

    def kill(self, number: int) -> None:
        self._process.send_signal(number)
        self._process.wait(PATIENCE)

    def processes(self, name: str = "") -> list[int]:
        """Ids of the processes that it started, and their children; also of those that it has left behind."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                marked = self._mark.encode() in (folder / "environ").read_bytes().split(b"\0")
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if marked and name.encode() in command and int(folder.name) != self._process.pid:
                found.append(int(folder.name))
        return found

    def wait_until_active(self, cameras: int = 1) -> None:
        wait_for(lambda: self.log().count("active: camera") == cameras or self.ended(), "activation")
        assert not self.ended(), self.log()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["precision:=float8"], "precision is 'float8'; accepted are 'auto', 'float32', 'float16', 'bfloat16'"),
        (["device:=gpu"], "device is 'gpu'; it is where the network runs: auto, cpu, cuda or cuda:N"),
        (["params_file:=/no/such.yaml"], "params_file /no/such.yaml does not exist"),
        (["cameras:=front,rear camera"], "cameras has 'rear camera'"),
        (["respawn:=maybe"], 'Argument "respawn" provided value "maybe" is not valid'),
    ],
)
def test_a_refused_argument_starts_nothing(launch, arguments, reason):
    launched = launch("sfi_ros", "inpaint.launch.py", *arguments)
    assert launched.wait() == 1
    assert f"Caught exception in launch (see debug for traceback): {reason}" in launched.log()
    assert "process started" not in launched.log()
    assert "Traceback" not in launched.log()


def test_rviz_that_is_not_installed_starts_nothing(launch):
    try:
        get_package_prefix("rviz2")
        pytest.skip("RViz is installed")
    except (PackageNotFoundError, OSError):  # the latter without any ROS installation
        pass
    launched = launch("sfi_ros", "demo.launch.py")
    assert launched.wait() == 1
    assert "rviz:=true needs RViz, which is not installed: apt install ros-" in launched.log()
    assert "process started" not in launched.log()


def test_what_only_the_node_can_refuse_ends_the_launch(launch, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("/**: {ros__parameters: {precision: float8}}")
    launched = launch("sfi_ros", "inpaint.launch.py", f"params_file:={path}")
    assert launched.wait() == 1
    assert "[FATAL]" in launched.log()
    assert "parameter precision is 'float8'; accepted are" in launched.log()
    assert launched.log().count("process started") == 1  # not again
    assert not launched.processes()


def test_a_source_that_cannot_be_played_ends_the_demo(launch):
    launched = launch("sfi_ros", "demo.launch.py", "rviz:=false", "source:=/no/such/thing")
    assert launched.wait() == 1
    assert "/no/such/thing does not exist" in launched.log()
    wait_for(lambda: not launched.processes(), "the end of the node")


def test_the_demo(launch, probe, tmp_path):
    weights = small_weights(tmp_path / "small.safetensors")
    launched = launch("sfi_ros", "demo.launch.py", "rviz:=false", "device:=cpu", f"weights:={weights}")
    with probe.listen("/inpaint/foreground_mask") as masks:
        wait_for(lambda: masks.messages or launched.ended(), "a result")
        assert masks.messages, launched.log()
    launched.ctrl_c()
    assert launched.wait() == 0
    assert launched.log().count("process has finished cleanly") == 2
    assert not launched.processes()


@pytest.mark.parametrize(("one_process", "processes"), [("true", 1), ("false", 2)])
def test_ctrl_c_on_two_cameras_under_load(launch, probe, tmp_path, one_process, processes):
    weights = small_weights(tmp_path / "small.safetensors")
    arguments = ("cameras:=front,rear", f"one_process:={one_process}", f"weights:={weights}", "lazy:=false")
    launched = launch("sfi_ros", "inpaint.launch.py", *arguments)
    image = np.zeros((1080, 1920, 3), np.uint8)
    with Camera(probe, "/front/image_raw") as front, Camera(probe, "/rear/image_raw") as rear:

        def show():
            front.show(image)
            rear.show(image)
            return all(
                int(probe.status(f"/{name}/inpaint").get("frames published", 0)) > 3 for name in ("front", "rear")
            )

        launched.wait_until_active(cameras=2)
        wait_for(show, "results of both")
        launched.ctrl_c()
        assert launched.wait() == 0
    log = launched.log()
    assert log.count("process has finished cleanly") == processes
    for complaint in ("process has died", "escalating", "Traceback", "[ERROR]"):
        assert complaint not in log
    assert not launched.processes()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_launch_is_killed(launch, number):
    """launch itself leaves its processes behind then."""
    launched = launch("sfi_ros", "inpaint.launch.py", "device:=cpu")
    wait_for(lambda: launched.processes("inpaint_node"), "the node")
    launched.kill(number)
    wait_for(lambda: not launched.processes(), "the end of the node")


BROKEN = """
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch_ros.actions import Node

def generate_launch_description():
    return LaunchDescription([
        IncludeLaunchDescription("{launch}/{name}.launch.py", launch_arguments={{"rviz": "false"}}.items()),
        Node(package="no_such_package", executable="anything"),
    ])
"""


@pytest.mark.parametrize("name", ["inpaint", "demo"])
def test_a_later_action_of_the_users_launch_file_fails(launch, built, tmp_path, name):
    """launch then forgets what it has started; the processes end by themselves."""
    path = tmp_path / "robot.launch.py"
    path.write_text(BROKEN.format(launch=built(False) / "sfi_ros" / "share" / "sfi_ros" / "launch", name=name))
    launched = launch(str(path))
    assert launched.wait() == 1
    assert "no_such_package" in launched.log()
    wait_for(lambda: not launched.processes(), "the end of the node")


def test_the_dds_profile_is_set_unless_the_user_has_one(launch):
    def environment(launched):
        wait_for(lambda: launched.processes("inpaint_node") or launched.ended(), "the node")
        assert not launched.ended(), launched.log()
        variables = Path(f"/proc/{launched.processes('inpaint_node')[0]}/environ").read_text().split("\0")
        return dict(variable.partition("=")[::2] for variable in variables if variable)

    without = dict.fromkeys(VARIABLES, "")
    launched = launch("sfi_ros", "inpaint.launch.py", **without)
    found = environment(launched)
    assert {Path(found[name]).name for name in VARIABLES} == {PROFILE.name}
    assert all(Path(found[name]).is_file() for name in VARIABLES)
    launched.kill(signal.SIGKILL)

    launched = launch("sfi_ros", "inpaint.launch.py", **{**without, VARIABLES[1]: "/mine.xml"})
    found = environment(launched)
    assert [found[name] for name in VARIABLES] == ["", "/mine.xml"]
    assert f"{VARIABLES[1]}=/mine.xml is set and left alone" in launched.log()
    launched.kill(signal.SIGKILL)


def test_rviz_shows_what_was_asked_for(launch, built, tmp_path):
    """A stand-in for RViz keeps the configuration that it is given."""
    prefix, kept = tmp_path / "rviz", tmp_path / "kept.rviz"
    marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / "rviz2"
    executable = prefix / "lib" / "rviz2" / "rviz2"
    for path in (marker, executable):
        path.parent.mkdir(parents=True)
    marker.touch()
    executable.write_text(f'#!/bin/sh\n[ "$1" = -d ] && cp "$2" {kept}.part && mv {kept}.part {kept}\n')
    executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
    launched = launch(
        "sfi_ros",
        "inpaint.launch.py",
        *(
            "cameras:=front,rear",
            "namespace:=car",
            "image_transport:=compressed",
            "rviz:=true",
            "fixed_frame:=base_link",
        ),
        AMENT_PREFIX_PATH=f"{prefix}{os.pathsep}{installed_environment(built(False))['AMENT_PREFIX_PATH']}",
    )
    wait_for(lambda: kept.is_file() or launched.ended(), "RViz")
    assert kept.is_file(), launched.log()
    manager = yaml.safe_load(kept.read_text())["Visualization Manager"]
    assert manager["Global Options"]["Fixed Frame"] == "base_link"
    shown = {display["Name"]: display["Topic"]["Value"] for display in manager["Displays"]}
    assert shown["car/front: Camera"] == "/car/front/image_raw/compressed"
    assert shown["car/rear: Overlay"] == "/car/rear/inpaint/overlay"
    launched.ctrl_c()
    launched.wait()
