"""`sfi map`: drives into maps, reports and labels."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from drives import write_drive
from offline_harness import *  # noqa: F403 - fixtures

from sfi_ros.classes import BACKGROUND_CLASSES, IGNORE
from sfi_ros.cli import main
from sfi_ros.errors import OptionError
from sfi_ros.frames.frame import Frame, Unreadable
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.layout import SEEN
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.inference import Scene, Timing
from sfi_ros.offline.drive import Drive, DriveOptions
from sfi_ros.offline.drive_labels import FOREGROUND, DriveLabels, _sure_from
from sfi_ros.offline.layouts import LayoutOptions
from sfi_ros.offline.map import MappedDrive, map_drive
from sfi_ros.offline.task import NothingReadable, Report
from sfi_ros.synthetic import SyntheticStreet
from training.data.datasets import Folder

SEED = 4  # a straight street with parked cars
LAYOUT = LayoutOptions(grid=GroundGrid(0, 30, -12, 12, 0.2))
Sfi = Callable[..., int]


def true_scene(frame: Frame) -> Scene:
    """What a network without errors would say."""
    assert frame.truth is not None
    certain = np.full(frame.image.shape[:2], 250, np.uint8)
    return Scene(frame.truth.foreground, frame.truth.background, certain, certain, Timing(0, 0, 0))


def drive(frames: int, noise: tuple[float, float] = (0.0, 0.0), seed: int = SEED) -> Drive:
    return Drive("synthetic", DriveOptions(spacing=1.0, limit=frames, noise=noise, seed=seed, height=96))


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[MappedDrive, Path, dict[str, np.ndarray]]:
    """A drive with the noise of wheels and a gyroscope, its dataset, and what is really behind its objects."""
    folder = tmp_path_factory.mktemp("drive") / "labels"
    labels = DriveLabels(folder, LAYOUT)
    truth: dict[str, np.ndarray] = {}

    def infer(frame: Frame) -> Scene:
        assert frame.truth is not None
        truth[frame.name] = frame.truth.background
        return true_scene(frame)

    result = map_drive(drive(30, (0.01, math.radians(0.1))), infer, LAYOUT, Report(), labels)
    counts = labels.finish()
    assert counts.images == len(truth) == 30 and sum(counts.shown.values()) > 0.15 * counts.hidden
    return result, folder, truth


def test_the_map_is_the_street(mapped: tuple[MappedDrive, Path, dict[str, np.ndarray]]) -> None:
    result = mapped[0]
    layout, street = result.layout, SyntheticStreet(SEED, 192, 96)
    x, y = layout.grid.centres()
    near = np.flatnonzero((layout.evidence.ravel() == SEEN) & (x.ravel() > 3) & (np.abs(y.ravel()) < 6))
    start = street.vehicle(0)
    truth = street.ground_at(0, *start.local_points(x.ravel()[near], y.ravel()[near])).classes
    assert len(near) > 2000
    assert (truth == layout.classes.ravel()[near]).mean() > 0.9
    assert len(result.track) == 30 and 29 < result.track[-1].x < 40


def test_what_was_inferred_rightly_agrees_with_what_is_seen_later(
    mapped: tuple[MappedDrive, Path, dict[str, np.ndarray]],
) -> None:
    agreement = mapped[0].agreement
    assert agreement.cells > 2000
    assert agreement.share is not None and agreement.share > 0.9


def test_labels_are_what_lies_behind_the_objects(mapped: tuple[MappedDrive, Path, dict[str, np.ndarray]]) -> None:
    _, folder, truth = mapped
    dataset = Folder(folder, height=96)
    assert len(dataset) == 30
    confusion = np.zeros((3, 256), int)
    for number, path in enumerate(dataset.photos):
        sample = dataset[number]
        assert sample.true_background is not None
        hidden = sample.foreground.numpy() == 1
        for true in range(3):
            there = sample.true_background.numpy()[hidden & (truth[path.stem] == true)]
            confusion[true] += np.bincount(there, minlength=256)
        seen = ~hidden & (sample.partial_background.numpy() != IGNORE)
        assert (sample.partial_background.numpy() == truth[path.stem])[seen].all()
    right, known = confusion.diagonal().sum(), confusion[:, :3].sum()
    assert known > 0.15 * confusion.sum()
    assert right > 0.95 * known
    assert (confusion.diagonal() > 0).all(), "of every class"


def test_worse_agreement_where_what_is_inferred_is_wrong() -> None:
    def infer(frame: Frame) -> Scene:
        scene = true_scene(frame)
        scene.background[scene.foreground != 0] = BACKGROUND_CLASSES.index("road")
        return scene

    agreement = map_drive(drive(10), infer, LAYOUT, Report()).agreement.summary()
    assert agreement["by_class"]["road"]["agreement"] > 0.95
    assert agreement["by_class"]["sidewalk"]["agreement"] < 0.2


def test_nothing_is_written_about_the_own_vehicle(tmp_path: Path) -> None:
    bonnet = np.zeros((96, 192), np.uint8)
    bonnet[80:] = 255
    cv2.imwrite(str(tmp_path / "bonnet.png"), bonnet)
    layout = replace(LAYOUT, own_vehicle=str(tmp_path / "bonnet.png"))
    labels = DriveLabels(tmp_path / "labels", layout)
    mapped = map_drive(drive(2), true_scene, layout, Report(), labels)
    labels.finish()
    for kind in ("labels", "background"):
        picture = cv2.imread(str(tmp_path / "labels" / kind / "frame_000000.png"), cv2.IMREAD_UNCHANGED)
        assert (picture[80:] == IGNORE).all() and (picture[:80] != IGNORE).any()
    x, _ = mapped.layout.grid.centres()
    all_of_it = map_drive(drive(2), true_scene, LAYOUT, Report()).layout
    assert x[mapped.layout.classes != IGNORE].min() > all_of_it.grid.x_min + 1


def test_each_class_is_labelled_where_the_network_is_surest_of_it() -> None:
    pixels = np.zeros(256, int)
    assert _sure_from(pixels) == round(0.9 * 255), "a class that never occurs"
    pixels[100:120] = 10
    assert _sure_from(pixels) == 110, "the surer half"
    pixels[250] = 10_000
    assert _sure_from(pixels) == round(0.9 * 255), "or all of which it is sure"


def test_frames_that_cannot_be_used_are_named() -> None:
    seen: list[tuple[str, str]] = []

    def infer(frame: Frame) -> Scene | Unreadable:
        return Unreadable(frame.name, "too dark") if frame.name == "frame_000000" else true_scene(frame)

    result = map_drive(drive(3), infer, LAYOUT, Report(skipped=lambda *item: seen.append(item)))
    assert len(result.track) == 2 and seen == [("frame_000000", "too dark")]
    with pytest.raises(NothingReadable):
        map_drive(drive(1), infer, LAYOUT, Report())
    with pytest.raises(OptionError, match="spacing"):
        Drive("synthetic", DriveOptions(spacing=-1))


def test_the_command_on_the_synthetic_street(tmp_path: Path, sfi: Sfi, capsys: pytest.CaptureFixture[str]) -> None:
    output, labels = tmp_path / "map", tmp_path / "labels"
    arguments = ("map", "synthetic", "-o", output, "--report", "--labels", labels, "--limit", 6, "--height", 64)
    arguments += ("--grid", "0,30,-12,12,0.4", "--noise", "1,0.1")
    assert sfi(*arguments) == 0
    assert "results in" in capsys.readouterr().err
    summary = json.loads((output / "summary.json").read_text())
    assert summary["frames"] == 6 and summary["metres_driven"] > 2
    report = json.loads((output / "agreement.json").read_text())
    assert report["cells"] == summary["later_seen_cells"]
    assert "<svg" in (output / "agreement.html").read_text()

    about = yaml.safe_load((output / "map.yaml").read_text())
    picture = cv2.imread(str(output / about["image"]), cv2.IMREAD_UNCHANGED)
    with np.load(output / "map.npz") as content:
        assert picture.shape == content["classes"].shape and about["resolution"] == content["resolution"] == 0.4
        assert about["origin"][:2] == pytest.approx(content["origin"].tolist())
        assert (picture[::-1][content["classes"] == IGNORE] == 255).all(), "unknown, for map_server's mode raw"
        seen_road = (content["classes"] == 0) & (content["evidence"] == SEEN)
        assert (picture[::-1][seen_road] == 0).all()
        assert content["track"].shape == (6, 3)
    assert cv2.imread(str(output / "map.png")).shape[:2] == picture.shape[::-1], "x points up"
    photo = cv2.imread(str(labels / "labels" / "frame_000000.png"), cv2.IMREAD_UNCHANGED)
    assert FOREGROUND in photo and len(Folder(labels)) == 6

    assert sfi(*arguments, "--seed", 3) == 1, "results of another run"
    assert "another run" in capsys.readouterr().err
    assert sfi(*arguments, "--seed", 3, "--overwrite") == 0
    assert json.loads((output / "summary.json").read_text()) != summary


def test_a_recording_gives_the_map_of_its_drive(tmp_path: Path, sfi: Sfi, capsys: pytest.CaptureFixture[str]) -> None:
    street = SyntheticStreet(SEED, 128, 64)
    bag = write_drive(tmp_path / "bag", street, range(0, 24))
    pose = street.pose(0)
    options, layout = DriveOptions(spacing=1.0), LayoutOptions(pose=pose)
    frames = [item for item in Drive(str(bag), options, layout) if isinstance(item, Frame)]
    assert 5 < len(frames) < 24
    numbers = [(int(item.name) - 1_700_000_000 * 10**9) * street.rate / 1e9 for item in frames]
    for number, item in zip(numbers, frames, strict=True):
        expected = street.vehicle(round(number))
        assert (item.vehicle.x, item.vehicle.y) == pytest.approx((expected.x, expected.y), abs=1e-6)
        assert item.calibration == street.calibration and item.pose == pose

    deep = write_drive(tmp_path / "deep", street, range(0, 3), bits=12)
    for told, expected in ((12, street.frame(0).image), (16, street.frame(0).image >> 4)):
        first = next(iter(Drive(str(deep), replace(options, significant_bits=told), layout)))
        assert isinstance(first, Frame)
        np.testing.assert_array_equal(first.image, expected)

    command = ("map", bag, "-o", tmp_path / "map", "--significant-bits", 12, "--grid", "0,30,-12,12,0.4")
    assert sfi(*command) == 1 and "--camera height=1.5" in capsys.readouterr().err
    assert sfi(*command, "--camera", f"height={pose.height},pitch={pose.pitch}") == 0
    assert json.loads((tmp_path / "map" / "summary.json").read_text())["frames"] > 10
    (bag / "metadata.yaml").unlink()
    (bag / "bag_1.db3").write_bytes(bytes(4096))
    assert sfi(*command, "--camera", "height=1.5", "--limit", 1, "--overwrite") == 1
    assert f"results are without what cannot be read of {bag / 'bag_1.db3'}" in capsys.readouterr().err


def test_recordings_that_lack_something_say_what(tmp_path: Path, sfi: Sfi, capsys: pytest.CaptureFixture[str]) -> None:
    street = SyntheticStreet(SEED, 64, 32)
    many = write_drive(tmp_path / "many", street, range(2), odometry=("/odom", "/gps/odom"), info=False)
    none = write_drive(tmp_path / "none", street, range(2), odometry=())
    for source, more, message in (
        (many, (), "--odometry"),
        (many, ("--odometry", "/odom"), "--calibration"),
        (none, (), "motion"),
        (tmp_path, (), "odometry"),
    ):
        assert sfi("map", source, "-o", tmp_path / "out", "--camera", "height=1.5", *more, "--overwrite") == 1
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "wrong", [("--camera", "1.5"), ("--camera", "height=-1"), ("--noise", "1"), ("--noise", "1,-1")]
)
def test_wrong_options_are_refused(wrong: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        main(["map", "synthetic", "-o", "out", *wrong])


def test_camera_poses_are_read() -> None:
    from sfi_ros.cli import _camera_pose

    assert _camera_pose("height=1.5, pitch=0.1,x=2") == CameraPose(1.5, pitch=0.1, x=2.0)
