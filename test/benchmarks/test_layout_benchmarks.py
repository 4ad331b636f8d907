"""The scripts that measure the ground layout, on very little."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks import layout, layout_behind, layout_confidence, layout_exactness
from sfi_ros.geometry.ground import GroundGrid


def test_the_table_is_timed_beside_ray_by_ray() -> None:
    row = layout.measure((320, 180), GroundGrid(resolution=0.5), repeats=1)
    assert row["table_ms"] > 0 and row["rays_ms"] > 0 and row["cells"] > 500


def test_layouts_of_the_true_background_are_those_of_the_street(tmp_path: Path) -> None:
    json_file = tmp_path / "exactness.json"
    options = ["--sizes", "512x256", "--pitch", "0,1", "--streets", "1", "--frames", "1"]
    layout_exactness.main([*options, "--json", str(json_file)])
    rows = json.loads(json_file.read_text(encoding="utf-8"))["tables"][0]["rows"]
    scores = {(row["pitch"], row["metres"]): row["road_iou"] for row in rows}
    assert scores["+0°", "0-20"] > 0.97 and scores["+0°", "0-40"] > 0.95
    assert scores["+1°", "0-20"] < scores["+0°", "0-20"]


def test_use_is_told_by_region_distance_and_method(tmp_path: Path) -> None:
    json_file = tmp_path / "behind.json"
    layout_behind.main(["--streets", "1", "--frames", "1", "--json", str(json_file)])
    rows = json.loads(json_file.read_text(encoding="utf-8"))["tables"][0]["rows"]
    recalls = {(row["region"], row["metres"], row["method"]): row["recall"] for row in rows}
    assert recalls["hidden", "4-20", "this network"] > recalls["hidden", "4-20", "black"]
    assert recalls["seen", "4-20", "this network"] > 0.8


def test_nearest_and_black_change_what_is_hidden_only() -> None:
    foreground = np.zeros((6, 8), np.uint8)
    foreground[2:5, 3:6] = 1
    background = np.repeat(np.array([[0, 0, 0, 2, 2, 2, 1, 1]], np.uint8), 6, axis=0)
    filled = layout_behind.backgrounds(foreground, background)
    assert (filled["black"][foreground == 1] == 255).all()
    assert filled["nearest"][3, 3] == 0 and filled["nearest"][3, 5] == 1
    for other in filled.values():
        assert np.array_equal(other[foreground == 0], background[foreground == 0])


def test_a_regression_finds_the_weights_that_made_the_data() -> None:
    rng = np.random.default_rng(0)
    features = np.stack([np.ones(20_000), rng.normal(size=20_000), rng.normal(size=20_000)], axis=1)
    made = np.array([0.5, 1.2, -0.4])
    right = rng.random(20_000) < 1 / (1 + np.exp(-features @ made))
    assert np.abs(layout_confidence.fit(features, right) - made).max() < 0.1
    upwards = rng.random(20_000) < 1 / (1 + np.exp(-features @ np.array([0.5, 1.2, 0.4])))
    assert layout_confidence.fit(features, upwards)[2] == 0
