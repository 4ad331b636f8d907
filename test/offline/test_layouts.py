"""`--layout`: the ground of each frame as files and in bags, with scores where the truth is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from offline_harness import tree, write_photos

from sfi_ros.frames.frame import Frame
from sfi_ros.frames.synthetic_street import SyntheticSource
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.layout import INFERRED, SEEN
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.inference.scene import Scene, Timing
from sfi_ros.offline.layouts import LayoutFolder, LayoutOptions, beside
from sfi_ros.offline.recorder import Recorder

pytest_plugins = ["offline_harness"]

CALIBRATION = """image_width: 90
image_height: 60
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}
camera_matrix: {rows: 3, cols: 3, data: [80, 0, 44.5, 0, 80, 29.5, 0, 0, 1]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [80, 0, 44.5, 0, 0, 80, 29.5, 0, 0, 0, 1, 0]}
"""
SCORES = ("layout_seen_road_iou", "layout_hidden_road_iou", "layout_seen_sidewalk_iou", "layout_hidden_sidewalk_iou")


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def perfect(frame: Frame) -> Scene:
    """The scene of a network that is always right."""
    assert frame.truth is not None
    sure = np.full(frame.truth.foreground.shape, 255, np.uint8)
    return Scene(frame.truth.foreground, frame.truth.background, sure, sure, Timing(0, 0, 0))


def test_the_synthetic_street_knows_its_camera_and_is_scored(tmp_path, sfi, capsys):
    out = tmp_path / "out"
    assert sfi("run", "synthetic", "-o", out, "--layout", "--limit", 2) == 0
    said, facts = capsys.readouterr().err, summary(out)
    for score in SCORES[:2]:
        assert 0 <= facts[score] <= 1 and f"{score}: {facts[score]:.3f}" in said
    for name in ("frame_000000", "frame_000001"):
        content = np.load(out / "layout" / f"{name}.npz")
        assert content["classes"].shape == (300, 400) and str(content["frame"]) == "base_footprint"
        assert {SEEN, INFERRED} <= set(np.unique(content["evidence"]))
        assert content["objects"].shape == content["depth"].shape == content["confidence"].shape == (300, 400)
        assert cv2.imread(str(out / "layout" / f"{name}.png")).shape == (400, 300, 3)
        costs = cv2.imread(str(out / "layout" / f"{name}.pgm"), cv2.IMREAD_UNCHANGED)
        described = yaml.safe_load((out / "layout" / f"{name}.yaml").read_text())
        assert costs.shape == (300, 400) and described["image"] == f"{name}.pgm"
        assert described["origin"] == [0, -15, 0] and described["resolution"] == 0.1
        road = (content["classes"] == 0) & (content["evidence"] == SEEN)
        assert np.array_equal(costs[::-1] == 0, road)
    video = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_WIDTH) == 512 + 192 and video.get(cv2.CAP_PROP_FRAME_HEIGHT) == 256


def test_a_run_with_layouts_goes_on(tmp_path, sfi):
    assert sfi("run", "synthetic", "-o", tmp_path / "whole", "--layout", "--limit", 3) == 0
    out = tmp_path / "out"
    shutil.copytree(tmp_path / "whole", out)
    for lost in ("layout/frame_000001.yaml", "summary.json", "overlay.mp4"):
        (out / lost).unlink()
    assert sfi("run", "synthetic", "-o", out, "--layout", "--limit", 3) == 0
    assert tree(out) == tree(tmp_path / "whole")
    assert summary(out)["resumed"] == 2
    assert all(summary(out)[score] == summary(tmp_path / "whole")[score] for score in SCORES)
    assert sfi("run", "synthetic", "-o", out, "--limit", 3) == 1, "results without layouts are those of another run"


def test_an_own_camera(tmp_path, sfi, capsys):
    photos = write_photos(tmp_path / "photos", 2)
    (photos / "0001.png").rename(photos / "0: a'b.png")
    calibration, own = tmp_path / "camera.yaml", tmp_path / "own.png"
    calibration.write_text(CALIBRATION)
    bonnet = np.zeros((60, 90), np.uint8)
    bonnet[50:] = 255
    cv2.imwrite(str(own), bonnet)
    out, camera = tmp_path / "out", "height=1.2,pitch=0.1,x=1.5"
    options = ("--layout", "--calibration", calibration, "--camera", camera, "--grid", "0,20,-5,5,0.25")
    assert sfi("run", photos, "-o", out, *options) == 0
    plain = np.load(out / "layout" / "0000.npz")
    assert plain["classes"].shape == (40, 80) and (plain["evidence"] != 0).any()
    assert yaml.safe_load((out / "layout" / "0: a'b.yaml").read_text())["image"] == "0: a'b.pgm"
    assert not any(score in summary(out) for score in SCORES), "nobody knows the truth"
    assert sfi("run", photos, "-o", tmp_path / "own", *options, "--own-vehicle", own) == 0
    left_out = np.load(tmp_path / "own" / "layout" / "0000.npz")
    assert (left_out["evidence"] != 0).sum() < (plain["evidence"] != 0).sum()

    capsys.readouterr()
    for less, reason in (
        (("--layout",), "calibration (--calibration YAML) and pose on the vehicle (--camera"),
        (("--layout", "--camera", camera), "calibration (--calibration YAML)"),
        ((*options, "--own-vehicle", calibration), "--own-vehicle"),
        (("--layout", "--calibration", own, "--camera", camera), "own.png"),
    ):
        assert sfi("run", photos, "-o", tmp_path / "refused", *less) == 1
        assert reason in " ".join(capsys.readouterr().err.split())


def test_a_calibration_of_another_size_is_refused(tmp_path, sfi, capsys):
    photos = write_photos(tmp_path / "photos", 1, (64, 96))
    (tmp_path / "camera.yaml").write_text(CALIBRATION)
    options = ("--layout", "--calibration", tmp_path / "camera.yaml", "--camera", "height=1.2")
    assert sfi("run", photos, "-o", tmp_path / "out", *options) == 1
    assert "is for images of 90x60, the image has 96x64" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [("--camera", "1.5"), ("--camera", "height=0"), ("--grid", "0,40"), ("--grid", "9,1,0,1,1")]
)
def test_wrong_options_are_named(tmp_path, sfi, capsys, wrong):
    with pytest.raises(SystemExit):
        sfi("run", "synthetic", "-o", tmp_path / "out", "--layout", *wrong)
    assert wrong[0] in capsys.readouterr().err


def test_a_perfect_scene_scores_one(tmp_path):
    frame = next(iter(SyntheticSource()))
    assert isinstance(frame, Frame)
    with Recorder(tmp_path, 10, layout=LayoutOptions(grid=GroundGrid(resolution=0.25))) as recorder:
        recorder.add(frame, perfect(frame))
        scores = recorder.finish().scores
    assert [scores[name] for name in SCORES[:2]] == [1, 1]
    compared = cv2.imread(str(tmp_path / "comparison" / f"{frame.name}.png"))
    assert compared.shape[1] == 2 * 512, "six panels, two in a row"
    assert compared.shape[0] > 3 * 256


def test_a_map_fits_beside_a_picture(tmp_path):
    frame = next(iter(SyntheticSource()))
    layout = LayoutFolder(tmp_path, LayoutOptions()).make(frame, perfect(frame))
    picture = np.full((101, 99, 3), 7, np.uint8)
    shown = beside(picture, layout)
    assert shown.shape == (101, 174, 3) and (shown[:, :99] == picture).all()
    assert beside(picture, layout, 300).shape == (101, 300, 3) and (beside(picture, layout, 300)[:, 190:] == 0).all()


def test_bags_hold_occupancy_grids(tmp_path, sfi, capsys):
    pytest.importorskip("rosbags", reason="rosbags is not installed (pip install sfi_ros[ros])")
    from ros_bags import read_bag, write_bag

    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(2)]
    bag, out = write_bag(tmp_path / "in", pictures), tmp_path / "out"
    assert sfi("bag", bag, out, "--layout", "--camera", "height=1.2,pitch=0.1") == 0
    results, images = read_bag(out), read_bag(bag)["/front/image_raw"]
    for name in ("layout", "layout_objects"):
        assert len(results[f"/front/inpaint/{name}"]) == 2
        for (at, grid), (recorded_at, image) in zip(results[f"/front/inpaint/{name}"], images, strict=True):
            assert at == recorded_at and grid.header.stamp == image.header.stamp
            assert grid.header.frame_id == "base_footprint"
            assert (grid.info.width, grid.info.height) == (400, 300)
            assert (grid.info.origin.position.x, grid.info.origin.position.y) == (0, -15)
            assert len(grid.data) == 400 * 300 and set(np.unique(grid.data)) > {-1}
    assert sfi("bag", bag, tmp_path / "none", "--layout") == 1
    assert "--camera" in capsys.readouterr().err


def test_pictures_of_a_recording_have_its_calibration(tmp_path, sfi):
    pytest.importorskip("rosbags", reason="rosbags is not installed (pip install sfi_ros[ros])")
    from ros_bags import write_bag

    bag, out = write_bag(tmp_path / "in", [np.zeros((64, 96, 3), np.uint8)]), tmp_path / "out"
    assert sfi("run", bag, "-o", out, "--layout", "--camera", "height=1.2,pitch=0.1") == 0
    assert len(list((out / "layout").glob("*.npz"))) == 1


def test_a_bag_without_calibration_says_so_once(tmp_path, sfi, capsys):
    pytest.importorskip("rosbags", reason="rosbags is not installed (pip install sfi_ros[ros])")
    from ros_bags import read_bag, write_bag

    pictures = [np.zeros((64, 96, 3), np.uint8)] * 3
    bag = write_bag(tmp_path / "in", pictures, camera_info={"k": np.zeros(9)})
    assert sfi("bag", bag, tmp_path / "out", "--layout", "--camera", "height=1.2") == 0
    assert capsys.readouterr().err.count("layout of /front/image_raw") == 1
    assert "/front/inpaint/layout" not in read_bag(tmp_path / "out")
    options = LayoutOptions(pose=CameraPose(1.2))
    with pytest.raises(ValueError, match="--calibration"):
        options.camera(None, None, (96, 64))
