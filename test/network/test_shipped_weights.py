"""Weights by name, and the hashes of the files that ship."""

import hashlib
import subprocess

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sfi_ros.cli import main
from sfi_ros.errors import MissingFileError
from sfi_ros.inference import DEFAULT_WEIGHTS, InferenceEngine
from sfi_ros.network import checkpoint, zoo
from sfi_ros.network import shipped_weights as weights
from sfi_ros.network.shipped_weights import CHECKSUMS, DEFAULT_EXPORT, find_weights, shipped_files
from sfi_ros.synthetic import SyntheticStreet


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A package in whose folder `small.safetensors` lies, and whose list also has `large.safetensors`."""
    (tmp_path / "small.safetensors").write_bytes(b"small")
    sums = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("small", "large")}
    (tmp_path / "SHA256SUMS").write_text("".join(f"{sum}  {name}.safetensors\n" for name, sum in sums.items()))
    monkeypatch.setattr(weights, "_FOLDER", tmp_path)
    monkeypatch.setattr(weights, "CHECKSUMS", tmp_path / "SHA256SUMS")
    return tmp_path


def test_the_hashes_are_those_of_the_files_that_ship():
    folder = CHECKSUMS.parent
    assert {file.path for file in shipped_files()} == {*folder.glob("*.safetensors"), *folder.glob("*.onnx")}
    assert {file.state() for file in shipped_files()} == {"ok"}, "run `make weights`, and commit what it wrote"
    subprocess.run(["sha256sum", "--check", "--strict", CHECKSUMS.name], cwd=folder, check=True)


@pytest.mark.parametrize(("name", "gflop"), [("default", 6), ("quality", 40)])
def test_weights_cost_no_more_than_their_name_says(name, gflop):
    metadata = checkpoint.load(find_weights(name)).metadata
    with torch.device("meta"):
        network = zoo.build(metadata.name, **{**metadata.options, "fill": "zero"}).eval()
        image = torch.zeros(1, 3, metadata.input_height, 2 * metadata.input_height)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    assert 0.5 * gflop < counter.get_total_flops() / 1e9 < gflop


@pytest.mark.parametrize("name", ["default", "quality"])
def test_weights_know_a_street_that_they_have_not_seen(name):
    frame = SyntheticStreet(seed=2_000_000, width=512, height=256).frame(30)
    scene = InferenceEngine.load(name, device="cpu")(frame.image)
    assert (scene.foreground == frame.foreground).mean() > 0.97


def test_files_of_the_wheel_are_small():
    assert max(file.path.stat().st_size for file in shipped_files()) <= 10e6


def test_weights_are_called_by_name(monkeypatch):
    assert find_weights(None) == find_weights("default") == DEFAULT_WEIGHTS
    monkeypatch.setattr(weights, "has_pytorch", lambda: False)
    assert find_weights(None) == find_weights("default") == DEFAULT_EXPORT
    monkeypatch.undo()
    assert InferenceEngine.load("default", device="cpu").weights_name == "default.safetensors"


def test_paths_stay_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("mine.safetensors", "default.onnx", "folder/default"):
        assert str(find_weights(path)) == path
    (tmp_path / "default").mkdir()
    assert find_weights("default") == DEFAULT_WEIGHTS, "a folder of this name is none"
    (tmp_path / "default").rmdir()
    (tmp_path / "default").write_bytes(b"a file of this name")
    assert str(find_weights("default")) == "default"


def test_unknown_and_missing_names_are_said(shipped, capsys):
    with pytest.raises(
        MissingFileError, match="there are no weights smal: no such file, and what ships is small, large"
    ):
        find_weights("smal")
    with pytest.raises(MissingFileError, match="the weights large are not part of this installation"):
        find_weights("large")
    assert main(["run", "synthetic", "-o", str(shipped / "out"), "--weights", "large"]) == 1
    assert "the weights large are not part of this installation" in capsys.readouterr().err


def test_the_list_shows_what_is_wrong(shipped, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["weights"]) == 0, "not everything needs to be installed"
    assert states(capsys.readouterr().out) == {"small": "ok", "large": "missing"}
    (shipped / "small.safetensors").write_bytes(b"another")
    assert main(["weights"]) == 1
    assert states(capsys.readouterr().out) == {"small": "changed", "large": "missing"}


def test_a_missing_list_is_said(shipped, capsys):
    (shipped / "SHA256SUMS").unlink()
    assert main(["weights"]) == 1
    said = capsys.readouterr().err.replace("\n", "")
    assert "the list of the weights that ship is missing" in said and "SHA256SUMS" in said


def states(printed):
    rows = [[cell.strip() for cell in line.split("│")] for line in printed.splitlines() if line.startswith("│")]
    return {row[1]: row[-2] for row in rows}
