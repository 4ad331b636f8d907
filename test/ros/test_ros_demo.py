"""`make demo`: player, node and recorder as three processes, from a folder and from the synthetic street."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

from ros_harness import PATIENCE, small_weights

from sfi_ros.synthetic import SyntheticStreet

pytestmark = pytest.mark.timeout(1200)


def demo(*arguments) -> tuple[int, str]:
    command = [sys.executable, "-m", "sfi_ros.ros.demo", *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=5 * PATIENCE)
    return result.returncode, result.stdout


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_weights(tmp_path_factory.mktemp("weights") / "small.safetensors")


def test_the_synthetic_street_is_scored(tmp_path, weights):
    out = tmp_path / "out"
    for _ in range(2):  # the second run takes the place of the first
        status, said = demo("synthetic", "-o", out, "--limit", 6, "--rate", 3, "--weights", weights, "--device", "cpu")
        assert status == 0, said
        summary = json.loads((out / "summary.json").read_text())
        assert summary["frames_in"] == 6
        assert 1 <= summary["frames_out"] <= 6
        assert summary["every_result_has_the_stamp_of_an_image"]
        assert summary["latency_ms_p95"] >= summary["latency_ms_p50"] > 0
        assert summary["stages_ms_p50"]["inference"] > 0
        assert 0 <= summary["all_region_miou"] <= 1
        assert 0 <= summary["foreground_region_miou"] <= 1
        assert summary["weights"] == "small.safetensors"
        assert len(list((out / "overlay").iterdir())) == summary["frames_out"]
        assert len(list((out / "layout").glob("*.npz"))) == summary["frames_out"]
        for score in ("layout_seen_road_iou", "layout_hidden_road_iou"):
            assert 0 <= summary[score] <= 1 and f"{score}: {summary[score]:.3f}" in said
    assert str(out) in said.replace("\n", "")
    capture = cv2.VideoCapture(str(out / "overlay.mp4"))
    found, frame = capture.read()
    assert found
    assert frame.shape == (256, 512 + 192, 3), "the layout is beside the overlay"


def test_a_folder(tmp_path, weights):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        picture = SyntheticStreet(seed=2, width=96, height=64).frame(number).image
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    status, said = demo(folder, "-o", tmp_path / "out", "--weights", weights, "--device", "cpu", "--rate", 2)
    assert status == 0, said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["frames_in"] == 3
    assert summary["frames_out"] >= 1
    assert "all_region_miou" not in summary
    assert not (tmp_path / "out" / "layout").exists(), "nobody knows the camera's pose"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("/no/such/source",), "does not exist"),
        (("synthetic", "--weights", "/no/such/weights.safetensors"), "configure failed"),
        (("synthetic", "--weights", "unknown"), "there are no weights unknown"),
    ],
)
def test_what_goes_wrong_is_named(tmp_path, arguments, reason):
    status, said = demo(*arguments, "-o", tmp_path / "out")
    assert status == 1
    assert reason in " ".join(said.split())
