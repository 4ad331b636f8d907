"""A recording is a source like any other; what is wrong with it is named. No ROS runs here."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed (pip install sfi_ros[ros])")

from ros_bags import write_bag

from sfi_ros.frames.bag_storage import BagError, is_bag
from sfi_ros.frames.bags import BagSource
from sfi_ros.frames.sources import Frame
from sfi_ros.synthetic import SyntheticStreet


@pytest.fixture(scope="module")
def pictures():
    street = SyntheticStreet(seed=4, width=96, height=64)
    return [street.frame(number).image for number in range(3)]


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


def test_several_cameras_must_be_named(tmp_path, pictures):
    bag = write_bag(tmp_path / "in", pictures, topics=("/front/image_raw", "/rear/image_raw"))
    with pytest.raises(BagError, match="/front/image_raw, /rear/image_raw"):
        BagSource(bag)
    with pytest.raises(BagError, match="no image topic /side"):
        BagSource(bag, "/side")


def test_what_is_wrong_is_named(tmp_path, pictures):
    with pytest.raises(BagError, match="nothing cannot be read as a bag"):
        BagSource(tmp_path / "nothing")
    bag = write_bag(tmp_path / "in", pictures)
    assert is_bag(bag)
    assert not is_bag(tmp_path)
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: 7")
    with pytest.raises(BagError, match="cannot be read as a bag"):
        BagSource(bag)
    empty = write_bag(tmp_path / "empty", pictures, topics=())
    with pytest.raises(BagError, match="0 image topics"):
        BagSource(empty)
