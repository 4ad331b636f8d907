"""Where a network is wrong, counted on made up answers."""

import cv2
import numpy as np
import pytest
import torch

from benchmarks import error_pictures
from benchmarks.errors import LABELS, Errors, ground_metres, main
from sfi_ros.classes import IGNORE
from training.data.sample import Sample


def test_the_ground_is_where_its_rays_meet_it():
    metres = ground_metres(100, fy=50.0, cy=50.0, camera_height=1.5, pitch=0.0)
    assert np.isinf(metres[:50]).all()
    assert metres[99] == pytest.approx(1.5 * 50 / 49.5)
    looking_down = ground_metres(100, fy=50.0, cy=50.0, camera_height=1.5, pitch=np.arctan(0.5 / 50))
    assert looking_down[98] == pytest.approx(1.5 * 50 / 49.5, rel=0.02)


def test_errors_are_told_apart_by_place_and_kind():
    height, width = 20, 40
    truth = np.ones((height, width), np.uint8)  # all sidewalk, but for a road at the left and a row nobody knows
    truth[:, :10], truth[0] = 0, IGNORE
    foreground = np.zeros((height, width), np.uint8)
    foreground[10:, 30:] = 1
    categories = np.where(foreground, 26, np.where(truth == 0, 7, 8)).astype(np.uint8)
    tensors = [torch.from_numpy(one) for one in (foreground, foreground, truth, truth, categories)]
    sample = Sample(torch.zeros(3, height, width, dtype=torch.uint8), *tensors, name="made up")
    predicted = np.ones_like(truth)  # calls everything sidewalk but what lies behind the car
    predicted[10:, 30:] = 2
    errors = Errors()
    errors.add_background(sample, predicted, np.where(np.arange(height) < 10, 20.0, 5.0))
    rows = {(row["region"], row["where"]): row for row in errors.sidewalk_rows("made up")}
    assert rows["hidden", "all"]["recall"] == 0 and rows["hidden", "all"]["as_other"] == 1
    assert (
        rows["hidden", "0-8 m"]["share"] == pytest.approx(100 / (19 * 30)) and rows["hidden", "15-30 m"]["iou"] is None
    )
    assert rows["seen", "all"]["recall"] == 1 and rows["seen", "all"]["of_road"] == pytest.approx(190 / (190 + 470))
    labels = {row["label"]: row for row in errors.label_rows("made up", dict(enumerate(LABELS)))}
    assert labels["road"]["said"] == 1 and set(labels) == {"road", "sidewalk"}
    errors.labels[255] = np.array([4, 2])
    assert [
        row["said"] for row in errors.label_rows("made up", dict(enumerate(LABELS))) if row["label"] == "id 255"
    ] == [0.5]

    mask = np.zeros_like(truth, bool)
    mask[10:, 30:35] = True  # half of the car
    mask[:5, :2] = True  # and a piece of road, a quarter of which nobody knows
    errors.add_mask(sample, mask, {26: "car"})
    (car,) = errors.object_rows("made up")
    assert (car["category"], car["size"], car["recall"], car["share"]) == ("car", "over 1.6 %", 0.5, 1.0)
    assert {row["label"] for row in errors.false_rows("made up", dict(enumerate(LABELS)))} <= {"road", "sidewalk"}


def test_without_a_set_it_asks_for_one(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "--cityscapes, --kitti or --folder" in capsys.readouterr().err


def test_each_kind_of_error_is_painted_where_it_is(tmp_path):
    height, width = 20, 40
    truth = np.ones((height, width), np.uint8)  # sidewalk, a road at the left
    truth[:, :10] = 0
    foreground = np.zeros((height, width), np.uint8)
    foreground[5:, 30:] = 1
    tensors = [torch.from_numpy(one) for one in (foreground, foreground, truth, truth, truth)]
    sample = Sample(torch.zeros(3, height, width, dtype=torch.uint8), *tensors, name="made up")
    called, mask = np.full_like(truth, 2), np.zeros_like(truth, bool)
    called[:, :20], mask[:, :5] = 0, True  # half of the seen sidewalk is called road, a piece of road an object
    errors = error_pictures.errors_of(sample, mask, called, np.where(np.arange(height) < 10, 40.0, 5.0))
    far, _, near, _, small, taken = errors.values()
    assert far.sum() == 5 * 10 and far[5:10, 30:].all()  # behind the object, in the upper half
    assert near.sum() == 10 * 10 and near[10:, 10:20].all()
    assert not small.any()
    assert taken.sum() == 20 * 5


def test_the_picture_shows_what_the_shipped_network_gets_wrong(tmp_path):
    error_pictures.main([str(tmp_path / "errors.jpg"), "--drives", "1", "--frames", "2"])
    picture = cv2.imread(str(tmp_path / "errors.jpg"))
    assert picture.shape[1] == 2 * 512 and picture.shape[0] % (256 + 20) == 0
    with pytest.raises(SystemExit, match="cannot write"):
        error_pictures.main([str(tmp_path / "missing" / "errors.jpg"), "--drives", "1", "--frames", "1"])
