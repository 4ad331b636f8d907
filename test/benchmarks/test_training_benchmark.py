"""The training benchmark runs, on its own street or on a recipe's data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import ROOT

from benchmarks import training as benchmark

TINY = (
    "network.name=paper-resnet18",
    "network.input_height=32",
    "augmentation={}",
    "data.train.street={dataset: synthetic, drives: 1, frames: 4}",
)


def test_the_script_measures_all_loops(tmp_path: Path) -> None:
    file = tmp_path / "training.json"
    quickstart = str(ROOT / "config/training/quickstart.yaml")
    options = ["--device", "cpu", "--batch", "2", "--steps", "1", "--json", str(file)]
    benchmark.main(["--config", quickstart, *options, *TINY])
    (table,) = json.loads(file.read_text())["tables"]
    rows = table["rows"]
    assert [row["loop"].split(",")[0] for row in rows] == ["released", "ours", "ours"]
    for row in rows:
        assert row["images_per_second"] == pytest.approx(2e3 / row["step_ms"]) and 0 <= row["waiting"] <= 1
        assert row["against_released"] == pytest.approx(row["images_per_second"] / rows[0]["images_per_second"])
        assert row["gpu_busy"] is None and row["precision"] == "float32"


def test_the_street_that_is_written_is_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.data.datasets import Cityscapes

    monkeypatch.setattr(benchmark, "PHOTO_SIZE", (128, 64))
    monkeypatch.setattr(benchmark, "PHOTOS", 2)
    benchmark.write_street(tmp_path)
    dataset = Cityscapes(tmp_path, "train", height=32)
    assert len(dataset) == 2
    assert {0, 1, 2} >= set(dataset[0].partial_background.unique().tolist()) - {255} != set()
    assert dataset[0].image.float().std() > 10
