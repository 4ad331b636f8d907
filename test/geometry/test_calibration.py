"""Calibrations: a point in space lands on the same spot of a resized image; what is no calibration is refused."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfi_ros.geometry.calibration import Calibration, CalibrationError, RegionOfInterest, camera_matrix

POINTS = np.random.default_rng(0).uniform([-2, -1, 3, 1], [2, 1, 20, 1], (20, 4))


def project(calibration: Calibration) -> np.ndarray:
    """Pixels of POINTS through the projection matrix, which K must agree with."""
    p = calibration.projection_matrix
    np.testing.assert_allclose(p[:, :3], calibration.camera_matrix)
    pixels = POINTS @ p.T
    return pixels[:, :2] / pixels[:, 2:]


def full_size(width=1280, height=720) -> Calibration:
    calibration = Calibration.pinhole(width, height, camera_matrix(width, height, 75.0))
    return replace(calibration, p=(*calibration.p[:3], -40.0, *calibration.p[4:]))  # the right camera of a stereo pair


@pytest.mark.parametrize("size", [(640, 360), (455, 256), (1280, 720), (2000, 300)])
def test_resized(size):
    calibration = full_size()
    result = calibration.scaled((1280, 720), size)
    assert (result.width, result.height) == result.image_size == size
    scale = np.array(size) / (1280, 720)
    np.testing.assert_allclose(project(result), (project(calibration) + 0.5) * scale - 0.5)


def test_a_binned_region_of_interest():
    roi = RegionOfInterest(x_offset=100, y_offset=60, width=800, height=400, do_rectify=True)
    calibration = replace(full_size(), roi=roi, binning_x=2, binning_y=4)
    assert calibration.image_size == (400, 100)
    result = calibration.scaled((400, 100), (200, 50))
    np.testing.assert_allclose(project(result), (project(calibration) - (100, 60) + 0.5) * (200 / 800, 50 / 400) - 0.5)
    assert result.image_size == (200, 50)
    assert result.roi == RegionOfInterest(do_rectify=True)


def test_an_image_of_the_same_size_keeps_its_calibration():
    calibration = replace(full_size(), roi=RegionOfInterest(x_offset=100, y_offset=60, width=800, height=400))
    assert calibration.scaled((800, 400), (800, 400)) == calibration


def test_a_projection_that_is_left_out_stays_left_out():
    calibration = replace(full_size(), p=(0.0,) * 12)
    assert calibration.scaled((1280, 720), (640, 360)).p == (0.0,) * 12


def test_a_calibration_of_another_size_is_refused():
    with pytest.raises(CalibrationError, match="images of 1280x720, the image has 640x480"):
        full_size().scaled((640, 480), (320, 240))


def test_the_field_of_view_reaches_from_border_to_border():
    matrix = camera_matrix(640, 480, 90.0)
    left, right = (np.linalg.inv(matrix) @ [x, 0, 1] for x in (-0.5, 639.5))
    assert (left[0], right[0]) == pytest.approx((-1.0, 1.0))


def message(**changes) -> SimpleNamespace:
    """The fields of a sensor_msgs/CameraInfo, as arrays, as rclpy and rosbags give them."""
    roi = SimpleNamespace(x_offset=1, y_offset=2, width=30, height=40, do_rectify=True)
    good = {
        "width": 1280,
        "height": 720,
        "distortion_model": "plumb_bob",
        "d": np.array([0.1, 0, 0, 0, 0]),
        "k": camera_matrix(1280, 720, 75.0).ravel(),
        "r": np.eye(3).ravel(),
        "p": np.eye(3, 4).ravel(),
        "binning_x": 2,
        "binning_y": 0,
        "roi": roi,
    }
    return SimpleNamespace(**{**good, **changes})


def test_from_a_message():
    calibration = Calibration.from_message(message())
    np.testing.assert_array_equal(calibration.camera_matrix, camera_matrix(1280, 720, 75.0))
    np.testing.assert_array_equal(calibration.projection_matrix, np.eye(3, 4))
    assert calibration.d == (0.1, 0, 0, 0, 0)
    assert calibration.roi == RegionOfInterest(1, 2, 30, 40, do_rectify=True)
    assert (calibration.binning_x, calibration.binning_y) == (2, 0)
    assert hash(calibration) == hash(Calibration.from_message(message()))


def test_from_a_message_of_ros_1():
    old = message()
    for name in ("d", "k", "r", "p"):
        setattr(old, name.upper(), getattr(old, name))
        delattr(old, name)
    assert Calibration.from_message(old) == Calibration.from_message(message())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({name: np.zeros(size) for name, size in (("k", 9), ("r", 9), ("p", 12), ("d", 0))}, "is not calibrated"),
        ({"width": 0, "height": 0, "k": np.zeros(9)}, "is not calibrated"),
        ({"k": np.diag([-5.0, 5, 1]).ravel()}, "focal lengths in K are -5 and 5"),
        ({"k": np.diag([5.0, 0, 1]).ravel()}, "focal lengths"),
        ({"k": np.full(9, np.nan)}, "K has a number that is not finite"),
        ({"p": np.full(12, np.inf)}, "P has a number that is not finite"),
        ({"d": np.array([np.nan] * 5)}, "D has a number that is not finite"),
        ({"d": np.zeros(3)}, "D has 3 numbers; plumb_bob takes 0 or 4 or 5"),
        ({"d": np.zeros(100_000)}, "list of 100000 numbers"),
        ({"d": np.zeros(100_000), "distortion_model": "their own"}, "list of 100000 numbers"),
        ({"d": np.zeros(5), "distortion_model": "equidistant"}, "equidistant takes 0 or 4"),
        ({"d": np.zeros(5), "distortion_model": "rational_polynomial"}, "rational_polynomial takes 0 or 8"),
        ({"width": 0}, "0x720"),
        ({"height": -1}, "1280x-1"),
        ({"k": np.ones(8)}, "K has 8 numbers instead of 9"),
        ({"p": np.ones(13)}, "P has 13 numbers instead of 12"),
    ],
)
def test_messages_that_are_no_calibration(changes, reason):
    with pytest.raises(CalibrationError, match=reason):
        Calibration.from_message(message(**changes))


GOOD = """
image_width: 128
image_height: 96
camera_name: front
distortion_model: plumb_bob
camera_matrix: {rows: 3, cols: 3, data: [100.0, 0.0, 63.5, 0.0, 100.0, 47.5, 0.0, 0.0, 1.0]}
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0.0, 0.0, 0.0, 0.0]}
rectification_matrix: {rows: 3, cols: 3, data: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]}
projection_matrix: {rows: 3, cols: 4, data: [100.0, 0.0, 63.5, 0.0, 0.0, 100.0, 47.5, 0.0, 0.0, 0.0, 1.0, 0.0]}
"""


def test_a_file(tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text(GOOD)
    calibration = Calibration.from_yaml(path)
    assert calibration.image_size == (128, 96)
    assert calibration.k == (100.0, 0.0, 63.5, 0.0, 100.0, 47.5, 0.0, 0.0, 1.0)
    assert calibration.d[0] == 0.1
    assert calibration.p[6] == 47.5


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("0.0, 0.0, 1.0]}\ndist", "0.0]}\ndist", "K has 7 numbers instead of 9"),
        ("47.5, 0.0, 0.0, 0.0, 1.0, 0.0]", "47.5]", "P has 7 numbers instead of 12"),
        ("cols: 3, data: [1.0,", "cols: 3, data: [1.0, 1.0,", "R has 10 numbers instead of 9"),
        ("[0.1, 0.0, 0.0, 0.0, 0.0]", "[]", None),
        ("[0.1, 0.0, 0.0, 0.0, 0.0]", "[0.1, 0.0]", "D has 2 numbers"),
        ("[100.0, 0.0, 63.5", "[.nan, 0.0, 63.5", "K has a number that is not finite"),
        ("[100.0, 0.0, 63.5", "[.inf, 0.0, 63.5", "K has a number that is not finite"),
        ("[100.0, 0.0, 63.5", "[wide, 0.0, 63.5", "wide"),
        ("[100.0, 0.0, 63.5", "[[100.0], 0.0, 63.5", "camera_matrix holds [100.0], which is no number"),
        ("[100.0, 0.0, 63.5", "[true, 0.0, 63.5", "camera_matrix holds True, which is no number"),
        ("[100.0, 0.0, 63.5", "[1" + "0" * 400 + ", 0.0, 63.5", "too large"),
        ("[100.0, 0.0, 63.5, 0.0, 100.0, 47.5, 0.0, 0.0, 1.0]", "'123456789'", "camera_matrix has no list 'data'"),
        ("camera_matrix: {", "camera_matrix: [1, 2, 3]\nother: {", "camera_matrix has no list 'data'"),
        ("projection_matrix", "projection", "no 'projection_matrix'"),
        ("image_width: 128", "image_width: 0", "0x96"),
        ("image_width: 128", "image_width: -128", "-128x96"),
        ("image_width: 128", "image_width: 99999999999", "99999999999x96; both must be 1 to "),
        ("image_width: 128", "image_width: 12.5", "12.5 is not a number of pixels"),
        ("image_width: 128", "image_width: true", "True is not a number of pixels"),
        ("image_width: 128", "image_width: .inf", "infinity"),
        ("image_width: 128", "image_width: null", "NoneType"),
    ],
)
def test_files_with_wrong_numbers(tmp_path, before, after, reason):
    assert before in GOOD
    path = tmp_path / "camera.yaml"
    path.write_text(GOOD.replace(before, after, 1))
    if reason is None:
        assert Calibration.from_yaml(path).d == ()
        return
    with pytest.raises(CalibrationError, match=r"camera\.yaml is not a calibration") as caught:
        Calibration.from_yaml(path)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a: [",
        b"image_width: 3",
        b"- 1\n- 2",
        b"image_width: wide",
        b"5",
        GOOD.encode("utf-16")[:-3],
        "camera_name: vorderes Gerät".encode("latin-1"),
        b"\x00\x01\x02",
        b"[" * 5000,
        b"a: 2001-99-99",
        b"%YAML:1.0\n---\nM: !!opencv-matrix {rows: 1}",
        b"a: &a [x, x]\nb: &b [*a, *a]\nimage_width: *b",
        GOOD.encode() + b"#" * 2**20,
    ],
)
def test_files_that_are_no_calibration(tmp_path, data):
    path = tmp_path / "camera.yaml"
    path.write_bytes(data)
    with pytest.raises(CalibrationError, match=r"camera\.yaml is not a calibration"):
        Calibration.from_yaml(path)


def test_what_is_no_file(tmp_path):
    for path in (tmp_path / "missing.yaml", tmp_path, "/dev/zero"):
        with pytest.raises(CalibrationError, match=f"{path} cannot be read"):
            Calibration.from_yaml(path)


@given(seed=st.integers(0, 2**32), count=st.integers(1, 6))
def test_a_damaged_file_is_a_calibration_or_an_error(tmp_path_factory, seed, count):
    rng = random.Random(seed)
    data = bytearray(GOOD.encode())
    for _ in range(count):
        place = rng.randrange(len(data))
        data[place : place + rng.choice((0, 1, 9))] = rng.choice((b"", b"]", b"-", b"{", b"&", b"\xff", b"0", b"e99"))
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_bytes(data)
    try:
        calibration = Calibration.from_yaml(path)
    except CalibrationError:
        return
    assert np.isfinite(calibration.scaled(calibration.image_size, (64, 48)).camera_matrix).all()
