"""Images, folders, videos and the synthetic street as sources of frames."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from sfi_ros.frames.sources import UNSEEN_SEED, Frame, SourceError, Unreadable, open_source


def picture(value: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    image = np.zeros((*size, 3), dtype=np.uint8)
    image[..., 2] = value  # red, in OpenCV's order
    return image


def write_video(path, frames: int = 7, rate: float = 12.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, (64, 48))
    for number in range(frames):
        writer.write(picture(30 * (number % 8)))
    writer.release()
    return path


def test_image_is_read_as_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture(200))
    source = open_source(tmp_path / "a.png")
    (frame,) = source
    assert isinstance(frame, Frame)
    assert frame.name == "a"
    assert source.length == 1
    assert frame.image[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_grey_and_16_bit_images_become_8_bit_rgb(tmp_path, depth):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8), np.iinfo(depth).max // 2, dtype=depth))
    (frame,) = open_source(tmp_path / "a.png")
    assert frame.image.shape == (8, 8, 3)
    assert frame.image.dtype == np.uint8
    assert 126 <= frame.image[0, 0, 1] <= 128


def test_folder_is_sorted_and_reports_what_it_cannot_read(tmp_path):
    for name in ("b.png", "a.jpg", "c.png"):
        cv2.imwrite(str(tmp_path / name), picture(100))
    (tmp_path / "b.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("ignored")
    source = open_source(tmp_path)
    first, second, third = source
    assert source.length == 3
    assert (first.name, third.name) == ("a", "c")
    assert isinstance(second, Unreadable)
    assert second.name.endswith("b.png")
    assert [type(frame) for frame in source] == [Frame, Unreadable, Frame]  # a second time, too


def test_equal_stems_do_not_collide(tmp_path):
    for name in ("a.png", "a.jpg", "b.png"):
        cv2.imwrite(str(tmp_path / name), picture(100))
    assert [frame.name for frame in open_source(tmp_path)] == ["a.jpg", "a.png", "b"]


def test_video(tmp_path):
    source = open_source(write_video(tmp_path / "drive.avi"))
    frames = list(source)
    assert source.rate == pytest.approx(12)
    assert source.length == len(frames) == 7
    assert [frame.name for frame in frames] == [f"frame_{number:06d}" for number in range(7)]
    assert frames[6].image[..., 0].mean() == pytest.approx(180, abs=8)


def test_truncated_video_gives_what_is_there_and_says_so(tmp_path):
    whole = write_video(tmp_path / "whole.avi", frames=40).read_bytes()
    path = tmp_path / "half.avi"
    path.write_bytes(whole[: len(whole) // 2])
    frames = list(open_source(path))
    assert isinstance(frames[0], Frame)
    assert len([frame for frame in frames if isinstance(frame, Frame)]) < 40


def test_the_street_that_is_shown_was_never_trained_on():
    seeds = pytest.importorskip("training.data.datasets.synthetic").SPLIT_SEEDS
    assert seeds["test"] == UNSEEN_SEED


def test_synthetic_street_has_truth_and_no_end():
    source = open_source("synthetic", seed=3)
    frames = list(itertools.islice(source, 2))
    assert source.length is None
    assert np.array_equal(frames[1].image, frames[1].truth.image)
    assert not np.array_equal(frames[0].image, next(iter(open_source("synthetic", seed=4))).image)


def test_sources_that_give_nothing_are_errors(tmp_path):
    with pytest.raises(SourceError, match="does not exist; a source is an image, a folder, a video or 'synthetic'"):
        open_source(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no image"):
        open_source(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(SourceError, match="neither an image"):
        open_source(tmp_path / "notes.txt")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(SourceError, match="not a video that OpenCV can decode"):
        open_source(tmp_path / "broken.mp4")
