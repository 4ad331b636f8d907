"""Images, folders, videos and the synthetic street as sources of frames."""

from __future__ import annotations

import itertools
import os
import zlib

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


# Folders and names


def named(items) -> list[str]:
    return [item.name for item in items if isinstance(item, Frame)]


def write_image(path, value: int = 100) -> None:
    path.write_bytes(cv2.imencode(path.suffix, picture(value))[1].tobytes())


def test_numbers_in_names_are_in_order_of_their_value(tmp_path):
    for number in (1, 2, 10, 9, 100, 20):
        write_image(tmp_path / f"img{number}.png")
    for name in ("img10b.png", "img2.5.png", "007.png", "7.png", "a.png"):
        write_image(tmp_path / name)
    found = named(open_source(tmp_path))
    assert [name for name in found if name.startswith("img") and name[3:].isdigit()] == [
        f"img{number}" for number in (1, 2, 9, 10, 20, 100)
    ]
    assert found.index("img10b") == found.index("img10") + 1
    assert len(found) == 11


def test_names_that_mean_something_elsewhere(tmp_path):
    names = [
        "12:30:05.png",
        "-o.png",
        "--help.png",
        "[red]a.png",
        "x[.png",
        "100%d.png",
        "a b.png",
        "é.png",
        "日本.png",
        "$HOME.png",
    ]
    for name in names:
        write_image(tmp_path / name)
    assert sorted(named(open_source(tmp_path))) == sorted(name.removesuffix(".png") for name in names)
    for name in names:
        assert named(open_source(tmp_path / name)) == [name.removesuffix(".png")]


def test_names_that_are_not_utf8(tmp_path):
    """With which OpenCV's own functions end the process."""
    for name in (b"caf\xe9.png", b"\xff\xfe.jpg", b"caf\xe9.jpg"):
        write_image(tmp_path / os.fsdecode(name))
    (tmp_path / os.fsdecode(b"bad\xe9.png")).write_bytes(b"no image")
    items = list(open_source(tmp_path))
    assert sorted(named(items)) == ["\\xff\\xfe", "caf\\xe9.jpg", "caf\\xe9.png"]
    (bad,) = (item for item in items if isinstance(item, Unreadable))
    assert bad.name.endswith("bad\\xe9.png")
    for item in items:
        item.name.encode()  # can be printed, and be the name of a file
    video = tmp_path / os.fsdecode(b"vid\xe9o.avi")
    write_video(tmp_path / "video.avi").rename(video)
    assert len(named(open_source(video))) == 7
    video.write_bytes(b"no video")
    with pytest.raises(SourceError, match=r"vid\\xe9o.avi is not a video"):
        open_source(video)


def test_names_of_frames_are_unique(tmp_path):
    for name in ("a.png", "a.jpg", "a.png.png", "a.JPG.jpg", "b.tiff", "b.tif"):
        write_image(tmp_path / name)
    found = named(open_source(tmp_path))
    assert len(set(found)) == len(found) == 6


