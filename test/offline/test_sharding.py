"""Several processes give what one gives, whichever of them ends last."""

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
from conftest import ROOT

from sfi_ros.cli import main
from sfi_ros.frames.sources import SourceError
from sfi_ros.network import checkpoint, zoo
from sfi_ros.offline.sharding import Shard, device_of_process, output_folders

TIMES = {"frames_per_second", "latency_ms", "stages_ms_p50", "device", "shards"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights") / "small.safetensors", seed=0)


def random_weights(path: Path, seed: int) -> Path:
    """Of a network that finds foreground somewhere in every image."""
    torch.manual_seed(seed)
    network = zoo.build("fast-mobilenetv2")
    for parameter in network.foreground.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    checkpoint.save(path, network, input_height=64)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven files: two of the same stem, one damaged, one of another size."""
    path = tmp_path / "camera"
    path.mkdir()
    generator = np.random.default_rng(0)
    for number, name in enumerate(("a.png", "b.png", "b.jpg", "c.png", "d.png", "e.png")):
        size = (60, 90, 3) if number != 3 else (80, 70, 3)
        cv2.imwrite(str(path / name), generator.integers(0, 255, size, dtype=np.uint8))
    (path / "bb.png").write_bytes(b"damaged")
    return path


def sfi(*arguments: object) -> int:
    return main([*map(str, arguments), "--device", "cpu"])


def tree(folder: Path) -> dict[str, bytes]:
    """All files but the summary, and the video, which a merged run encodes from the overlays that it has on disk."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".json", ".mp4"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_same_results(one: Path, other: Path) -> None:
    assert tree(one) == tree(other) != {}
    summaries = [json.loads((path / "summary.json").read_text()) for path in (one, other)]
    first, second = ({key: s[key] for key in s.keys() - TIMES} for s in summaries)
    shares = [summary.pop("mean_foreground_share") for summary in (first, second)]
    assert first == second and shares[0] == pytest.approx(shares[1])
    videos = [cv2.VideoCapture(str(path / "overlay.mp4")) for path in (one, other)]
    count, other_count = (int(video.get(cv2.CAP_PROP_FRAME_COUNT)) for video in videos)
    assert count == other_count == summaries[0]["frames"]
    for _ in range(count):
        pictures = [video.read()[1].astype(int) for video in videos]
        assert np.abs(pictures[0] - pictures[1]).mean() < 12


@pytest.mark.parametrize("order", [(1, 2), (2, 1), (3, 1, 2), tuple(range(9, 0, -1))])
def test_shards_of_a_folder_are_one_run(tmp_path: Path, folder: Path, weights: Path, order: tuple[int, ...]) -> None:
    assert sfi("run", folder, "-o", tmp_path / "one", "--weights", weights) == 0
    out = tmp_path / "many"
    for number in order:
        assert not (out / "summary.json").exists(), "nothing is there before all is"
        assert sfi("run", folder, "-o", out, "--weights", weights, "--shard", f"{number}/{len(order)}") == 0
    assert_same_results(tmp_path / "one", out)
    assert set(np.unique(cv2.imread(str(out / "foreground/a.png")))) == {0, 255}
    summary = json.loads((out / "summary.json").read_text())
    assert [part["frames"] for part in summary["shards"]].count(0) == max(0, len(order) - 7) + (len(order) == 9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["camera", "many", "one"], "parts are cleared away"


def test_processes_of_torchrun_share_a_folder(tmp_path: Path, folder: Path, weights: Path) -> None:
    """Two real ones, at the same time, told by RANK and WORLD_SIZE."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "sfi_ros.cli", "run", str(folder), "-o", str(tmp_path / "many"), "--weights", str(weights)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--device", "cpu"], capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sfi("run", folder, "-o", tmp_path / "one", "--weights", weights) == 0
    assert_same_results(tmp_path / "one", tmp_path / "many")


def test_a_shard_that_failed_is_started_again(tmp_path: Path, folder: Path, weights: Path, capsys) -> None:
    """Its partner's results wait for it; parts that do not belong together are not mixed."""
    out, other = tmp_path / "out", random_weights(tmp_path / "other.safetensors", seed=1)
    assert sfi("run", folder, "-o", out, "--weights", weights, "--shard", "1/2") == 0
    assert sfi("run", folder, "-o", out, "--weights", other, "--shard", "2/2") == 1
    assert "made with other settings: delete" in capsys.readouterr().err
    assert sfi("run", folder, "-o", out, "--weights", weights, "--shard", "2/2") == 0
    assert sfi("run", folder, "-o", tmp_path / "one", "--weights", weights) == 0
    assert_same_results(tmp_path / "one", out)


def test_a_folder_of_somebody_else_is_refused_before_anything_is_done(tmp_path: Path, folder: Path, weights: Path):
    assert sfi("run", folder, "-o", folder, "--weights", weights, "--shard", "1/2") == 1
    assert not (tmp_path / "camera.parts").exists()


def test_several_sources_each_get_their_folder(tmp_path: Path, folder: Path, weights: Path, capsys) -> None:
    """Whole sources are dealt out, folders divided; one that fails is named, and the others are done."""
    picture = tmp_path / "single" / "shot.png"
    picture.parent.mkdir()
    cv2.imwrite(str(picture), np.full((40, 60, 3), 90, np.uint8))
    sources = (picture, folder, tmp_path / "absent.mp4", "synthetic")
    options = ("--weights", weights, "--size", "network", "--limit", "3")
    assert sfi("run", *sources, "-o", tmp_path / "one", *options) == 1
    assert "absent.mp4 does not exist" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["camera", "single", "synthetic"]
    statuses = [sfi("run", *sources, "-o", tmp_path / "two", *options, "--shard", f"{n}/2") for n in (1, 2)]
    assert statuses == [1, 0], "the one whose source is absent says so"
    for name in ("camera", "single/shot", "synthetic"):
        assert_same_results(tmp_path / "one" / name, tmp_path / "two" / name)
    assert sfi("run", picture, folder, "-o", tmp_path / "three", "--weights", weights, "--shard", "1/2") == 0
    assert (tmp_path / "three" / "single/shot/summary.json").is_file()
    assert not (tmp_path / "three" / "camera").exists(), "half of the folder is still to be done"


def test_bags_are_dealt_out(tmp_path: Path, weights: Path, capsys) -> None:
    pytest.importorskip("rosbags")
    from ros_bags import write_bag

    generator = np.random.default_rng(0)
    for name in ("monday", "tuesday"):
        pictures = [generator.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(2)]
        write_bag(tmp_path / "in" / name, pictures, storage="mcap")
    bags = sorted((tmp_path / "in").iterdir())
    options = ("--weights", weights)
    assert sfi("bag", *bags, "-o", tmp_path / "one", *options) == 0
    for number in (1, 2):
        assert sfi("bag", *bags, "-o", tmp_path / "two", *options, "--shard", f"{number}/2") == 0
        assert len(list((tmp_path / "two").iterdir())) == number
    messages = [list_messages(tmp_path / out / name) for out in ("one", "two") for name in ("monday", "tuesday")]
    assert messages[0] == messages[2] != messages[1] == messages[3] != []
    capsys.readouterr()
    assert sfi("bag", *bags, "-o", tmp_path / "two", *options) == 0
    assert capsys.readouterr().err.count("is there already") == 2
    assert sfi("bag", *bags, tmp_path / "out", *options) == 1
    assert "sfi bag IN... -o OUT" in capsys.readouterr().err


def list_messages(bag: Path) -> list[tuple[str, int, bytes]]:
    from rosbags.rosbag2 import Reader

    with Reader(bag) as reader:
        return [(connection.topic, at, data) for connection, at, data in reader.messages()]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("length", [0, 1, 7, 100])
def test_shards_take_everything_once(count: int, length: int) -> None:
    shards = [Shard(number, count) for number in range(1, count + 1)]
    files = list(range(length))
    assert [file for shard in shards for file in files[shard.part(length)]] == files
    sizes = [len(files[shard.part(length)]) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    assert all(sum(shard.takes(index) for shard in shards) == 1 for index in files)


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "3/", "a/b", "1/4/5", "-1/4"])
def test_a_wrong_shard_is_explained(text: str, weights: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        sfi("run", "synthetic", "-o", tmp_path / "out", f"--shard={text}")
    assert "such as 3/16" in capsys.readouterr().err


def test_the_environment_says_which_shard_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Shard.of_environment() == Shard(1, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "16")
    assert Shard.of_environment() == Shard.parse("3/16")


def test_every_process_of_a_machine_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert device_of_process("auto") == "auto"
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert device_of_process("auto") == device_of_process("cuda") == "cuda:2"
    assert device_of_process("cpu") == "cpu" and device_of_process("cuda:1") == "cuda:1"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device_of_process("auto") == "auto"


def test_folders_of_several_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for drive in ("day.1", "day.2"):
        (tmp_path / drive / "left").mkdir(parents=True)
    out = Path("out")

    def folders(*sources: str) -> list[str]:
        return [path.as_posix() for path in output_folders([str(tmp_path / source) for source in sources], out)]

    assert folders("day.1/cam.mp4") == ["out"]
    assert folders("day.1/cam.mp4", "day.1/rear.mp4") == ["out/cam", "out/rear"]
    assert folders("day.1/cam.mp4", "day.2/cam.mp4") == ["out/day.1/cam", "out/day.2/cam"]
    assert folders("day.1/cam.mp4", "day.1/cam.avi", "day.1/x.avi") == ["out/cam.mp4", "out/cam.avi", "out/x"]
    assert folders("day.1", "day.2") == ["out/day.1", "out/day.2"], "a folder's name has no suffix"
    monkeypatch.chdir(tmp_path / "day.1")
    assert output_folders(["left", "../day.2/left", "synthetic"], out) == [
        out / "day.1/left",
        out / "day.2/left",
        out / "synthetic",
    ]
    with pytest.raises(SourceError, match=r"day\.2 is given more than once"):
        folders("day.2", "day.2")
    with pytest.raises(SourceError, match=r"the results of .*day\.1 would lie around those of another source"):
        folders("day.1", "day.1/left", "day.2")
