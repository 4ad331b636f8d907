"""Launch and configuration files agree with the code; test_ros_launched executes them."""

from __future__ import annotations

import ast
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

from sfi_ros.classes import BACKGROUND_CLASSES
from sfi_ros.outputs import OUTPUTS
from sfi_ros.ros.dds import PROFILE
from sfi_ros.ros.launching import OVERRIDES
from sfi_ros.ros.settings import SETTINGS, Change

ROOT = Path(__file__).resolve().parents[2]
LAYOUT_TOPICS = ("layout", "layout_objects", "layout_color", "ground_points")
RESULT_TOPICS = (*(output.name for output in OUTPUTS), *LAYOUT_TOPICS, "camera_info")


def declared(path: Path) -> dict[str, dict[str, ast.expr]]:
    """DeclareLaunchArgument calls of a launch file: name -> its keywords."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    found = [call for call in calls if getattr(call.func, "id", "") == "DeclareLaunchArgument"]
    return {call.args[0].value: {word.arg: word.value for word in call.keywords} for call in found}


@pytest.mark.parametrize("name", ["inpaint", "demo"])
def test_every_launch_argument_is_described_and_used(name):
    path = ROOT / "launch" / f"{name}.launch.py"
    arguments = declared(path)
    assert len(arguments) >= 7
    source = path.read_text()
    for argument, words in arguments.items():
        assert len(words["description"].value) > 10, argument
        assert "default_value" in words, argument
        used = name == "inpaint" and argument in OVERRIDES
        assert used or source.count(f'"{argument}"') >= 2, f"{argument} is declared and never used"


def test_the_launch_file_names_the_values_that_a_parameter_accepts():
    arguments = declared(ROOT / "launch" / "inpaint.launch.py")
    for setting in SETTINGS:
        if setting.choices and setting.name in arguments:
            description = arguments[setting.name]["description"].value
            assert all(choice in description for choice in setting.choices), setting.name


def test_the_launch_file_covers_what_users_ask_for():
    expected = {"image", "image_transport", "weights", "device", "precision", "params_file", "namespace", "autostart"}
    expected |= {"use_sim_time", "log_level", "rviz", "dds_profile", "cameras"}
    assert expected <= set(declared(ROOT / "launch" / "inpaint.launch.py"))


def test_the_parameter_file_is_the_table_in_the_code():
    document = yaml.safe_load((ROOT / "config" / "inpaint.yaml").read_text())["/**"]["ros__parameters"]
    assert document == {setting.name: setting.default for setting in SETTINGS}
    for name, value in document.items():
        assert type(value) is type(next(s.default for s in SETTINGS if s.name == name)), name


def test_the_docs_have_every_parameter_with_its_default_and_description():
    text = (ROOT / "docs" / "node.md").read_text()
    for setting in SETTINGS:
        default = json.dumps(setting.default)
        row = f"| `{setting.name}` | {default} | {setting.change.value} | {setting.description}"
        assert row in text, f"docs/node.md lacks the row: {row}"
    assert {setting.change for setting in SETTINGS} == set(Change)


def test_rviz_and_foxglove_show_topics_that_exist():
    known = {f"/inpaint/{name}" for name in RESULT_TOPICS} | {"/camera/image_raw", "/camera/camera_info"}
    rviz = yaml.safe_load((ROOT / "config" / "inpaint.rviz").read_text())["Visualization Manager"]["Displays"]
    shown = {display["Topic"]["Value"] for display in rviz}
    assert {"/camera/image_raw", "/inpaint/overlay", "/inpaint/foreground_mask"} <= shown <= known
    layout = json.loads((ROOT / "config" / "foxglove_layout.json").read_text())
    panels = layout["configById"]
    topics = {topic for panel in panels.values() for topic in panel.get("imageMode", {}).values()}
    assert {"/camera/image_raw", "/inpaint/overlay", "/inpaint/foreground_mask"} <= topics <= known
    placed = json.dumps(layout["layout"])
    assert all(f'"{panel}"' in placed for panel in panels)


def test_the_dds_profile_has_a_large_segment_and_is_the_default():
    root = ElementTree.parse(PROFILE).getroot()
    space = {"dds": "http://www.eprosima.com"}
    assert int(root.findtext(".//dds:segment_size", namespaces=space)) == 64 * 2**20
    assert root.find(".//dds:participant", space).get("is_default_profile") == "true"


def test_the_example_for_nav2_names_topics_classes_and_layers_that_exist():
    document = yaml.safe_load((ROOT / "config" / "nav2_example.yaml").read_text())
    costmap = document["local_costmap"]["local_costmap"]["ros__parameters"]
    layers = {name: layer for name, layer in costmap.items() if isinstance(layer, dict)}
    assert set(costmap["plugins"]) <= set(layers)
    assert "lidar_layer" in costmap["plugins"]
    camera = layers["semantic_layer"]["camera"]
    topics = {layers[name]["map_topic"] for name in ("ground_layer", "standing_layer")}
    topics |= {value for name, value in camera.items() if name.endswith("_topic")}
    infos = {f"/inpaint/{output.label_info}" for output in OUTPUTS if output.label_info}
    assert topics <= {f"/inpaint/{name}" for name in RESULT_TOPICS} | infos
    assert sorted(name for kind in camera["class_types"] for name in camera[kind]["classes"]) == sorted(
        BACKGROUND_CLASSES
    )
