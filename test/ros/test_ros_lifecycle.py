"""Weights that are missing, damaged or of another kind: a clean refusal with the reason, and recovery."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

from ros_harness import Camera, Process, small_weights, stamp_of, wait_for
from safetensors import safe_open
from safetensors.torch import save_file
from sensor_msgs.msg import Image

from sfi_ros.network import checkpoint, zoo
from sfi_ros.ros.stopping import REFUSED
from sfi_ros.synthetic import SyntheticStreet

pytest_plugins = ["ros_harness"]
pytestmark = pytest.mark.timeout(1200)


def with_other_classes(path, good):
    """A checkpoint whose header says that it was trained for other classes."""
    with safe_open(good, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        header = {key: json.loads(value) for key, value in file.metadata().items()}
    for value in header.values():
        value["background_classes"] = ["grass", "water", "sky"]
    save_file(tensors, path, metadata={key: json.dumps(value) for key, value in header.items()})
    return path


def test_a_lifecycle_manager_walks_the_node(probe, tmp_path):
    good = small_weights(tmp_path / "good.safetensors")
    corrupt = tmp_path / "corrupt.safetensors"
    corrupt.write_bytes(good.read_bytes()[:5000])
    given_mask = tmp_path / "given.safetensors"
    checkpoint.save(given_mask, zoo.build("fast-mobilenetv2", mask_source="given"))
    refused = {
        tmp_path / "missing.safetensors": "missing.safetensors",
        corrupt: "corrupt.safetensors",
        with_other_classes(tmp_path / "other.safetensors", good): "grass",
        given_mask: "mask_source='given'",
    }
    picture = SyntheticStreet(seed=3, width=160, height=96).frame(5).image
    with Process("inpaint_node", "-p", "autostart:=false", "-p", "device:=cpu", log=tmp_path / "log") as node:
        assert probe.state() == "unconfigured"
        assert not probe.transition("activate")
        for path, reason in refused.items():
            assert probe.set("weights", str(path)).successful
            assert not probe.transition("configure")
            assert probe.state() == "unconfigured"
            assert "configure failed" in node.log()
            assert reason in node.log()
            status = probe.await_status(lambda s, r=reason: r in s["message"], f"{reason} in diagnostics")
            assert status["level"] == "2"
        assert probe.set("weights", str(good)).successful
        assert probe.set("precision", "float16").successful
        assert not probe.transition("configure")
        probe.await_status(
            lambda s: re.search("'float16' is not possible on .*; use auto", s["message"]), "the refused precision"
        )
        assert "Traceback" not in node.log()
        assert probe.set("precision", "auto").successful
        for _ in range(2):  # cleaned up, it starts again
            assert probe.transition("configure")
            assert probe.state() == "inactive"
            assert probe.transition("activate")
            assert not probe.set("weights", str(corrupt)).successful
            with probe.listen("/inpaint/foreground_mask") as masks, Camera(probe) as camera:
                camera.connect(masks)
                stamp = camera.show(picture)
                wait_for(lambda m=masks, s=stamp: s in m.stamps(), "a result")
            assert probe.transition("deactivate")
            assert probe.transition("cleanup")
        assert probe.transition("configure")
        assert probe.transition("shutdown")
        assert probe.state() == "finalized"
        assert node.alive
        assert node.stop() == 0


def test_autostart_recovers_when_the_weights_arrive(probe, tmp_path):
    path = tmp_path / "late.safetensors"
    arguments = ("-p", f"weights:={path}", "-p", "autostart_retry:=0.2", "-p", "device:=cpu", "-p", "lazy:=false")
    with Process("inpaint_node", *arguments, "-r", "__node:=late", log=tmp_path / "log") as node:
        wait_for(lambda: node.log().count("configure failed") >= 2, "two attempts")
        probe.await_status(lambda s: "late.safetensors" in s["message"], "the reason in diagnostics", "/late")
        small_weights(path)
        wait_for(lambda: "active: camera /image" in node.log(), "activation")
        probe.await_status(lambda s: s["state"] == "waiting", "waiting for a camera", "/late")


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("overlay_alpha:=2.0", "overlay_alpha"),
        ("overlay_alpha:=high", "overlay_alpha"),
        ("output_size:=huge", "accepted are 'input', 'network'"),
    ],
)
def test_a_parameter_that_is_wrong_from_the_start_ends_the_node_and_is_named(tmp_path, argument, reason):
    with Process("inpaint_node", "-p", argument, log=tmp_path / "log") as node:
        assert node.wait() == REFUSED
        assert reason in node.log()
        assert "Traceback" not in node.log()


def test_use_sim_time(probe, tmp_path):
    """Without a clock the node still answers and reports; its stamps are those of the images."""
    good = small_weights(tmp_path / "good.safetensors")
    arguments = ("-p", f"weights:={good}", "-p", "use_sim_time:=true", "-p", "device:=cpu", "-r", "__node:=sim")
    picture = SyntheticStreet(seed=3, width=160, height=96).frame(5).image
    with (
        Process("inpaint_node", *arguments, log=tmp_path / "log"),
        probe.listen("/sim/overlay", Image) as overlays,
        Camera(probe) as camera,
    ):
        camera.connect(overlays)
        stamp = camera.show(picture)
        wait_for(lambda: stamp in overlays.stamps(), "a result")
        assert stamp_of(overlays.messages[-1]) == stamp
        probe.await_status(lambda s: s["state"] in ("active", "stale"), "diagnostics", "/sim")


def test_a_second_node_of_the_same_name_is_said_by_both(tmp_path):
    """ROS lets both run, and mixes what they publish and answer."""
    said = "another node is named /inpaint, too"
    start = partial(Process, "inpaint_node", "-p", "autostart:=false")
    with start(log=tmp_path / "a") as first, start("-r", "__ns:=/rear", log=tmp_path / "c") as elsewhere:
        assert said not in first.log()
        with start(log=tmp_path / "b") as second:
            wait_for(lambda: said in first.log() and said in second.log(), "the warnings")
        assert "named /rear/inpaint" not in elsewhere.log()
        assert first.log().count(said) == 1
