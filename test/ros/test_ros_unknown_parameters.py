"""Parameters that are given at start and do not exist: ROS passes them by in silence, the nodes do not."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

from ros_harness import Process, wait_for

PARAMETERS = """
/**:
  ros__parameters:
    {name}: {value}
    use_sim_time: false
    qos_overrides:
      /image: {{subscription: {{depth: 2}}}}
"""


@pytest.mark.parametrize(
    ("module", "name", "value", "others", "meant"),
    [
        ("inpaint_node", "diagnostics.stale_wran", 2.0, ["autostart:=false"], "; did you mean diagnostics.stale_warn?"),
        ("inpaint_node", "front.max_rat", 2.0, ["autostart:=false", "cameras:=[front]"], "mean front.max_rate?"),
        ("camera_player", "souce", "x", ["field_of_view:=70.0"], "; did you mean source?"),
        ("map_node", "zzzz", 1, ["size:=40.0"], ", so its value has no effect\n"),
    ],
)
def test_a_name_that_does_not_exist_is_said(tmp_path, module, name, value, others, meant):
    file = tmp_path / "parameters.yaml"
    file.write_text(PARAMETERS.format(name=name, value=value))
    arguments = [text for other in others for text in ("-p", other)]
    with Process(module, "--params-file", str(file), *arguments, log=tmp_path / "log") as node:
        wait_for(lambda: "there is no parameter" in node.log(), "the warning")
        assert f"there is no parameter {name}, so its value has no effect" in node.log()
        assert meant in node.log()
        assert node.stop() == 0
    assert node.log().count("there is no parameter") == 1
