"""`sfi` runs exported networks where PyTorch cannot be imported, and says what is missing for all else."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx_models import declared, model, written
from without_pytorch import run_without_pytorch

from sfi_ros.inference import DEFAULT_WEIGHTS, InferenceEngine
from sfi_ros.network import shipped_weights as weights
from sfi_ros.synthetic import SyntheticStreet

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

SFI = """
from sfi_ros.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def exported(tmp_path) -> Path:
    return written(declared(model()), tmp_path / "small.onnx", record={"max_side": 512})


def test_sfi_run(exported, tmp_path):
    command = ("run", "synthetic", "-o", "out", "--weights", exported, "--limit", 2, "--input-height", 32)
    result = run_without_pytorch(SFI, *command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["frames"], summary["device"], summary["precision"]) == (2, "cpu", "float32")
    assert summary["backend"] == "onnxruntime"
    classes = cv2.imread(str(tmp_path / "out" / "background" / "frame_000000.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(classes)) <= {0, 1, 2}
    assert classes.any()


def test_sfi_bag(exported, tmp_path):
    pytest.importorskip("rosbags", reason="rosbags is not installed (pip install sfi_ros[ros])")
    from ros_bags import write_bag

    street = SyntheticStreet(seed=1, width=96, height=64)
    bag = write_bag(tmp_path / "drive", [street.frame(number).image for number in range(2)])
    command = ("bag", bag, "results", "--weights", exported, "--input-height", 32)
    result = run_without_pytorch(SFI, *command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "results" / "metadata.yaml").is_file()


def test_sfi_info(exported, tmp_path):
    result = run_without_pytorch(SFI, "info", exported, "--json", cwd=tmp_path)
    assert json.loads(result.stdout)["exported"]["weights"] == "w.safetensors", result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("run", "synthetic", "-o", "out", "--weights", "net.safetensors"),
        ("info", DEFAULT_WEIGHTS),
        ("convert", "net.pth.tar", "net.safetensors"),
        ("export", DEFAULT_WEIGHTS, "-o", "net.onnx"),
    ],
)
def test_what_needs_pytorch_says_so_in_one_line(command, tmp_path):
    (tmp_path / "net.safetensors").touch()
    result = run_without_pytorch(SFI, *command, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "needs PyTorch, which is not installed: pip install 'sfi_ros[torch]'" in result.stderr
    assert result.stderr.strip().count("\n") == 0


@pytest.mark.parametrize("name", sorted({file.name for file in weights.shipped_files()}))
def test_the_exported_weights_that_ship_are_those_of_the_checkpoint(name):
    files = (DEFAULT_WEIGHTS.with_name(name + suffix) for suffix in (".safetensors", ".onnx"))
    checkpoint, export = (InferenceEngine.load(file, precision="float32") for file in files)
    assert export.metadata == checkpoint.metadata
    image = SyntheticStreet(seed=3, width=512, height=256).frame(5).image
    expected, scene = checkpoint(image), export(image)
    for plane in ("foreground", "background"):
        assert (getattr(scene, plane) == getattr(expected, plane)).mean() > 0.999


def test_default_weights_without_pytorch_are_the_exported_ones(tmp_path, monkeypatch):
    export = tmp_path / "default.onnx"
    monkeypatch.setattr(weights, "DEFAULT_EXPORT", export)
    monkeypatch.setattr(weights, "has_pytorch", lambda: False)
    assert weights.default_weights() == DEFAULT_WEIGHTS, "what is named in the error where there is none"
    export.touch()
    assert weights.default_weights() == export
    monkeypatch.setattr(weights, "has_pytorch", lambda: True)
    assert weights.default_weights() == DEFAULT_WEIGHTS
