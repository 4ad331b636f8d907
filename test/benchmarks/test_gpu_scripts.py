"""The two commands of a quarter of an hour with a GPU, rehearsed on the CPU at small sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from benchmarks import gpu_checks, mpi, pack_for_gpu
from sfi_ros.network import checkpoint, zoo
from training.configuration import load
from training.data.datasets import Cityscapes, Folder

SCRIPT = Path(pack_for_gpu.__file__).with_name("on_gpu.sh")
IDS = np.array([0, 1, 3, 7, 8, 11, 12, 17, 21, 23, 24, 26, 33, 255], np.uint8)


def image_pair(photo: Path, labels: Path, ids: np.ndarray, seed: int, size: tuple[int, int] = (64, 128)) -> None:
    generator = np.random.default_rng(seed)
    for path in (photo, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(photo), generator.integers(0, 256, (*size, 3), dtype=np.uint8))
    blocks = generator.choice(ids, (size[0] // 8, size[1] // 8))
    cv2.imwrite(str(labels), np.kron(blocks, np.ones((8, 8), np.uint8)))


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """A Cityscapes tree of 12 training and 3 validation images, two of them with manual truth."""
    root = tmp_path / "streets"
    for split, images in (("train", 12), ("val", 3)):
        for number in range(images):
            name = f"aachen_{number:06d}_000019"
            photo = root / "leftImg8bit" / split / "aachen" / f"{name}_leftImg8bit.jpg"
            image_pair(photo, root / "gtFine" / split / "aachen" / f"{name}_gtFine_labelIds.png", IDS, number)
    for number in range(2):
        path = root / "gt_manual" / "val" / "aachen" / f"aachen_{number:06d}_000019_gt_manual.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((128, 256), number, np.uint8))
    return root


@pytest.fixture
def robot(tmp_path: Path) -> Path:
    root = tmp_path / "robot"
    for number in range(6):
        image_pair(
            root / "images" / f"{number}.jpg", root / "labels" / f"{number}.png", np.array([0, 1, 5], np.uint8), number
        )
    (root / "classes.yaml").write_text("background: {road: [0], sidewalk: [], other: [5]}\nforeground: [1]\n")
    return root


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "start.safetensors"
    torch.manual_seed(0)
    checkpoint.save(path, zoo.build("fast-mobilenetv2"), input_height=64)
    return path


def packed(tmp_path: Path, streets: Path, robot: Path, weights: Path, *words: str) -> Path:
    pack = tmp_path / "pack"
    command = [str(pack), "--train", f"streets={streets}:0.5", f"robot={robot}:0.5", "--validation", str(streets)]
    pack_for_gpu.main([*command, "--weights", str(weights), *words])
    return pack


def test_a_pack_trains_like_what_it_was_made_from(tmp_path: Path, streets: Path, robot: Path, weights: Path) -> None:
    pack = packed(tmp_path, streets, robot, weights)
    for original, small in (
        (Cityscapes(streets, "train", 64, manual=False), Cityscapes(pack / "streets", "train", 64, manual=False)),
        (Folder(robot, 64), Folder(pack / "robot", 64)),
        (Cityscapes(streets, "val", 64), Cityscapes(pack / "validation", "val", 64)),
    ):
        assert len(small) == len(original)
        for index in range(len(small)):
            before, after = original[index], small[index]
            assert after.name == before.name and torch.equal(after.image, before.image)
            assert torch.equal(after.foreground, before.foreground)
            assert torch.equal(after.partial_background, before.partial_background)
            assert torch.equal(after.categories[after.foreground > 0], before.categories[before.foreground > 0])
            if before.true_background is not None:
                assert torch.equal(after.true_background, before.true_background)
    half = checkpoint.load(pack / "weights" / weights.name)
    for before, after in zip(checkpoint.load(weights).network.parameters(), half.network.parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-3, rtol=1e-3)
    configuration = load(pack / "train.yaml")
    assert set(configuration.data.train) == {"streets", "robot", "synthetic"}
    assert Path(configuration.network.start_from or "") == pack / "weights" / weights.name


def test_a_pack_keeps_its_limit_and_is_spread_over_the_set(
    tmp_path: Path, streets: Path, robot: Path, weights: Path
) -> None:
    whole = packed(tmp_path, streets, robot, weights)
    files = {path: path.stat().st_size for path in whole.rglob("*") if path.is_file()}
    photos = sum(size for path, size in files.items() if path.suffix == ".jpg" and "validation" not in path.parts)
    limit = (sum(files.values()) - photos / 2) / pack_for_gpu.MEBIBYTE
    half = packed(tmp_path, streets, robot, weights, "--max-mib", str(limit))  # in the place of the first
    assert (
        sum(path.stat().st_size for path in half.rglob("*") if path.is_file()) <= limit * pack_for_gpu.MEBIBYTE + 4096
    )
    kept = [int(path.name[7:13]) for path in (half / "streets").rglob("*_leftImg8bit.jpg")]
    assert 3 <= len(kept) < 12
    assert len(Cityscapes(half / "validation", "val", 64)) == 2  # whole, whatever the limit
    assert min(kept) < 4 and max(kept) >= 8


def test_a_pack_replaces_no_other_folder(tmp_path: Path, streets: Path, robot: Path, weights: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "thesis.tex").write_text("years of work")
    with pytest.raises(SystemExit, match="holds other files than a pack"):
        packed(tmp_path, streets, robot, weights)
    assert (tmp_path / "pack" / "thesis.tex").read_text() == "years of work"


def test_pure_packages_travel_and_compiled_ones_do_not(
    tmp_path: Path, streets: Path, robot: Path, weights: Path
) -> None:
    pack = packed(tmp_path, streets, robot, weights, "--packages", "rich")
    child = [sys.executable, "-S", "-c", "import rich; print(rich.__file__)"]
    found = subprocess.run(child, env={"PYTHONPATH": str(pack / "site")}, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(pack))
    with pytest.raises(SystemExit, match="numpy holds compiled code"):
        packed(tmp_path, streets, robot, weights, "--packages", "numpy")
    with pytest.raises(SystemExit, match="no_such_package is not installed"):
        packed(tmp_path, streets, robot, weights, "--packages", "no_such_package")


def run_script(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHON": sys.executable, "DEVICE": "cpu", **environment}
    return subprocess.run(["bash", str(SCRIPT), *map(str, words)], env=variables, capture_output=True, text=True)


def test_the_first_command_prints_every_table(tmp_path: Path) -> None:
    child = run_script(tmp_path, "checks", "mpi", "engine", "cameras", LIMIT="280")
    assert child.returncode == 0, child.stdout + child.stderr
    for title in ("Checks on", "MPI on", "Engine, host image", "Cameras, host image"):
        assert title in child.stdout
    for name in ("checks", "mpi", "engine", "cameras"):
        assert json.loads((tmp_path / f"{name}.json").read_text())["tables"][-1]["rows"]


def test_what_was_measured_when_time_runs_out_is_kept(tmp_path: Path) -> None:
    child = run_script(tmp_path, "machine", "mpi", LIMIT="0")
    assert child.returncode == 1
    assert "not started" in child.stdout and "failed or out of time: machine mpi" in child.stdout


def test_rows_are_written_as_they_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, path = mpi.measure, tmp_path / "mpi.json"

    def stopped_at_the_third(*arguments):
        if path.exists() and len(json.loads(path.read_text())["tables"][0]["rows"]) == 2:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(mpi, "measure", stopped_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        mpi.main(["--sizes", "8x8x8", "--repeats", "1", "--json", str(path)])
    assert len(json.loads(path.read_text())["tables"][0]["rows"]) == 2


def test_a_check_that_fails_is_named_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> str:
        raise AssertionError("12 of 100 values differ")

    monkeypatch.setattr(gpu_checks, "checks", lambda *_: iter([("first", broken), ("second", lambda: "all equal")]))
    assert gpu_checks.main(["--device", "cpu"]) == 1
    printed = capsys.readouterr().out
    assert "FAILED" in printed and "12 of 100 values differ" in printed
    assert "passed" in printed and "all equal" in printed


def test_the_checks_see_a_wrong_value(monkeypatch: pytest.MonkeyPatch) -> None:
    fill = gpu_checks.mpi.max_pool_inpaint
    monkeypatch.setattr(
        gpu_checks.mpi, "max_pool_inpaint", lambda *a, **k: fill(*a, **k).index_fill(2, torch.tensor(0), 7.0)
    )
    with pytest.raises(AssertionError, match="values differ"):
        gpu_checks.mpi_is_exact(torch.device("cpu"), torch.float32)


def test_the_second_command_trains_from_a_pack(tmp_path: Path, streets: Path, robot: Path, weights: Path) -> None:
    pack = packed(tmp_path, streets, robot, weights)
    tree = yaml.safe_load((pack / "train.yaml").read_text())
    tree["network"]["input_height"], tree["augmentation"]["crop"] = 32, [32, 64]
    tree["data"] |= {"batch_size": 2, "workers": 0}
    del tree["data"]["train"]["synthetic"]
    (pack / "train.yaml").write_text(yaml.safe_dump(tree))
    child = run_script(tmp_path / "out", "train", pack, "0.2")
    assert child.returncode == 0, child.stdout + child.stderr
    assert checkpoint.load(tmp_path / "out" / "model.safetensors").metadata.input_height == 32
