"""`sfi` as a person calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch
from conftest import shared

from sfi_ros.cli import main
from sfi_ros.network import checkpoint, zoo
from sfi_ros.network.released import _their_name
from sfi_ros.offline import engine_options
from sfi_ros.offline import run as run_module


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoint.save(path, zoo.build("fast-mobilenetv2"), input_height=64, training_data="none", scores={"x": 0.5})
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "camera"
    path.mkdir()
    generator = np.random.default_rng(0)
    for number in range(4):
        cv2.imwrite(str(path / f"{number}.png"), generator.integers(0, 255, (60, 90, 3), dtype=np.uint8))
    return path


def run(source, out, weights, *options: str) -> int:
    return main(["run", str(source), "-o", str(out), "--weights", str(weights), "--device", "cpu", *options])


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folder(tmp_path, folder, weights):
    (folder / "2.png").write_bytes(b"damaged")
    out = tmp_path / "out"
    assert run(folder, out, weights) == 0
    assert names(out / "foreground") == names(out / "background") == ["0.png", "1.png", "3.png"]
    assert names(out / "overlay") == ["0.jpg", "1.jpg", "3.jpg"]
    mask = cv2.imread(str(out / "foreground" / "0.png"), cv2.IMREAD_UNCHANGED)
    classes = cv2.imread(str(out / "background" / "0.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == classes.shape == (60, 90)
    assert set(np.unique(mask)) <= {0, 255}
    assert set(np.unique(classes)) <= {0, 1, 2}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == 3
    assert summary["skipped"] == [str(folder / "2.png")]
    assert summary["weights"] == "small.safetensors"
    assert summary["device"] == "cpu"
    assert summary["latency_ms"]["p50"] <= summary["latency_ms"]["p95"]
    assert summary["frames_per_second"] > 0
    assert "all_region_miou" not in summary  # nobody knows the truth behind a camera
    video = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 3
    assert video.read()[1].shape == (60, 90, 3)


def test_network_size_and_limit(tmp_path, folder, weights):
    out = tmp_path / "out"
    assert run(folder, out, weights, "--size", "network", "--limit", "2") == 0
    assert names(out / "foreground") == ["0.png", "1.png"]
    assert cv2.imread(str(out / "foreground" / "0.png")).shape == (64, 96, 3)
    assert cv2.imread(str(out / "overlay" / "0.jpg")).shape == (64, 96, 3)


def test_synthetic_street_is_scored(tmp_path, weights):
    out = tmp_path / "out"
    assert run("synthetic", out, weights, "--limit", "3") == 0
    summary = json.loads((out / "summary.json").read_text())
    for score in ("all_region_miou", "foreground_region_miou", "foreground_mask_iou"):
        assert 0 <= summary[score] <= 1
    assert cv2.imread(str(out / "comparison" / "frame_000000.png")) is not None


@pytest.mark.parametrize(("cores", "usual", "expected"), [(8, 8, 7), (1, 1, 1), (8, 1, 1), (4, 16, 3)])
def test_a_core_is_left_to_reading_and_writing(monkeypatch, cores, usual, expected):
    monkeypatch.setattr(engine_options, "available_cores", lambda: cores)
    monkeypatch.setattr(engine_options, "usual_threads", lambda: usual)
    assert engine_options._network_threads() == expected


def test_images_of_different_sizes(tmp_path, folder, weights):
    cv2.imwrite(str(folder / "9.png"), np.zeros((100, 80, 3), np.uint8))
    out = tmp_path / "out"
    assert run(folder, out, weights) == 0
    assert cv2.imread(str(out / "foreground" / "9.png")).shape == (100, 80, 3)
    assert int(cv2.VideoCapture(str(out / "overlay.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)) == 5


def test_results_of_an_earlier_run_are_replaced_and_nothing_else(tmp_path, folder, weights, capsys):
    out = tmp_path / "out"
    assert run(folder, out, weights) == 0
    assert run(folder, out, weights, "--limit", "1", "--overwrite") == 0
    assert names(out / "foreground") == ["0.png"]
    assert run(folder, tmp_path / "camera", weights) == 1
    assert "holds other files" in capsys.readouterr().err
    assert len(names(folder)) == 4


def test_nothing_readable_is_an_error(tmp_path, weights, capsys):
    folder = tmp_path / "camera"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"damaged")
    assert run(folder, tmp_path / "out", weights) == 1
    assert "gave no readable frame (1 unreadable)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("absent", [], "absent does not exist"),
        ("synthetic", ["--weights", "absent.safetensors"], "absent.safetensors do not exist"),
        ("synthetic", ["--device", "cuda:77"], "'cuda:77' was asked for"),
    ],
)
def test_errors_name_the_thing(tmp_path, weights, capsys, source, options, message):
    assert run(source, tmp_path / "out", weights, *options) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error:")  # no bar where nothing has begun


def test_ctrl_c_leaves_what_was_written_readable(tmp_path, weights):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sfi_ros.cli", "run", "synthetic", "-o", str(out), "--weights", str(weights)]
    process = subprocess.Popen([*command, "--limit", "100000"], stderr=subprocess.PIPE, env=os.environ.copy())
    deadline = time.monotonic() + 120
    while not (out / "overlay").is_dir() or len(names(out / "overlay")) < 3:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error.decode()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["interrupted"]
    assert summary["frames"] >= 3
    assert int(cv2.VideoCapture(str(out / "overlay.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)) == summary["frames"]
    assert cv2.imread(str(out / "foreground" / "frame_000000.png")) is not None


def test_info(weights, capsys):
    assert main(["info", str(weights), "--json"]) == 0
    metadata = json.loads(capsys.readouterr().out)
    assert metadata["name"] == "fast-mobilenetv2"
    assert metadata["input_height"] == 64
    assert metadata["scores"] == {"x": 0.5}
    assert main(["info", str(weights)]) == 0
    assert "fast-mobilenetv2" in capsys.readouterr().out


def test_info_prints_markup_and_control_characters_as_they_are(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    torch.manual_seed(0)
    path = tmp_path / "[red]x\x1b[31m.safetensors"
    note, extra = "[bold]mine[/b] [link=file:///etc]here[/x]", {"[/y]": "[blink]"}
    checkpoint.save(path, zoo.build("fast-mobilenetv2"), training_data=note, scores={}, extra=extra)
    assert main(["info", str(path)]) == 0
    said = capsys.readouterr().out
    assert note in said and json.dumps(extra) in said
    assert "[red]x\\x1b[31m" in said and "\x1b" not in said


def test_convert(tmp_path, capsys):
    torch.manual_seed(0)
    network = zoo.build("paper-resnet18-shared")
    renamed = {_their_name(name, network.name): value for name, value in network.state_dict().items()}
    torch.save({"epoch": 1, "state_dict_G": renamed, "optimizer_G": {}, "scheduler_G": {}}, tmp_path / "net.pth.tar")
    out = tmp_path / "net.safetensors"
    assert main(["convert", str(tmp_path / "net.pth.tar"), str(out)]) == 0
    loaded = checkpoint.load(out)
    assert loaded.network.name == "paper-resnet18-shared"
    assert torch.equal(
        loaded.network.state_dict()["late.layer4.0.conv1.weight"], renamed["feats.layer4.0.conv1.weight"]
    )
    assert main(["convert", str(out), str(tmp_path / "again.safetensors")]) == 1
    assert "is a .safetensors file already" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "net.pth.tar"), str(out / "net.safetensors")]) == 1
    assert f"error: {out} cannot be written: " in capsys.readouterr().err


def test_real_clip(tmp_path, weights):
    out = tmp_path / "out"
    assert run(shared("data/clips/aachen_05"), out, weights, "--limit", "2") == 0
    assert len(names(out / "background")) == 2


def test_bag_in_bag_out(tmp_path, weights, capsys):
    pytest.importorskip("rosbags")
    from ros_bags import write_bag

    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(3)]
    bag = write_bag(tmp_path / "drive", pictures)
    out = tmp_path / "results"
    assert main(["bag", str(bag), str(out), "--weights", str(weights), "--device", "cpu", "--limit", "2"]) == 0
    assert "2 images of" in capsys.readouterr().err
    assert (out / "metadata.yaml").is_file()
    assert main(["bag", str(bag), str(out), "--weights", str(weights), "--device", "cpu"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert run(bag, tmp_path / "pictures", weights) == 0
    assert len(names(tmp_path / "pictures" / "foreground")) == 3


def test_a_new_output_is_written_by_name(tmp_path, folder, weights, capsys):
    out = tmp_path / "out"
    assert run(folder, out, weights, "--outputs", "background_evidence,background_color,background") == 0
    assert names(out / "background_evidence") == ["0.png", "1.png", "2.png", "3.png"]
    assert names(out / "background_color") == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    mask, classes, evidence = (
        cv2.imread(str(out / name / "0.png"), cv2.IMREAD_UNCHANGED)
        for name in ("foreground", "background", "background_evidence")
    )
    np.testing.assert_array_equal(evidence, classes + 3 * (mask > 0))
    with pytest.raises(SystemExit):
        run(folder, out, weights, "--outputs", "depth")
    assert "unknown output 'depth'; outputs are foreground_mask, " in capsys.readouterr().err


def test_options_that_are_gone_or_misplaced_say_what_to_do(tmp_path, folder, weights, capsys, monkeypatch):
    for options, message in (
        (["--shard", "1/2"], "--shard is gone: --ray shares the work"),
        (["--shard=1/2"], "--shard is gone: --ray shares the work"),
        (["--threads", "two"], "--threads: must be a whole number of at least 1, not two"),
        (["--limit", "0"], "--limit: must be a whole number of at least 1, not 0"),
        (["--ray", str(folder)], "without one put --ray behind the sources"),
    ):
        with pytest.raises(SystemExit):
            run(folder, tmp_path / "out", weights, *options)
        assert message in capsys.readouterr().err
    for command in (["--camera", "height=1.5"], ["--rectified"], ["--grid", "0,30,-12,12,0.4"]):
        assert run(folder, tmp_path / "out", weights, *command) == 1
        assert "without --layout" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(folder, tmp_path / "out", weights) == 1
    assert "torchrun starts processes that would all do the same work" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_defect_keeps_its_traceback(tmp_path, folder, weights, monkeypatch, capsys):
    """What a user can mend is one line. Anything else is shown whole, and does not keep other sources from theirs."""
    monkeypatch.setattr(engine_options.EngineOptions, "weights_digest", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(folder, tmp_path / "out", weights)
    monkeypatch.undo()
    opened = run_module.open_source

    def fails_for_the_folder(source, **options):
        if source == str(folder):
            raise KeyError("a defect")
        return opened(source, **options)

    monkeypatch.setattr(run_module, "open_source", fails_for_the_folder)
    with pytest.raises(KeyError):
        run(folder, tmp_path / "out", weights)
    arguments = ["run", str(folder), "synthetic", "-o", str(tmp_path / "out"), "--weights", str(weights)]
    assert main([*arguments, "--device", "cpu", "--limit", "1"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "KeyError: 'a defect'" in said
    assert names(tmp_path / "out" / "synthetic" / "foreground") == ["frame_000000.png"]
