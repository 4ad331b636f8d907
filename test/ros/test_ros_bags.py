"""Bags offline: what goes in comes out inferred, in both storages; what is wrong is named. No ROS runs here."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed (pip install sfi_ros[ros])")

from ros_bags import read_bag, write_bag

from sfi_ros.frames.bags import BagError, BagSource, is_bag
from sfi_ros.frames.encodings import view
from sfi_ros.frames.sources import Frame
from sfi_ros.inference import InferenceEngine
from sfi_ros.network import checkpoint, zoo
from sfi_ros.offline.bags import infer_bag
from sfi_ros.synthetic import SyntheticStreet


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoint.save(path, zoo.build("fast-mobilenetv2").eval(), input_height=64)
    return InferenceEngine.load(path, device="cpu", precision="float32")


@pytest.fixture(scope="module")
def pictures():
    street = SyntheticStreet(seed=4, width=96, height=64)
    return [street.frame(number).image for number in range(3)]


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_bag_in_is_a_bag_of_scenes_out(tmp_path, engine, pictures, storage):
    bag = write_bag(tmp_path / "in", pictures, storage=storage)
    progress = []
    summary = infer_bag(
        bag, tmp_path / "out", engine, with_overlay=True, progress=lambda done, total: progress.append((done, total))
    )
    assert (summary.topic, summary.frames, summary.rejected) == ("/front/image_raw", 3, [])
    assert progress == [(1, 3), (2, 3), (3, 3)]
    recorded, results = read_bag(bag), read_bag(tmp_path / "out")
    assert set(results) == {
        f"/inpaint/{name}" for name in ("foreground_mask", "background", "background_confidence", "overlay")
    }
    suffix = {"sqlite3": ".db3", "mcap": ".mcap"}[storage]
    assert list((tmp_path / "out").glob(f"*{suffix}"))
    for number, picture in enumerate(pictures):
        at, image = recorded["/front/image_raw"][number]
        scene = engine(picture)
        for name, expected in (
            ("foreground_mask", scene.foreground * 255),
            ("background", scene.background),
            ("background_confidence", scene.confidence),
        ):
            result_at, result = results[f"/inpaint/{name}"][number]
            assert result_at == at
            assert result.header.stamp == image.header.stamp
            assert result.header.frame_id == "front"
            np.testing.assert_array_equal(view(result), expected)
        assert view(results["/inpaint/overlay"][number][1]).shape == picture.shape


def test_limit(tmp_path, engine, pictures):
    bag = write_bag(tmp_path / "in", pictures)
    assert infer_bag(bag, tmp_path / "out", engine, limit=2).frames == 2
    assert len(read_bag(tmp_path / "out")["/inpaint/background"]) == 2


def test_a_source_like_any_other(tmp_path, pictures):
    source = BagSource(write_bag(tmp_path / "in", pictures, rate=20.0))
    assert source.length == 3
    assert source.rate == pytest.approx(20.0)
    for _ in range(2):  # iterating again starts again
        frames = list(source)
        assert all(isinstance(frame, Frame) for frame in frames)
        for frame, picture in zip(frames, pictures, strict=True):
            np.testing.assert_array_equal(frame.image, picture)
    assert len({frame.name for frame in frames}) == 3
    assert source.calibration().k[0] == 123.0


def test_a_damaged_image_is_counted_and_the_rest_inferred(tmp_path, engine, pictures):
    broken = pictures[1].reshape(-1)[:-3].reshape(1, -1, 1)  # three bytes short
    bag = write_bag(tmp_path / "in", [pictures[0], broken, pictures[2]])
    summary = infer_bag(bag, tmp_path / "out", engine)
    assert summary.frames == 2
    assert len(summary.rejected) == 1
    assert "image 2 of /front/image_raw" in summary.rejected[0]


def test_several_cameras_must_be_named(tmp_path, engine, pictures):
    bag = write_bag(tmp_path / "in", pictures, topics=("/front/image_raw", "/rear/image_raw"))
    with pytest.raises(BagError, match="/front/image_raw, /rear/image_raw"):
        infer_bag(bag, tmp_path / "out", engine)
    assert not (tmp_path / "out").exists()
    assert infer_bag(bag, tmp_path / "out", engine, topic="/rear/image_raw").frames == 3
    with pytest.raises(BagError, match="no image topic /side"):
        BagSource(bag, "/side")


def test_what_is_wrong_is_named(tmp_path, engine, pictures):
    with pytest.raises(BagError, match="nothing cannot be read as a bag"):
        BagSource(tmp_path / "nothing")
    bag = write_bag(tmp_path / "in", pictures)
    assert is_bag(bag)
    assert not is_bag(tmp_path)
    with pytest.raises(BagError, match="exists already"):
        infer_bag(bag, bag, engine)
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: 7")
    with pytest.raises(BagError, match="cannot be read as a bag"):
        BagSource(bag)
    empty = write_bag(tmp_path / "empty", pictures, topics=())
    with pytest.raises(BagError, match="0 image topics"):
        BagSource(empty)
