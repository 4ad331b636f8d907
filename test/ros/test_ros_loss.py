"""Images that are lost between two processes: a camera without the DDS profile, as a user starts it."""

from __future__ import annotations

import cv2
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

from rclpy.utilities import get_rmw_implementation_identifier
from ros_harness import Process, small_weights, wait_for

from sfi_ros.ros.dds import PROFILE, VARIABLES
from sfi_ros.synthetic import SyntheticStreet

pytest_plugins = ["ros_harness"]
pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not get_rmw_implementation_identifier().startswith("rmw_fastrtps"), reason="the profile is for Fast DDS"
    ),
]


@pytest.fixture(scope="module")
def node(probe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    weights = small_weights(folder / "small.safetensors")
    arguments = ("-p", f"weights:={weights}", "-p", "device:=cpu", "-p", "lazy:=false")
    with Process("inpaint_node", *arguments, log=folder / "log") as process:
        wait_for(lambda: "active" in process.log() or not process.alive, "activation")
        yield process


@pytest.fixture
def camera(tmp_path, request):
    """A camera of 1024x512 at 10 Hz, best effort, in a process with the environment that the test asks for."""
    picture = SyntheticStreet(seed=3, width=1024, height=512).frame(0).image
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    arguments = (
        *("-p", f"source:={tmp_path / 'images'}", "-p", "rate:=10.0", "-p", "loop:=true"),
        *("-p", "qos_overrides./image.publisher.reliability:=best_effort"),
    )
    with Process("camera_player", *arguments, log=tmp_path / "log", env=request.param) as process:
        yield process


@pytest.mark.parametrize("camera", [dict.fromkeys(VARIABLES, "")], indirect=True, ids=["without the profile"])
def test_losses_are_counted_and_named_with_their_remedy(probe, node, camera):
    status = probe.await_status(lambda s: int(s["frames lost on their way here"]) >= 10, "losses")
    assert status["level"] == "1"
    assert "images/s are lost on their way here" in status["message"]
    assert f"export {VARIABLES[0]}={PROFILE} for the camera's process" in status["message"]
    assert float(status["rate of loss (Hz)"]) > 0
    wait_for(lambda: "[WARN]" in node.log() and "/image: " in node.log(), "a line in the log")
    line = next(line for line in node.log().splitlines() if "are lost on their way here" in line)
    assert f"export {VARIABLES[0]}={PROFILE} for the camera's process before it starts" in line


@pytest.mark.parametrize("camera", [dict.fromkeys(VARIABLES, str(PROFILE))], indirect=True, ids=["with the profile"])
def test_with_the_remedy_nothing_is_lost(probe, node, camera):
    before = probe.await_status(lambda s: s["state"] == "active" and "lost" not in s["message"], "the new camera")
    status = probe.await_status(
        lambda s: int(s["frames received"]) >= int(before["frames received"]) + 20, "twenty images"
    )
    assert status["frames lost on their way here"] == before["frames lost on their way here"]
