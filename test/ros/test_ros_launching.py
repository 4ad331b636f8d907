"""What the launch files decide before they start anything; test_ros_launched tries it under the real `ros2 launch`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

from ros_harness import Process

from sfi_ros.errors import OptionError
from sfi_ros.outputs import OUTPUTS
from sfi_ros.ros.dds import PROFILE, VARIABLES, chosen_profile, profile_environment
from sfi_ros.ros.launching import (
    OVERRIDES,
    CameraNode,
    camera_nodes,
    misspelt_arguments,
    number,
    overriding_parameters,
    rviz_config,
)
from sfi_ros.ros.settings import SETTINGS
from sfi_ros.ros.stopping import REFUSED

TEMPLATE = (Path(__file__).resolve().parents[2] / "config" / "inpaint.rviz").read_text()


def nodes(namespace: str = "", cameras: str = "", image: str = "/camera/image_raw", camera_info: str = ""):
    return camera_nodes(namespace=namespace, cameras=cameras, image=image, camera_info=camera_info)


def test_one_camera_or_one_node_for_each_of_several():
    assert nodes() == [CameraNode("", "/camera/image_raw")]
    assert nodes("/car/", image="image_raw", camera_info="/info") == [CameraNode("car", "image_raw", "/info")]
    assert nodes(cameras="front, /rear/") == [
        CameraNode("front", "/front/image_raw"),
        CameraNode("rear", "/rear/image_raw"),
    ]
    assert [node.name for node in nodes("car", "front,side/left")] == ["/car/front/inpaint", "/car/side/left/inpaint"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"cameras": "front,rear cam"}, "'rear cam'"),
        ({"cameras": "front,"}, "''"),
        ({"cameras": "2front"}, "'2front'"),
        ({"cameras": "front,rear,front"}, "front more than once"),
        ({"cameras": "front", "camera_info": "/info"}, "camera_info is for one camera"),
        ({"namespace": "car-1"}, "'car-1'"),
        ({"namespace": "a//b"}, "'a//b'"),
        ({"image": "/camera/größe"}, "'camera/größe'"),
        ({"image": ""}, "image has ''"),
        ({"camera_info": "//info"}, "'/info'"),
    ],
)
def test_names_that_ros_would_refuse_when_a_node_already_runs(arguments, reason):
    with pytest.raises(OptionError, match=reason):
        nodes(**arguments)


def test_arguments_override_parameters_only_where_they_are_given():
    assert overriding_parameters({}) == {}
    given = {"device": "cuda:1", "lazy": "false", "weights": "1234", "precision": "", "image": "/not/a/parameter"}
    assert overriding_parameters(given) == {"device": "cuda:1", "lazy": False, "weights": "1234"}
    assert set(OVERRIDES) <= {setting.name for setting in SETTINGS}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("precision", "float8"),
        ("image_transport", "foo"),
        ("backend", "Pytorch"),
        ("output_size", "huge"),
        ("device", "gpu"),
        ("device", "cuda:one"),
        ("device", "cuda:0,1"),
        ("lazy", "7"),
    ],
)
def test_a_value_that_the_parameter_does_not_accept_is_named(argument, value):
    with pytest.raises(OptionError, match=f"{argument} is '{value}'"):
        overriding_parameters({argument: value})


def test_arguments_with_a_typing_error_are_said_and_those_of_others_left_alone():
    known = ("precision", "cameras", "rviz")
    said = misspelt_arguments({"precision": "auto", "precison": "float16", "robot": "r2", "use_lidar": "true"}, known)
    assert said == [
        "warning: precison is no argument of this launch file, so its value has no effect; did you mean precision?"
    ]
    assert not misspelt_arguments(known, known)


def test_a_number():
    assert number("rate", "2") == 2.0
    with pytest.raises(OptionError, match="rate is 'fast'"):
        number("rate", "fast")


def topics(config: str) -> dict[str, str]:
    manager = yaml.safe_load(config)["Visualization Manager"]
    return {display["Name"]: display["Topic"]["Value"] for display in manager["Displays"]}


def test_rviz_follows_the_arguments():
    assert yaml.safe_load(rviz_config(TEMPLATE, nodes(), "raw", "camera")) == yaml.safe_load(TEMPLATE)
    in_namespace = rviz_config(TEMPLATE, nodes("car", image="image_raw"), "compressed", "map")
    assert yaml.safe_load(in_namespace)["Visualization Manager"]["Global Options"]["Fixed Frame"] == "map"
    shown = topics(in_namespace)
    assert shown["Camera"] == "/car/image_raw/compressed"
    assert shown["Foreground mask"] == "/car/inpaint/foreground_mask"
    several = topics(rviz_config(TEMPLATE, nodes(cameras="front,rear"), "raw", "camera"))
    assert len(several) == 2 * len(topics(TEMPLATE))
    assert several["rear: Camera"] == "/rear/image_raw"
    published = {output.name for output in OUTPUTS} | {"layout", "layout_objects", "layout_color", "ground_points"}
    for name, topic in several.items():
        camera, _, display = name.partition(": ")
        if display != "Camera":
            assert topic.rpartition("/")[0] == f"/{camera}/inpaint"
            assert topic.rpartition("/")[2] in published


def test_rviz_shows_once_what_all_cameras_of_a_node_see_together():
    shown = topics(
        rviz_config(TEMPLATE, nodes("car", cameras="front,rear"), "raw", "camera", CameraNode("car", "image"))
    )
    assert shown["Layout"] == "/car/inpaint/layout"
    assert shown["car/front: Ground points"] == "/car/front/inpaint/ground_points"
    assert not any(name.endswith(": Layout") for name in shown)
    assert shown["car/rear: Overlay"] == "/car/rear/inpaint/overlay"


def test_a_topic_that_already_names_its_transport():
    assert CameraNode("", "/camera/image_raw/compressed").image_topic("compressed") == "/camera/image_raw/compressed"


@pytest.mark.parametrize("variable", [*VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS"])
def test_a_dds_profile_of_the_users_own_is_left_alone(monkeypatch, variable):
    for name in (*VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS"):
        monkeypatch.delenv(name, raising=False)
    assert chosen_profile() == ""
    assert profile_environment() == dict.fromkeys(VARIABLES, str(PROFILE))
    monkeypatch.setenv(variable, "/mine.xml")
    assert chosen_profile() == f"{variable}=/mine.xml"
    assert profile_environment() == {}


def test_our_dds_profile_is_not_taken_for_the_users(monkeypatch):
    """As the README has it exported, from where colcon installs it."""
    monkeypatch.delenv("FASTDDS_BUILTIN_TRANSPORTS", raising=False)
    for name in VARIABLES:
        monkeypatch.setenv(name, f"/ws/install/sfi_ros/share/sfi_ros/config/{PROFILE.name}")
    assert chosen_profile() == ""


def test_a_launch_file_needs_neither_pytorch_nor_opencv():
    """`ros2` runs in the Python of the system, which may have neither."""
    code = "import sys; sys.modules.update(torch=None, cv2=None, numpy=None); import sfi_ros.ros.launching"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("executable", ["inpaint_node", "camera_player"])
def test_a_python_without_the_packages_is_named(tmp_path, executable):
    """As where `ros2 launch` runs outside the environment with PyTorch: one line, and launch does not try again."""
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')")
    process = Process(executable, log=tmp_path / "log", env={"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"})
    assert process.wait() == REFUSED
    assert process.log().startswith(f"[FATAL] [{executable}]: {sys.executable} has no module cv2. Start this where ")
    assert len(process.log().splitlines()) == 1
