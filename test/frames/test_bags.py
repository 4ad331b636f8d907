"""Recordings as sources: every storage, what is damaged in them, and what they say about themselves that is not so."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed (pip install sfi_ros[ros])")

import bag_files
from bag_files import ROS2, START, STEP, TOPIC, compressed_message, image_message, pictures, storage_file, write
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer

from sfi_ros.frames.bag_storage import BagError, is_bag
from sfi_ros.frames.bags import BagSource
from sfi_ros.frames.sources import Frame, SourceError, Unreadable, open_source

STORAGES = ("sqlite3", "mcap")


def read(source) -> tuple[list[Frame], list[Unreadable]]:
    items = list(source)
    assert len({item.name for item in items if isinstance(item, Frame)}) == sum(isinstance(i, Frame) for i in items)
    return [i for i in items if isinstance(i, Frame)], [i for i in items if isinstance(i, Unreadable)]


def check(source, expected) -> None:
    """Give exactly these images, twice."""
    for _ in range(2):
        frames, unreadable = read(source)
        assert not unreadable
        assert len(frames) == source.length == len(expected)
        for frame, picture in zip(frames, expected, strict=True):
            np.testing.assert_array_equal(frame.image, picture)
            assert frame.image.flags.writeable


# What a recording is


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("compression", [None, CompressionMode.FILE, CompressionMode.MESSAGE])
def test_folder_with_metadata(tmp_path, storage, compression):
    if (storage, compression) == ("mcap", CompressionMode.MESSAGE):
        pytest.skip("rosbags does not write it")
    source = open_source(write(tmp_path / "bag", pictures(5), storage=storage, compression=compression))
    assert source.rate == pytest.approx(10)
    check(source, pictures(5))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("compression", [None, CompressionMode.FILE])
def test_storage_file_alone(tmp_path, storage, compression):
    file = storage_file(write(tmp_path / "bag", pictures(4), storage=storage, compression=compression))
    moved = shutil.move(file, tmp_path / file.name)
    assert is_bag(moved)
    check(open_source(moved), pictures(4))


@pytest.mark.parametrize("storage", STORAGES)
def test_folder_without_metadata(tmp_path, storage):
    bag = write(tmp_path / "bag", pictures(4), storage=storage)
    (bag / "metadata.yaml").unlink()
    assert is_bag(bag)
    check(open_source(bag), pictures(4))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_recording_of_several_files(tmp_path, storage):
    """Whose names sort wrongly as text, and one of which is damaged."""
    folder = tmp_path / "drive"
    folder.mkdir()
    parts = [write(tmp_path / f"part{n}", pictures(12)[n : n + 1], storage=storage, first=n) for n in range(12)]
    for number, part in enumerate(parts):
        file = storage_file(part)
        shutil.move(file, folder / f"drive_{number}{file.suffix}")
    check(open_source(folder), pictures(12))
    damaged = folder / f"drive_11{file.suffix}"
    damaged.write_bytes(damaged.read_bytes()[:100])  # the one that was open when power was cut
    frames, unreadable = read(open_source(folder))
    assert len(frames) == 11
    (lost,) = unreadable
    assert lost.name == str(damaged)
    assert "cannot be read as a bag" in lost.reason


def test_separate_recordings_in_one_folder_are_not_mixed(tmp_path):
    folder = tmp_path / "drives"
    folder.mkdir()
    for name in ("a", "b"):
        shutil.move(storage_file(write(tmp_path / name, pictures(3))), folder / f"{name}.db3")
    with pytest.raises(SourceError, match=r"holds several recordings: name one, such as .*a\.db3"):
        open_source(folder)


def test_images_beside_a_recording_are_not_overlooked(tmp_path):
    bag = write(tmp_path / "bag", pictures(3))
    (bag / "notes.png").write_bytes(b"")
    check(open_source(bag), pictures(3))  # with its metadata.yaml the folder is a bag
    (bag / "metadata.yaml").unlink()
    with pytest.raises(SourceError, match=r"holds images as well as a recording: name bag.db3"):
        open_source(bag)


def test_a_metadata_yaml_does_not_make_a_folder_of_images_a_recording(tmp_path):
    (tmp_path / "metadata.yaml").write_text("camera: front")
    (tmp_path / "a.png").write_bytes(b"")
    (item,) = open_source(tmp_path)
    assert isinstance(item, Unreadable)


@pytest.mark.parametrize(
    "name", ["100%.db3", "a?b#c.db3", "a:b.mcap", "[front].mcap", "-x.db3", b"caf\xe9.db3", "a b.db3"]
)
def test_any_file_name(tmp_path, name):
    path = tmp_path / (name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name)
    shutil.move(storage_file(write(tmp_path / "bag", pictures(2), storage=path.suffix[1:])), path)
    check(open_source(path), pictures(2))


# What it says about itself


@pytest.mark.parametrize("count", [0, 3, 1000])
def test_counts_of_the_metadata_are_not_believed(tmp_path, count):
    bag = write(tmp_path / "bag", pictures(8))
    metadata = bag / "metadata.yaml"
    lines = metadata.read_text().replace("message_count: 8", f"message_count: {count}")
    assert f"message_count: {count}" in lines
    metadata.write_text(lines)
    check(open_source(bag), pictures(8))


@pytest.mark.parametrize("callers", [("/driver",), ("/camera_1", "/camera_2"), ("/a", "/b", "/c")])
def test_connections_of_one_topic_are_one_camera(tmp_path, callers):
    check(open_source(bag_files.write_ros1(tmp_path / "drive.bag", pictures(6), callers=callers)), pictures(6))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_driver_that_is_restarted_while_ros2_records(tmp_path, storage):
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    with Writer(tmp_path / "bag", version=9, storage_plugin=plugin) as writer:
        connection = writer.add_connection(TOPIC, bag_files.IMAGE, typestore=ROS2)
        other = writer.add_connection(TOPIC, bag_files.IMAGE, typestore=ROS2, offered_qos_profiles=[_qos()])
        for number, picture in enumerate(pictures(6)):
            data = ROS2.serialize_cdr(image_message(ROS2, picture, START + number), bag_files.IMAGE)
            writer.write(connection if number < 4 else other, START + number * STEP, data)
    check(open_source(tmp_path / "bag"), pictures(6))


def _qos():
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    zero = QosTime(0, 0)
    return Qos(
        QosHistory.KEEP_LAST, 5, QosReliability.BEST_EFFORT, QosDurability.VOLATILE, zero, zero,
        QosLiveliness.AUTOMATIC, zero, False,
    )  # fmt: skip


@pytest.mark.parametrize("stamps", [[0] * 5, [7 * 10**9] * 5, [START, 0, START, 0, 3]])
def test_names_are_unique_whatever_the_stamps(tmp_path, stamps):
    frames, _ = read(open_source(write(tmp_path / "bag", pictures(5), stamps=stamps)))
    assert len(frames) == 5


def test_names_are_stamps_where_there_are_any(tmp_path):
    frames, _ = read(open_source(write(tmp_path / "bag", pictures(3), stamps=[5, 0, 5])))
    assert [frame.name for frame in frames] == ["5", str(START + STEP), "5_2"]


# What is damaged


def sql(bag: Path, statement: str) -> None:
    connection = sqlite3.connect(storage_file(bag))
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE messages SET data = substr(data, 1, 100) WHERE id = 4",
        "UPDATE messages SET data = substr(data, 1, 3) WHERE id = 4",
        "UPDATE messages SET data = x'' WHERE id = 4",
        "UPDATE messages SET data = randomblob(500) WHERE id = 4",
        "UPDATE messages SET data = CAST(x'28b52ffd' || randomblob(90) AS BLOB) WHERE id = 4",
        "UPDATE messages SET data = CAST(data || zeroblob(9) AS BLOB) WHERE id = 4",
        "UPDATE messages SET data = 'text' WHERE id = 4",
    ],
)
def test_one_damaged_message(tmp_path, statement):
    bag = write(tmp_path / "bag", pictures(8))
    sql(bag, statement)
    items = list(open_source(bag))
    assert len(items) == 8
    assert isinstance(items[3], Unreadable) or "zeroblob" in statement  # padding behind a message is harmless
    assert all(isinstance(item, Frame) for item in items[:3] + items[4:])
    if isinstance(items[3], Unreadable):
        assert items[3].name == f"image 4 of {TOPIC} in {bag}"


def test_a_damaged_image_in_a_good_message(tmp_path):
    images = pictures(3)
    with Writer(tmp_path / "bag", version=9) as writer:
        connection = writer.add_connection(TOPIC, "sensor_msgs/msg/CompressedImage", typestore=ROS2)
        for number, picture in enumerate(images):
            message = compressed_message(ROS2, picture, START + number)
            if number == 1:
                message.data[-20] ^= 1
            writer.write(connection, START + number * STEP, ROS2.serialize_cdr(message, message.__msgtype__))
    first, second, third = open_source(tmp_path / "bag")
    np.testing.assert_array_equal(first.image, images[0])
    assert isinstance(second, Unreadable)
    assert "checksum" in second.reason
    np.testing.assert_array_equal(third.image, images[2])


@pytest.mark.parametrize("storage", STORAGES)
def test_damage_in_the_middle_of_a_file_costs_what_lies_there(tmp_path, storage):
    small = [np.random.default_rng(n).integers(0, 256, (150, 200, 3), np.uint8) for n in range(24)]
    images = [image.repeat(2, 0).repeat(2, 1) for image in small]
    # Chunks of an MCAP file that are compressed cannot be read when they are damaged; others have wrong pixels.
    compression = CompressionMode.STORAGE if storage == "mcap" else None
    bag = write(tmp_path / "bag", images, storage=storage, compression=compression)
    file = storage_file(bag)
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200000] = bytes(200000)
    file.write_bytes(data)
    frames, unreadable = read(open_source(bag))
    names = [str(START + number * STEP) for number in range(24)]
    assert [frame.name for frame in frames] == [name for name in names if name in {frame.name for frame in frames}]
    assert 12 <= len(frames) < 24
    assert names[0] == frames[0].name
    assert names[-1] == frames[-1].name  # behind the damage it goes on
    assert unreadable


def test_what_is_no_recording_is_said(tmp_path):
    path = tmp_path / "drive.mp4"
    path.write_bytes(b"a video")
    with pytest.raises(BagError, match=r"drive\.mp4 is no recording \(\.bag .*\); `sfi run` takes"):
        BagSource(path)


@pytest.mark.parametrize(
    ("storage", "damage", "message"),
    [
        ("mcap", lambda data: data[: len(data) // 2], "drive.mcap cannot be read as a bag: .*mcap recover"),
        ("sqlite3", lambda data: data[:3000], "drive.db3 cannot be read as a bag: .*ros2 bag reindex"),
        ("sqlite3", lambda data: b"", "drive.db3 cannot be read as a bag: it is empty$"),
        ("mcap", lambda data: b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer; run `git lfs pull`$"),
        ("sqlite3", lambda data: b"not a database" * 100, "drive.db3 cannot be read as a bag: "),
    ],
)
def test_a_recording_that_cannot_be_opened_is_named_with_the_remedy(tmp_path, storage, damage, message):
    file = storage_file(write(tmp_path / "bag", pictures(4), storage=storage))
    path = tmp_path / f"drive{file.suffix}"
    path.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BagError, match=message):
        open_source(path)


def test_a_ros1_recording_that_was_cut_is_named_with_the_remedy(tmp_path):
    path = bag_files.write_ros1(tmp_path / "drive.bag", pictures(4))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BagError, match=r"drive.bag cannot be read as a bag: .*rosbag reindex"):
        open_source(path)


def test_messages_that_lie_in_a_write_ahead_log_are_not_lost_in_silence(tmp_path):
    bag = write(tmp_path / "bag", pictures(2))
    file = storage_file(bag)
    file.with_name(file.name + "-wal").write_bytes(b"messages")
    with pytest.raises(
        BagError, match=r"recorder was killed, and messages are still in bag.db3-wal; `sqlite3 bag.db3 .*`"
    ):
        open_source(file)


@pytest.mark.parametrize(
    "content",
    ["", "a: [", "rosbag2_bagfile_information: 7", "- 1", "rosbag2_bagfile_information: {relative_file_paths: []}"],
)
def test_a_damaged_metadata_yaml_is_named_with_the_remedy(tmp_path, content):
    bag = write(tmp_path / "bag", pictures(2))
    (bag / "metadata.yaml").write_text(content)
    with pytest.raises(BagError, match=r"bag cannot be read as a bag: metadata.yaml"):
        open_source(bag)


def test_a_file_that_the_metadata_names_is_missed(tmp_path):
    bag = write(tmp_path / "bag", pictures(2))
    storage_file(bag).unlink()
    with pytest.raises(BagError, match=r"bag.db3, which metadata.yaml names, is missing \(1 of 1 .*ros2 bag reindex"):
        open_source(bag)


# Parts


@pytest.mark.parametrize("stamps", [None, [0] * 9, [4] * 9])
def test_parts_are_named_as_in_the_whole(tmp_path, stamps):
    bag = write(tmp_path / "bag", pictures(9), stamps=stamps)
    sql(bag, "UPDATE messages SET data = substr(data, 1, 100) WHERE id IN (2, 6)")
    source = open_source(bag)
    whole = list(source)
    for start, stop in ((0, 3), (2, 7), (5, None), (8, 30), (9, None)):
        part = source.part(start, stop)
        assert [item.name for item in part] == [item.name for item in whole[start:stop]]
        assert part.length == len(whole[start:stop])
    assert [item.name for item in source.part(2, 8).part(1, 3)] == [item.name for item in whole[3:5]]


def test_a_camera_must_be_chosen_where_there_are_several(tmp_path):
    with Writer(tmp_path / "bag", version=9) as writer:
        for topic in ("/front/image", "/rear/image"):
            connection = writer.add_connection(topic, bag_files.IMAGE, typestore=ROS2)
            message = image_message(ROS2, pictures(1)[0], START)
            writer.write(connection, START, ROS2.serialize_cdr(message, bag_files.IMAGE))
    with pytest.raises(BagError, match=r"2 image topics \(/front/image, /rear/image\); name one .*--topic.*bag_topic"):
        open_source(tmp_path / "bag")
    assert isinstance(open_source(tmp_path / "bag", topic="/rear/image"), BagSource)
    with pytest.raises(BagError, match="no image topic /side"):
        open_source(tmp_path / "bag", topic="/side")
