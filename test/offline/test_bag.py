"""`sfi bag`: what goes in comes out inferred, in both storages, and what was killed goes on. No ROS runs here."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed (pip install sfi_ros[ros])")

from conftest import weights_telling_kinds
from offline_harness import tree
from ros_bags import STORE, read_bag, write_bag, write_compressed_bag
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from sfi_ros.errors import OptionError
from sfi_ros.frames.bag_storage import BagError
from sfi_ros.frames.encodings import view
from sfi_ros.inference import InferenceEngine
from sfi_ros.offline import bag as bag_module
from sfi_ros.offline.bag import BagRun
from sfi_ros.offline.recording import _result_topics
from sfi_ros.offline.resume import OutputError
from sfi_ros.offline.task import NothingReadable, Report
from sfi_ros.synthetic import SyntheticStreet

pytest_plugins = ["offline_harness"]

RESULTS = ("foreground_mask", "background", "background_confidence")


@pytest.fixture(scope="module")
def engine(weights):
    return InferenceEngine.load(weights, device="cpu", precision="float32")


@pytest.fixture(scope="module")
def pictures():
    street = SyntheticStreet(seed=4, width=96, height=64)
    return [street.frame(number).image for number in range(3)]


def infer(source, output, engine, report=None, **options):
    return BagRun(str(source), output, **options).infer(engine, report=report)


def messages(bag: Path) -> list[tuple[str, int, bytes]]:
    with Reader(bag) as reader:
        return [(connection.topic, at, data) for connection, at, data in reader.messages()]


def stamp_and_frame(message) -> tuple[int, int, str]:
    return message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_bag_in_is_a_bag_of_scenes_out(tmp_path, engine, pictures, storage):
    bag = write_bag(tmp_path / "in", pictures, storage=storage)
    progress = []
    report = Report(progress=lambda done, total: progress.append((done, total)))
    summary = infer(bag, tmp_path / "out", engine, report, outputs=(*RESULTS, "overlay"))
    assert (list(summary.topics), summary.frames, summary.skipped) == (["/front/image_raw"], 3, [])
    assert progress == [(0, 3), (1, 3), (2, 3), (3, 3)]
    recorded, results = read_bag(bag), read_bag(tmp_path / "out")
    assert set(results) == {f"/front/inpaint/{name}" for name in (*RESULTS, "overlay", "camera_info", "label_info")}
    suffix = {"sqlite3": ".db3", "mcap": ".mcap"}[storage]
    assert [path.name for path in (tmp_path / "out").glob(f"*{suffix}")] == [f"out_0{suffix}"]
    for number, picture in enumerate(pictures):
        at, image = recorded["/front/image_raw"][number]
        scene = engine(picture)
        for name, expected in (
            ("foreground_mask", scene.foreground * 255),
            ("background", scene.background),
            ("background_confidence", scene.confidence),
        ):
            result_at, result = results[f"/front/inpaint/{name}"][number]
            assert result_at == at
            assert result.header.stamp == image.header.stamp
            assert result.header.frame_id == "front"
            np.testing.assert_array_equal(view(result), expected)
        assert view(results["/front/inpaint/overlay"][number][1]).shape == picture.shape


def test_calibrations_have_the_size_of_the_results(tmp_path, engine, pictures):
    bag = write_bag(tmp_path / "in", pictures)
    infer(bag, tmp_path / "same", engine)
    recorded, same = read_bag(bag)["/front/camera_info"], read_bag(tmp_path / "same")["/front/inpaint/camera_info"]
    for (at, info), (result_at, result) in zip(recorded, same, strict=True):
        assert result_at == at and stamp_and_frame(result) == stamp_and_frame(info)
        assert (result.width, result.height) == (96, 64)
        np.testing.assert_array_equal(result.k, info.k)
    engine.output_size = "network"
    try:
        big = [cv2.resize(picture, (192, 128)) for picture in pictures]
        infer(write_bag(tmp_path / "big", big), tmp_path / "small", engine)
    finally:
        engine.output_size = "input"
    results = read_bag(tmp_path / "small")
    for (_, info), (_, mask) in zip(
        results["/front/inpaint/camera_info"], results["/front/inpaint/background"], strict=True
    ):
        assert (info.width, info.height) == (mask.width, mask.height) == (96, 64)
        np.testing.assert_allclose(info.k, [61.5, 0, 96 / 2 - 0.25, 0, 61.5, 64 / 2 - 0.25, 0, 0, 1])


def test_each_image_has_the_calibration_of_its_stamp(tmp_path, engine, pictures):
    """A zoom lens: each image has a focal length of its own, recorded before it or behind it."""
    types, path = STORE.types, tmp_path / "in"
    source = read_bag(write_bag(tmp_path / "plain", pictures))
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        images = writer.add_connection("/front/image_raw", "sensor_msgs/msg/Image", typestore=STORE)
        infos = writer.add_connection("/front/camera_info", "sensor_msgs/msg/CameraInfo", typestore=STORE)
        for number, ((at, image), (_, info)) in enumerate(
            zip(source["/front/image_raw"], source["/front/camera_info"], strict=True)
        ):
            k = np.array(info.k)
            k[0] = 100.0 + number
            info = types["sensor_msgs/msg/CameraInfo"](**{**vars(info), "k": k})
            writer.write(infos, at + (1 if number % 2 else -1), STORE.serialize_cdr(info, "sensor_msgs/msg/CameraInfo"))
            writer.write(images, at, STORE.serialize_cdr(image, "sensor_msgs/msg/Image"))
    infer(path, tmp_path / "out", engine)
    infos = read_bag(tmp_path / "out")["/front/inpaint/camera_info"]
    assert [info.k[0] for _, info in infos] == [100.0, 101.0, 102.0]


def test_a_calibration_of_another_size_is_named_and_left_out(tmp_path, engine, pictures):
    bag = write_bag(tmp_path / "in", pictures, camera_info={"width": 640, "height": 480})
    said = []
    summary = infer(bag, tmp_path / "out", engine, Report(skipped=lambda name, reason: said.append((name, reason))))
    assert summary.frames == 3 and summary.skipped == []
    assert len(said) == 1, "once for each camera"
    assert "/front/camera_info" in said[0][0] and "640x480" in said[0][1]
    assert "/front/inpaint/camera_info" not in read_bag(tmp_path / "out")


def test_what_the_classes_mean_is_written_once(tmp_path, engine, pictures):
    infer(write_bag(tmp_path / "in", pictures), tmp_path / "out", engine, outputs=("background", "background_evidence"))
    results = read_bag(tmp_path / "out")
    [(_, labels)] = results["/front/inpaint/label_info"]
    assert [(item.class_id, item.class_name) for item in labels.class_map] == [
        (0, "road"),
        (1, "sidewalk"),
        (2, "other"),
    ]
    [(_, evidence)] = results["/front/inpaint/background_evidence_label_info"]
    assert len(evidence.class_map) == 6
    with Reader(tmp_path / "out") as reader:
        (connection,) = [each for each in reader.connections if each.topic == "/front/inpaint/label_info"]
        assert connection.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"
        # What ros2's own generator gives for vision_msgs/msg/LabelInfo of vision_msgs 4
        assert connection.digest == "RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783"


def test_kinds_of_objects_where_the_weights_tell_them(tmp_path, engine, pictures):
    bag = write_bag(tmp_path / "in", pictures)
    with pytest.raises(OptionError, match=r"output foreground_classes: small.safetensors tells no kinds of objects"):
        infer(bag, tmp_path / "out", engine, outputs=("foreground_classes",))
    assert not (tmp_path / "out").exists()
    telling = InferenceEngine.load(weights_telling_kinds(), device="cpu", precision="float32", input_height=64)
    infer(bag, tmp_path / "out", telling, outputs=("foreground_classes",))
    results = read_bag(tmp_path / "out")
    [(_, labels)] = results["/front/inpaint/foreground_classes_label_info"]
    names = [(item.class_id, item.class_name) for item in labels.class_map]
    assert names == [(0, "no object"), (1, "person"), (2, "two-wheeler"), (3, "vehicle")]
    for (_, message), picture in zip(results["/front/inpaint/foreground_classes"], pictures, strict=True):
        expected = telling(picture).foreground_classes
        assert np.array_equal(message.data.reshape(expected.shape), expected) and expected.any()


def test_limit(tmp_path, engine, pictures):
    bag = write_bag(tmp_path / "in", pictures)
    assert infer(bag, tmp_path / "out", engine, limit=2).frames == 2
    assert len(read_bag(tmp_path / "out")["/front/inpaint/background"]) == 2


def test_a_damaged_image_is_counted_and_the_rest_inferred(tmp_path, engine, pictures):
    broken = pictures[1].reshape(-1)[:-3].reshape(1, -1, 1)  # three bytes short
    bag = write_bag(tmp_path / "in", [pictures[0], broken, pictures[2]])
    summary = infer(bag, tmp_path / "out", engine)
    assert summary.frames == 2
    assert len(summary.skipped) == 1
    assert "image 2 of /front/image_raw" in summary.skipped[0] and str(bag) in summary.skipped[0]


def test_an_image_that_the_engine_refuses_is_skipped(tmp_path, engine, pictures):
    bag = write_bag(tmp_path / "in", [pictures[0], np.zeros((20, 400, 3), np.uint8), pictures[2]])
    summary = infer(bag, tmp_path / "out", engine)
    assert summary.frames == 2 and "its sides differ" in summary.reasons[0]


def test_a_bag_without_a_readable_image_is_an_error_each_time(tmp_path, engine):
    bag = write_bag(tmp_path / "in", [np.zeros((20, 400, 3), np.uint8)])
    for _ in range(2):
        with pytest.raises(NothingReadable, match=r"in gave no readable image on /front/image_raw \(1 unreadable\)"):
            infer(bag, tmp_path / "out", engine)


def test_several_cameras(tmp_path, engine, pictures):
    bag = write_bag(tmp_path / "in", pictures, topics=("/front/image_raw", "/rear/image_raw"))
    with pytest.raises(BagError, match=r"/front/image_raw, /rear/image_raw.*--topic.*--all-topics"):
        infer(bag, tmp_path / "out", engine)
    assert not (tmp_path / "out").exists()
    assert infer(bag, tmp_path / "rear", engine, topics=("/rear/image_raw",)).frames == 3
    assert set(read_bag(tmp_path / "rear")) == {f"/rear/inpaint/{name}" for name in (*RESULTS, "label_info")}
    with pytest.raises(BagError, match="no image topic /side"):
        infer(bag, tmp_path / "out", engine, topics=("/front/image_raw", "/side"))
    summary = infer(bag, tmp_path / "both", engine, all_topics=True)
    assert summary.frames == 6
    assert summary.topics == {"/front/image_raw": "/front/inpaint", "/rear/image_raw": "/rear/inpaint"}
    both = messages(tmp_path / "both")
    assert [item for item in both if item[0].startswith("/rear")] == messages(tmp_path / "rear")
    assert [at for _, at, _ in both] == sorted(at for _, at, _ in both), "players expect them in order"


@pytest.mark.parametrize(
    ("topics", "results"),
    [
        (["/front/image_raw"], ["/front/inpaint"]),
        (["/front/image_raw/compressed"], ["/front/inpaint"]),
        (["/image"], ["/inpaint"]),
        (["image"], ["/inpaint"]),
        (["/robot/front/color/image_rect"], ["/robot/front/color/inpaint"]),
        (["/front/image_raw", "/rear/image_raw"], ["/front/inpaint", "/rear/inpaint"]),
        (["/front/image_raw", "/front/image_rect"], ["/front/image_raw/inpaint", "/front/image_rect/inpaint"]),
        (["/a/raw", "/a/raw/compressed"], ["/a/raw/inpaint", "/a/raw/compressed/inpaint"]),
    ],
)
def test_results_lie_beside_their_camera(topics, results):
    assert list(_result_topics(topics).values()) == results


def test_compressed_results_are_the_same_and_small(tmp_path, engine):
    street = SyntheticStreet(seed=4, width=960, height=540)
    images = [street.frame(number).image for number in range(3)]
    bag = write_compressed_bag(tmp_path / "in", images)
    assert infer(bag, tmp_path / "raw", engine, outputs=(*RESULTS, "overlay")).frames == 3
    assert infer(bag, tmp_path / "small", engine, outputs=(*RESULTS, "overlay"), compress=True).frames == 3
    raw, small = read_bag(tmp_path / "raw"), read_bag(tmp_path / "small")
    for name in RESULTS:
        for (at, message), (small_at, compressed) in zip(
            raw[f"/front/inpaint/{name}"], small[f"/front/inpaint/{name}/compressed"], strict=True
        ):
            assert small_at == at and stamp_and_frame(compressed) == stamp_and_frame(message)
            assert compressed.format == "mono8; png compressed "
            np.testing.assert_array_equal(cv2.imdecode(compressed.data, cv2.IMREAD_UNCHANGED), view(message))
    overlay = small["/front/inpaint/overlay/compressed"][0][1]
    assert overlay.format == "rgb8; jpeg compressed bgr8"
    decoded = cv2.cvtColor(cv2.imdecode(overlay.data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.abs(decoded.astype(int) - view(raw["/front/inpaint/overlay"][0][1])).mean() < 5
    maps = sum(len(data) for topic, _, data in messages(tmp_path / "small") if "overlay" not in topic)
    assert maps < sum(len(data) for topic, _, data in messages(bag) if "image" in topic)


def _split(monkeypatch, images_per_part: int) -> None:
    monkeypatch.setattr(bag_module, "IMAGES_PER_PART", images_per_part)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_long_recordings_go_into_several_files(tmp_path, engine, pictures, monkeypatch, storage):
    bag = write_bag(tmp_path / "in", pictures * 3, storage=storage, topics=("/front/image_raw", "/rear/image_raw"))
    infer(bag, tmp_path / "one", engine, all_topics=True)
    _split(monkeypatch, 4)
    assert infer(bag, tmp_path / "many", engine, all_topics=True).frames == 18
    assert len([path for path in (tmp_path / "many").iterdir() if path.suffix in (".db3", ".mcap")]) == 5
    assert messages(tmp_path / "many") == messages(tmp_path / "one")
    assert not (tmp_path / "many" / ".unfinished").exists()
    with Reader(tmp_path / "many") as many, Reader(tmp_path / "one") as one:
        for fact in ("start_time", "end_time", "duration", "message_count"):
            assert getattr(many, fact) == getattr(one, fact), fact
        counts = [{each.topic: each.msgcount for each in reader.connections} for reader in (many, one)]
        assert counts[0] == counts[1]


@pytest.mark.parametrize("stop_after", [1, 4, 6, 8])
def test_a_stopped_bag_is_valid_and_goes_on(tmp_path, engine, pictures, monkeypatch, stop_after):
    """Nothing is inferred twice, and the files are those of one run."""
    _split(monkeypatch, 4)
    bag = write_bag(tmp_path / "in", pictures * 3, storage="mcap")
    infer(bag, tmp_path / "whole", engine)
    out, done = tmp_path / "out", []
    report = Report(progress=lambda count, total: done.append(count), stopped=lambda: done[-1] == stop_after)
    summary = infer(bag, out, engine, report)
    assert summary.interrupted and summary.frames == stop_after
    assert len(read_bag(out)["/front/inpaint/background"]) == stop_after
    inferred = []
    monkeypatch.setattr(
        InferenceEngine,
        "__call__",
        lambda self, image, infer=InferenceEngine.__call__: inferred.append(1) or infer(self, image),
    )
    resumed = infer(bag, out, engine)
    assert len(inferred) == 9 - stop_after
    assert (resumed.frames, resumed.resumed, resumed.interrupted) == (9, stop_after, False)
    assert _files(out) == _files(tmp_path / "whole")
    before = tree(out)
    assert infer(bag, out, engine).resumed == 9
    assert tree(out) == before and len(inferred) == 9 - stop_after


def _files(bag: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(bag.glob("*.mcap")) + sorted(bag.glob("*.db3"))]


_SMALL_PARTS = "import sfi_ros.offline.bag as bag; bag.IMAGES_PER_PART = 20"


@pytest.mark.parametrize(
    ("number", "storage"), [(signal.SIGKILL, "sqlite3"), (signal.SIGKILL, "mcap"), (signal.SIGINT, "mcap")]
)
def test_the_same_command_goes_on_after_a_signal(tmp_path, sfi, sfi_process, pictures, monkeypatch, number, storage):
    _split(monkeypatch, 20)
    bag = write_bag(tmp_path / "in", pictures * 100, storage=storage)
    out = tmp_path / "out"
    process = sfi_process("bag", bag, out, prelude=_SMALL_PARTS)
    process.wait_until(lambda: len(_files(out)) >= 3)
    status, said = process.end(number)
    found = len(read_bag(out)["/front/inpaint/background"])
    assert 40 <= found < 300, "what is finished can be read"
    if number != signal.SIGKILL:
        assert status == 128 + number
        assert said.count("interrupted") == 1 and "Traceback" not in said
        assert json.loads((out / "summary.json").read_text())["frames"] == found
    assert sfi("bag", bag, out) == 0
    assert sfi("bag", bag, tmp_path / "whole") == 0
    assert _files(out) == _files(tmp_path / "whole")
    assert len(read_bag(out)["/front/inpaint/background"]) == 300
    resumed = json.loads((out / "summary.json").read_text())["resumed"]
    # Killed between the end of a file and metadata.yaml, a whole file may be there that no reader knows of yet.
    assert resumed in ((found, found + 20) if number == signal.SIGKILL else (found,))
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []


def test_a_lost_or_damaged_note_costs_its_part_only(tmp_path, engine, pictures, monkeypatch):
    _split(monkeypatch, 2)
    bag = write_bag(tmp_path / "in", pictures * 2)
    done = []
    infer(bag, tmp_path / "out", engine, Report(lambda count, _: done.append(count), stopped=lambda: done[-1] == 6))
    notes = tmp_path / "out" / ".unfinished"
    (notes / "0.json").write_text("{")
    (tmp_path / "out" / "out_1.db3").unlink()
    (notes / "feedfacefeedface").mkdir()  # of a killed process
    shutil.copy(notes / "1.json", notes / ".feedface.partial.json")  # likewise
    infer(bag, tmp_path / "whole", engine)
    assert infer(bag, tmp_path / "out", engine).frames == 6
    assert messages(tmp_path / "out") == messages(tmp_path / "whole")


def test_results_of_other_settings_are_not_mixed(tmp_path, engine, pictures):
    bag = write_bag(tmp_path / "in", pictures)
    out = tmp_path / "out"
    infer(bag, out, engine)
    before = tree(out)
    for options, because in (
        ({"limit": 2}, "limit: none then, 2 now"),
        ({"compress": True}, "compress: False then, True now"),
        ({"outputs": ("background",)}, "outputs: "),
        ({"topics": ("/front/image_raw",)}, "topics: "),
    ):
        with pytest.raises(
            OutputError, match=f"exists already and holds results of another run .{because}.*--overwrite"
        ):
            infer(bag, out, engine, **options)
    assert tree(out) == before
    assert infer(bag, out, engine, limit=2, overwrite=True).frames == 2
    assert len(read_bag(out)["/front/inpaint/background"]) == 2
    os.utime(bag / "in.db3")
    with pytest.raises(OutputError, match="files of the source"):
        infer(bag, out, engine, limit=2)


def test_a_bag_is_never_written_into_its_source_or_over_other_files(tmp_path, engine, pictures):
    bag = write_bag(tmp_path / "in", pictures)
    before = tree(bag)
    with pytest.raises(OutputError, match="exists already and holds other files"):
        infer(bag, bag, engine)
    out = tmp_path / "out"
    infer(bag, out, engine)
    inside = out / "copy"
    shutil.copytree(bag, inside)
    for source in (inside, out):
        for overwrite in (False, True):
            with pytest.raises(OutputError, match="where its results would go"):
                infer(
                    source,
                    out,
                    engine,
                    topics=("/front/inpaint/background",) if source == out else (),
                    overwrite=overwrite,
                )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(OutputError, match="exists already and holds other files"):
        infer(bag, tmp_path / "mine", engine, overwrite=True)
    assert tree(bag) == before == tree(inside)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_full_disk_is_named_and_the_same_command_goes_on(tmp_path, sfi, sfi_process, pictures, storage):
    bag = write_bag(tmp_path / "in", pictures * 3, storage=storage)
    out = tmp_path / "out"
    limit = 30_000  # bytes of a file; results of three images need 55 000
    process = sfi_process("bag", bag, out, largest_file=limit)
    status, said = process.end()
    assert status == 1 and "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and f"{out}/out_0." in errors[0] and "cannot be written" in errors[0]
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["run.json"]
    assert sfi("bag", bag, out) == 0
    assert len(read_bag(out)["/front/inpaint/background"]) == 9


@pytest.mark.parametrize("command", ["run", "bag"])
@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_lost_storage_file_is_seen_by_scripts(tmp_path, sfi, pictures, capsys, command, storage):
    bag, whole = (write_bag(tmp_path / name, pictures[:2], storage=storage) for name in ("in", "whole"))
    (bag / "metadata.yaml").unlink()
    [file] = bag.iterdir()
    lost = bag / f"in_1{file.suffix}"
    lost.write_bytes(bytes(4096))
    for said in ("skipped {}: ", "is there already, 2 frames"):
        assert sfi(command, bag, whole, "-o", tmp_path / "out") == 1
        assert said.format(lost) in (errors := capsys.readouterr().err)
        assert f"error: {bag}: results are without what cannot be read of {lost}; summary.json says why" in errors
    for name, files in (("in", [str(lost)]), ("whole", [])):
        summary = json.loads((tmp_path / "out" / name / "summary.json").read_text())
        assert (summary["frames"], summary["lost"], summary["skipped"]) == (2, files, files)
    assert sfi(command, bag, "-o", tmp_path / "first", "--limit", 1) == 1
    assert sfi(command, whole, "-o", tmp_path / "second") == 0


@pytest.mark.parametrize("name", ["out #1", "what?", "50%", "[b]", "a:b", "ünï", "-o", "new\nline"])
def test_any_name_will_do(tmp_path, engine, pictures, name):
    bag = write_bag(tmp_path / "in", pictures[:1])
    for storage in ("sqlite3", "mcap"):
        source = tmp_path / storage / name
        source.parent.mkdir(exist_ok=True)
        shutil.copytree(write_bag(tmp_path / f"plain_{storage}", pictures[:1], storage=storage), source)
        assert infer(source, tmp_path / f"results_{storage}" / name, engine).frames == 1
        [file] = [
            path for path in (tmp_path / f"results_{storage}" / name).iterdir() if path.suffix in (".db3", ".mcap")
        ]
        assert file.name.startswith(name)
    assert len(read_bag(bag)) == 2