def test_what_is_no_image_is_left_out_and_what_should_be_one_is_missed(tmp_path):
    write_image(tmp_path / "good.png")
    (tmp_path / "link.png").symlink_to("good.png")
    (tmp_path / "broken.png").symlink_to("nowhere.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "to_folder.png").symlink_to("folder.png")
    (tmp_path / "._good.png").write_bytes(b"\0\5\x16\7" + bytes(120))
    (tmp_path / ".hidden.jpg").write_bytes(b"")
    (tmp_path / "empty.png").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.png")
    items = list(open_source(tmp_path))
    assert named(items) == ["good", "link"]
    reasons = {item.name.rsplit("/", 1)[1]: item.reason for item in items if isinstance(item, Unreadable)}
    assert reasons == {
        "broken.png": "a link to nowhere.png, which does not exist",
        "empty.png": "it is empty",
        "pipe.png": "it is no regular file",
    }


def test_a_file_that_goes_away_meanwhile_is_missed(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / name)
    items = []
    for item in open_source(tmp_path):
        items.append(item)
        (tmp_path / "b.png").unlink(missing_ok=True)
    assert named(items) == ["a", "c"]
    assert items[1].reason == "it is gone"


def test_a_file_far_larger_than_any_image_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    (item,) = open_source(tmp_path)
    assert "1100 GB" in item.reason


def test_bad_items_of_every_kind_stand_in_their_place(tmp_path):
    data = bytearray(cv2.imencode(".png", picture(1))[1].tobytes())
    truncated = cv2.imencode(".jpg", picture(1))[1].tobytes()[:-10]
    huge = bytes(data[:16]) + bytes([0, 0, 0xEA, 0x60] * 2) + bytes(data[24:29])
    huge += zlib.crc32(huge[12:]).to_bytes(4, "big") + bytes(data[33:])
    data[-30] ^= 1
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    bad = {"1.png": bytes(data), "3.jpg": truncated, "5.png": huge, "7.png": pointer, "9.webp": b"\0" * 50}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    for number in (0, 2, 4, 6, 8, 10):
        write_image(tmp_path / f"{number}.png")
    items = list(open_source(tmp_path))
    assert [isinstance(item, Frame) for item in items] == [True, False] * 5 + [True]
    for item, words in zip(
        items[1::2], ("checksum", "truncated", "60000x60000", "git lfs pull", "no image format"), strict=True
    ):
        assert words in item.reason


@pytest.mark.parametrize("kind", ["images", "video", "street"])
def test_parts_are_named_as_in_the_whole(tmp_path, kind):
    if kind == "images":
        for number in range(9):
            write_image(tmp_path / f"{number}.png", 25 * number)
        (tmp_path / "4.png").write_bytes(b"")
    source = open_source({"images": tmp_path, "video": write_video(tmp_path / "a.avi", 9), "street": "synthetic"}[kind])
    whole = list(itertools.islice(source, 9))
    for start, stop in ((0, 3), (2, 7), (5, 9)):
        part = source.part(start, stop)
        items = list(part)
        assert part.length == stop - start
        assert [item.name for item in items] == [item.name for item in whole[start:stop]]
        for item, expected in zip(items, whole[start:stop], strict=True):
            if isinstance(item, Frame):
                np.testing.assert_array_equal(item.image, expected.image)
    assert [item.name for item in source.part(2, 8).part(1, 3)] == [item.name for item in whole[3:5]]
    if kind != "street":
        assert [item.name for item in source.part(6)] == [item.name for item in whole[6:]]


# Videos


@pytest.mark.parametrize("name", ["12:30.avi", "http:x.avi", "-x.avi", "100%02d.avi", "[rear].avi", "a b.avi", "é.avi"])
def test_videos_of_any_name(tmp_path, name, monkeypatch):
    write_video(tmp_path / "plain.avi").rename(tmp_path / name)
    assert len(named(open_source(tmp_path / name))) == 7
    monkeypatch.chdir(tmp_path)
    assert len(named(open_source(name))) == 7


def announcing(monkeypatch, lie: int, value: float) -> None:
    """Let every video say something of itself that is not so."""
    real = cv2.VideoCapture

    class Capture:
        def __init__(self, name):
            self._real = real(name)

        def __getattr__(self, name):
            return getattr(self._real, name)

        def get(self, what):
            return value if what == lie else self._real.get(what)

    monkeypatch.setattr(cv2, "VideoCapture", Capture)


@pytest.mark.parametrize("announced", [0, 3, 1000, 2**31 - 1])
def test_the_length_that_a_video_announces_is_not_believed(tmp_path, announced, monkeypatch):
    path = write_video(tmp_path / "drive.avi", frames=20)
    announcing(monkeypatch, cv2.CAP_PROP_FRAME_COUNT, float(announced))
    source = open_source(path)
    items = list(source)
    assert len(named(items)) == 20
    assert source.length == (announced or None if announced < 2**31 else None)
    assert [item.reason for item in items[20:]] == (
        [f"the video ends here, but announces {announced} frames: it was cut, or is damaged"] if announced > 20 else []
    )


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), 90000.0])
def test_a_rate_that_cannot_be_is_not_believed(tmp_path, rate, monkeypatch):
    path = write_video(tmp_path / "drive.avi")
    announcing(monkeypatch, cv2.CAP_PROP_FPS, rate)
    source = open_source(path)
    assert source.rate == 25
    assert source.length is None
    assert len(named(source)) == 7


def test_a_video_that_was_cut_says_so(tmp_path):
    whole = write_video(tmp_path / "whole.avi", frames=40).read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) // 2])
    *frames, end = open_source(tmp_path / "half.avi")
    assert all(isinstance(frame, Frame) for frame in frames)
    assert isinstance(end, Unreadable)
    assert end.name == f"{tmp_path}/half.avi frame {len(frames)}"
    assert "announces 40 frames" in end.reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "Git LFS pointer; run `git lfs pull`"),
        (b"no video", "convert it with ffmpeg"),
    ],
)
def test_what_is_no_video_says_what_it_may_be(tmp_path, content, reason):
    (tmp_path / "drive.mp4").write_bytes(content)
    with pytest.raises(SourceError, match=f"drive.mp4 is not a video that OpenCV can decode: .*{reason}"):
        open_source(tmp_path / "drive.mp4")


# What is no source


def test_paths_that_are_nothing_are_errors(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(SourceError, match="link is a link to nowhere, which does not exist"):
        open_source(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(SourceError, match=r"pipe.png is neither a file nor a folder"):
        open_source(tmp_path / "pipe.png")
    above = tmp_path / "above"
    (above / "images").mkdir(parents=True)
    write_image(above / "images" / "a.png")
    with pytest.raises(SourceError, match=r"above holds no image .* and no recording"):
        open_source(above)
    with pytest.raises(SourceError, match=r"missing \[rear\].mp4 does not exist"):
        open_source("missing [rear].mp4")
