"""`sfi run`: what is killed goes on, what does not belong together is not mixed, and nothing is lost unsaid."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import weights_telling_kinds
from offline_harness import count, random_weights, tree, write_photos, write_video

from sfi_ros.offline.summary import RunSummary

pytest_plugins = ["offline_harness"]


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_same_command_goes_on_after_a_signal(tmp_path, sfi, sfi_process, number):
    video = write_video(tmp_path / "drive.mp4", 150)
    assert sfi("run", video, "-o", tmp_path / "whole") == 0
    out = tmp_path / "out"
    process = sfi_process("run", video, "-o", out)
    process.wait_until(lambda: count(out / "foreground") >= 5)
    status, said = process.end(number)
    if number == signal.SIGKILL:
        assert not (out / "overlay.mp4").exists(), "a video without its end cannot be read"
    else:
        assert status == 128 + number
        assert "interrupted" in said and "the same command goes on" in said
        stopped = summary(out)
        assert stopped["interrupted"] and stopped["frames"] >= 5
        frames = int(cv2.VideoCapture(str(out / "overlay.mp4")).get(cv2.CAP_PROP_FRAME_COUNT))
        assert frames == stopped["frames"] == count(out / "overlay")
    for picture in (out / "overlay").glob("*.jpg"):
        assert cv2.imread(str(picture)) is not None
    assert count(out / "overlay") < 150, "it was not interrupted in the middle"
    assert sfi("run", video, "-o", out) == 0
    assert tree(out) == tree(tmp_path / "whole")
    assert not summary(out)["interrupted"]
    assert summary(out)["resumed"] >= 5
    once, resumed = summary(tmp_path / "whole"), summary(out)
    for fact in ("frames", "skipped", "source", "mean_foreground_share", "weights", "network", "precision"):
        assert once[fact] == resumed[fact], fact


def test_scores_of_a_resumed_run_are_those_of_one(tmp_path, sfi, sfi_process):
    assert sfi("run", "synthetic", "-o", tmp_path / "whole", "--limit", 12) == 0
    out = tmp_path / "out"
    process = sfi_process("run", "synthetic", "-o", out, "--limit", 12)
    process.wait_until(lambda: count(out / "foreground") >= 2)
    process.end(signal.SIGKILL)
    assert sfi("run", "synthetic", "-o", out, "--limit", 12) == 0
    assert tree(out) == tree(tmp_path / "whole")
    assert count(out / "comparison") == 2
    for score in ("all_region_miou", "foreground_region_miou", "foreground_mask_iou"):
        assert summary(out)[score] == summary(tmp_path / "whole")[score]


def test_kinds_of_objects_where_the_weights_tell_them(tmp_path, sfi, photos, capsys):
    out = tmp_path / "out"
    assert sfi("run", photos, "-o", out, "--outputs", "foreground_classes") == 1
    assert "small.safetensors tells no kinds of objects" in capsys.readouterr().err and not out.exists()
    weights = weights_telling_kinds()
    assert sfi("run", photos, "-o", out, "--outputs", "foreground_classes", weights=weights) == 0
    for path in (out / "foreground").iterdir():
        mask, classes = (cv2.imread(str(out / name / path.name), -1) for name in ("foreground", "foreground_classes"))
        assert np.array_equal(mask > 0, classes > 0) and classes.max() <= 3


def test_what_is_finished_is_not_done_again(tmp_path, sfi, photos, capsys):
    out = tmp_path / "out"
    assert sfi("run", photos, "-o", out) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert sfi("run", photos, "-o", out) == 0
    assert "is there already, 6 frames" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize("lost", ["foreground/c.png", "overlay/c.jpg", "overlay.mp4", "summary.json", "background"])
def test_what_is_missing_of_a_finished_run_is_done(tmp_path, sfi, photos, lost):
    out = tmp_path / "out"
    assert sfi("run", photos, "-o", out) == 0
    before = tree(out)
    shutil.rmtree(out / lost) if lost == "background" else (out / lost).unlink()
    assert sfi("run", photos, "-o", out) == 0
    assert tree(out) == before
    assert summary(out)["resumed"] == {"foreground/c.png": 5, "overlay/c.jpg": 5, "background": 0}.get(lost, 6)


def test_a_damaged_result_is_done_again(tmp_path, sfi, photos):
    out = tmp_path / "out"
    assert sfi("run", photos, "-o", out) == 0
    before = tree(out)
    (out / "foreground" / "a.png").write_bytes(b"")  # as after a power failure
    (out / "background" / "c.png").write_bytes(before["background/c.png"][:40])
    (out / "summary.json").unlink()
    assert sfi("run", photos, "-o", out) == 0
    assert tree(out) == before


def test_results_of_other_settings_are_not_mixed(tmp_path, sfi, photos, capsys):
    out = tmp_path / "out"
    assert sfi("run", photos, "-o", out) == 0
    before = tree(out)

    def refused(*arguments: object, because: str, **weights: Path) -> None:
        assert sfi("run", *arguments, "-o", out, **weights) == 1
        said = capsys.readouterr().err
        assert because in said and "--overwrite" in said and str(out) in said
        assert tree(out) == before

    refused(photos, "--limit", 2, because="limit: none then, 2 now")
    refused(photos, "--size", "network", because="size: input then, network now")
    refused(photos, "--input-height", 96, because="input height: 64 then, 96 now")
    refused(photos, because="weights: small", weights=random_weights(tmp_path / "small2.safetensors", 1))
    refused(write_photos(tmp_path / "other", 1), because="source: ")
    os.utime(photos / "a.png")
    refused(photos, because="files of the source: 7 files")
    (out / "notes.txt").write_text("mine")
    assert sfi("run", photos, "-o", out, "--limit", 2, "--overwrite") == 0
    assert sorted(path.name for path in (out / "foreground").iterdir()) == ["a.png", "b.jpg.png"]
    assert summary(out)["resumed"] == 0
    assert (out / "notes.txt").read_text() == "mine"


def test_results_of_an_earlier_version_are_replaced_only_when_asked(tmp_path, sfi, photos, capsys):
    out = tmp_path / "out"
    assert sfi("run", photos, "-o", out) == 0
    (out / "run.json").unlink()
    assert sfi("run", photos, "-o", out) == 1
    assert "of an earlier version" in capsys.readouterr().err
    assert sfi("run", photos, "-o", out, "--overwrite") == 0


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["results", "link", "nested", "output-link", "folder-of-links", "results-are-a-link"])
def test_a_run_never_writes_into_its_source(tmp_path, sfi, photos, capsys, kind, overwrite):
    out = tmp_path / "out"
    assert sfi("run", photos, "-o", out) == 0
    output, source = out, out / "overlay"
    if kind == "link":
        source = tmp_path / "link"
        source.symlink_to(out / "overlay")
    elif kind == "nested":
        source = write_photos(out / "overlay" / "mine" / "more", 2)
    elif kind == "output-link":
        output = tmp_path / "link"
        output.symlink_to(out)
    elif kind == "folder-of-links":
        source = tmp_path / "best"
        source.mkdir()
        (source / "1.jpg").symlink_to(out / "overlay" / "a.jpg")
    elif kind == "results-are-a-link":
        source = write_photos(tmp_path / "mine", 2)
        shutil.rmtree(out / "overlay")
        (out / "overlay").symlink_to(source)
    before = tree(out) | tree(source)
    assert sfi("run", source, "-o", output, *["--overwrite"] * overwrite) == 1
    said = capsys.readouterr().err
    assert "where its results would go" in said and str(source) in said
    assert tree(out) | tree(source) == before


def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path, sfi, sfi_process):
    """A limit for the size of files stands for the disk: pictures fit, the video does not."""
    video = write_video(tmp_path / "drive.mp4", 80, size=(96, 128))
    assert sfi("run", video, "-o", tmp_path / "whole") == 0
    largest = max(path.stat().st_size for path in (tmp_path / "whole" / "overlay").iterdir())
    assert largest < 60_000 < (tmp_path / "whole" / "overlay.mp4").stat().st_size
    out = tmp_path / "out"
    for size, named in ((1000, str(out / "overlay" / "frame_0000")), (60_000, str(out / "overlay.mp4"))):
        process = sfi_process("run", video, "-o", out, largest_file=size)
        status, said = process.end()
        assert status == 1
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        assert len(errors) == 1 and named in errors[0] and "cannot be written" in errors[0]
        assert "Traceback" not in said
        assert not (out / "overlay.mp4").exists()
        assert not [path for path in out.rglob("*") if ".partial" in path.name]
    assert sfi("run", video, "-o", out) == 0
    assert tree(out) == tree(tmp_path / "whole")
    assert summary(out)["resumed"] > 0


def test_a_file_system_without_room(tmp_path, sfi, photos, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.decode().strip()}")
    try:
        assert sfi("run", write_photos(tmp_path / "many", 12), "-o", disk / "out") == 1
        said = capsys.readouterr().err
        assert f"{disk}/out" in said and "No space left on device" in said
        assert not [path for path in disk.rglob("*") if ".partial" in path.name]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_leftovers_of_a_killed_process_are_cleared_away(tmp_path, sfi, photos):
    out = tmp_path / "out"
    assert sfi("run", photos, "-o", out) == 0
    before = tree(out)
    for place in (out, out / "overlay", out / "foreground"):
        (place / ".0123456789abcdef.partial.png").write_bytes(b"half")
    (out / "summary.json").unlink()
    assert sfi("run", photos, "-o", out) == 0
    assert tree(out) == before


def test_a_killed_process_that_wrote_nothing_is_no_obstacle(tmp_path, sfi, photos):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".0123456789abcdef.partial.json").write_bytes(b"{")
    assert sfi("run", photos, "-o", out) == 0


def test_one_source_that_fails_does_not_keep_the_others_from_being_done(tmp_path, sfi, photos, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    more = write_photos(tmp_path / "more", 2)
    assert sfi("run", broken, photos, tmp_path / "absent", empty, more, "-o", tmp_path / "out") == 1
    said = capsys.readouterr().err
    for name in (str(broken), str(tmp_path / "absent"), str(empty)):
        assert f"error: {name}" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if (path / "summary.json").is_file()) == [
        "camera",
        "more",
    ]


@pytest.mark.parametrize("name", ["[front]", "x[/b]", "[red]x", ":car:", "a\x1b[31mb", "new\nline", "$HOME", "#1 & 2"])
def test_names_are_printed_as_they_are(tmp_path, sfi, capsys, name):
    folder = write_photos(tmp_path / name, 1)
    (folder / "a.png").write_bytes(b"no image")
    assert sfi("run", folder, "-o", tmp_path / f"out {name}") == 0
    said = capsys.readouterr().err
    shown = str(folder).replace("\x1b", "\\x1b")
    assert f"skipped {shown}/a.png: " in said
    assert f"results in {tmp_path}/out {name}".replace("\x1b", "\\x1b") in said
    assert sfi("run", f"{folder}/missing [rear].mp4", "-o", tmp_path / "c") == 1
    assert "missing [rear].mp4 does not exist" in capsys.readouterr().err


def test_a_link_that_leads_to_itself_costs_itself_only(tmp_path, sfi, photos, capsys):
    (photos / "loop.png").symlink_to("loop.png")
    assert sfi("run", photos, "-o", tmp_path / "out") == 0
    assert f"skipped {photos / 'loop.png'}: " in capsys.readouterr().err
    assert str(photos / "loop.png") in summary(tmp_path / "out")["skipped"]
    assert summary(tmp_path / "out")["frames"] == 6
    assert sfi("run", photos / "loop.png", "-o", tmp_path / "other") == 1
    assert "loop.png" in capsys.readouterr().err


def test_a_frame_that_the_engine_refuses_is_skipped_by_name(tmp_path, sfi, capsys):
    folder = write_photos(tmp_path / "camera", 3)
    cv2.imwrite(str(folder / "0001.png"), np.zeros((20, 400, 3), np.uint8))
    out = tmp_path / "out"
    assert sfi("run", folder, "-o", out) == 0
    assert f"skipped {folder / '0001.png'}: " in (said := capsys.readouterr().err) and "its sides differ" in said
    assert sorted(path.name for path in (out / "foreground").iterdir()) == ["0000.png", "0002.png"]
    assert summary(out)["skipped"] == [str(folder / "0001.png")]
    assert "its sides differ" in summary(out)["reasons"][0]


def test_a_summary_is_read_as_it_was_written(tmp_path, sfi):
    assert sfi("run", "synthetic", "-o", tmp_path, "--limit", 1) == 0
    read = RunSummary.read(tmp_path)
    assert read is not None and read.to_dict() == summary(tmp_path)
    assert set(read.scores) == {"all_region_miou", "foreground_region_miou", "foreground_mask_iou"}
    (tmp_path / "summary.json").write_text('{"made_by": "sfi run"}')
    assert RunSummary.read(tmp_path) is None
