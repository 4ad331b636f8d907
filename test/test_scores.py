"""The numpy scores against a count by hand, and against torchmetrics, with which training counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sfi_ros.geometry.calibration import Calibration, camera_matrix
from sfi_ros.geometry.ground import GroundCamera, GroundGrid
from sfi_ros.geometry.ground_table import GroundTable
from sfi_ros.geometry.layout import INFERRED, OUT_OF_VIEW, GroundLayout, lay_out
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.scores import LayoutScores, RegionScores, class_iou, compare_layouts, iou, mean_iou


def frames(count: int = 4):
    generator = np.random.default_rng(0)
    for _ in range(count):
        truth = generator.choice(np.array([0, 1, 2, 255], dtype=np.uint8), size=(20, 30))
        background = np.where(generator.random((20, 30)) < 0.6, np.minimum(truth, 2), 1).astype(np.uint8)
        true_foreground = (generator.random((20, 30)) < 0.3).astype(np.uint8)
        foreground = np.where(generator.random((20, 30)) < 0.8, true_foreground, 0).astype(np.uint8)
        yield foreground, background, true_foreground, truth


def by_hand(region) -> float:
    """Mean IoU over all frames, pixel by pixel in plain Python; `region` says which pixels count."""
    ious = []
    for number in range(3):
        intersection = union = 0
        for _, background, true_foreground, truth in frames():
            for y in range(20):
                for x in range(30):
                    if truth[y, x] == 255 or not region(true_foreground[y, x]):
                        continue
                    predicted, true = background[y, x] == number, truth[y, x] == number
                    intersection += predicted and true
                    union += predicted or true
        ious.append(intersection / union)
    return sum(ious) / 3


def test_equals_a_count_by_hand():
    scores = RegionScores()
    for frame in frames():
        scores.add(*frame)
    result = scores.compute()
    assert result["all_region_miou"] == pytest.approx(by_hand(lambda _: True))
    assert result["foreground_region_miou"] == pytest.approx(by_hand(lambda foreground: foreground == 1))
    predicted, true = (np.stack([frame[i] for frame in frames()]) for i in (0, 2))
    assert result["foreground_mask_iou"] == pytest.approx((predicted & true).sum() / (predicted | true).sum())


def test_equals_torchmetrics():
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    scores = RegionScores()
    for frame in frames():
        scores.add(*frame)
    background, true_foreground, truth = (
        torch.from_numpy(np.stack([frame[i] for frame in frames()])).long() for i in (1, 2, 3)
    )
    behind = torch.where(true_foreground == 1, truth, 255)
    for name, target in (("all_region_miou", truth), ("foreground_region_miou", behind)):
        expected = metrics.multiclass_jaccard_index(background, target, 3, average="macro", ignore_index=255)
        assert scores.compute()[name] == pytest.approx(float(expected), abs=1e-6)


def test_absent_classes_do_not_count():
    assert mean_iou(np.array([[5, 0, 0], [0, 0, 0], [5, 0, 10]])) == pytest.approx((5 / 10 + 10 / 15) / 2)
    # Predicted, but nowhere in the truth: it costs the class that it was taken for, and has no score of its own.
    assert mean_iou(np.array([[5, 5, 0], [0, 0, 0], [0, 0, 10]])) == pytest.approx((5 / 10 + 10 / 10) / 2)
    assert np.isnan(class_iou(np.array([[5, 5, 0], [0, 0, 0], [0, 0, 10]]))[1])


def test_nothing_counted_is_not_a_number():
    assert all(math.isnan(value) for value in RegionScores().compute().values())


def table_and_layout() -> tuple[GroundTable, GroundLayout, np.ndarray, np.ndarray]:
    """A level camera over road, with sidewalk to the left of y = 2 and an object in the lower middle of its image."""
    camera = GroundCamera.of(Calibration.pinhole(320, 200, camera_matrix(320, 200, 70)), CameraPose(1.5, 0.1))
    table = GroundTable(camera, GroundGrid(0, 20, -8, 8, 0.25), kerb_height=0.0)
    left = camera.ground(np.indices((200, 320))[::-1].reshape(2, -1).T)[:, 1].reshape(200, 320) > 2
    background = np.where(left, 1, 0).astype(np.uint8)
    background[:60] = 2
    background[190:] = 255
    foreground = np.zeros_like(background)
    foreground[100:160, 120:200] = 1
    return table, lay_out(table, foreground, background), foreground, background


def test_a_layout_of_the_truth_scores_one():
    table, layout, foreground, background = table_and_layout()
    comparison = compare_layouts(table, layout, layout, foreground, background)
    scores = LayoutScores()
    scores.add(comparison)
    found = scores.compute()
    assert found["layout_seen_road_iou"] == found["layout_hidden_road_iou"] == found["layout_seen_sidewalk_iou"] == 1
    in_view = layout.evidence != OUT_OF_VIEW
    assert 0 < len(comparison.truth) < in_view.sum(), "unlabeled pixels are left out"
    assert comparison.hidden.sum() == (layout.evidence == INFERRED).sum() > 0


def test_what_is_missing_behind_objects_is_counted_there():
    table, truth, foreground, background = table_and_layout()
    black = lay_out(table, foreground, np.where(foreground, 255, background).astype(np.uint8))
    scores = LayoutScores()
    scores.add(compare_layouts(table, black, truth, foreground, background))
    found = scores.compute()
    assert found["layout_seen_road_iou"] == 1 and found["layout_hidden_road_iou"] == 0


def test_iou_of_counts():
    assert iou(2, 3, 5) == 2 / 6
    assert math.isnan(iou(0, 3, 0)) and math.isnan(LayoutScores().compute()["layout_seen_road_iou"])
