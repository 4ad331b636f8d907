"""16-bit images of cameras with fewer bits, from files and recordings, through `sfi`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed (pip install sfi_ros[ros])")

from offline_harness import tree
from ros_bags import START, STORE, read_bag
from rosbags.rosbag2 import StoragePlugin, Writer

pytest_plugins = ["offline_harness"]

IMAGE = "sensor_msgs/msg/Image"


def pictures() -> list[np.ndarray]:
    """Twelve bits of each value."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 4096, (64, 96, 3), np.uint16) for _ in range(2)]


def write_files(folder: Path, shift: int) -> Path:
    folder.mkdir()
    for number, picture in enumerate(pictures()):
        cv2.imwrite(str(folder / f"{number}.png"), picture << shift)
    return folder


def write_recording(path: Path, shift: int) -> Path:
    types = STORE.types
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/front/image_raw", IMAGE, typestore=STORE)
        for number, picture in enumerate(pictures()):
            stamp = types["builtin_interfaces/msg/Time"](sec=number + 1, nanosec=0)
            header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="front")
            data = (picture << shift).astype("<u2").reshape(-1).view(np.uint8)
            message = types[IMAGE](header, 64, 96, "bgr16", 0, 96 * 6, data)
            writer.write(connection, START + number, STORE.serialize_cdr(message, IMAGE))
    return path


@pytest.mark.parametrize(
    ("command", "write"), [("run", write_files), ("run", write_recording), ("bag", write_recording)]
)
def test_bits_that_a_camera_does_not_have(tmp_path, sfi, capsys, command, write):
    low, high = write(tmp_path / "low", 0), write(tmp_path / "high", 4)

    def results(out: str):
        if command == "run":
            return tree(tmp_path / out)
        return {
            topic: [message.data.tolist() for _, message in found] for topic, found in images(tmp_path / out).items()
        }

    assert sfi(command, high, "-o", tmp_path / "right") == 0
    assert "bits of each value" not in capsys.readouterr().err
    assert sfi(command, low, "-o", tmp_path / "same", "--significant-bits", 12) == 0
    assert "bits of each value" not in capsys.readouterr().err
    assert results("same") == results("right")
    assert sfi(command, low, "-o", tmp_path / "dark") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "use 12 bits of each value and reach only 6.25 % of white" in said and "--significant-bits" in said
    assert said.count("bits of each value") == 1
    assert str(low) in said.replace(" ", "")
    assert results("dark") != results("right")
    assert sfi(command, low, "-o", tmp_path / "same") == 1
    assert "significant bits: 12 then, 16 now" in capsys.readouterr().err


def images(bag: Path) -> dict[str, list]:
    return {topic: messages for topic, messages in read_bag(bag).items() if "label_info" not in topic}


@pytest.mark.parametrize("bits", ["7", "17", "twelve", "-1", "12.0"])
def test_wrong_numbers_of_bits_are_refused(sfi, tmp_path, capsys, bits):
    with pytest.raises(SystemExit):
        sfi("run", "synthetic", "-o", tmp_path, f"--significant-bits={bits}")
    assert f"must be 8 to 16, not {bits}" in capsys.readouterr().err
