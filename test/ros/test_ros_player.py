"""The camera player as a process: every kind of source, calibration, compression, looping, refusals."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

from nav_msgs.msg import Odometry
from rcl_interfaces.msg import Log
from ros_bags import START, write_bag
from ros_harness import Process, small_weights, stamp_of, wait_for
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu

from sfi_ros.frames.encodings import view
from sfi_ros.frames.sources import Frame
from sfi_ros.frames.stamps import nanoseconds
from sfi_ros.ros import player as player_module
from sfi_ros.ros.image_messages import rgb_of
from sfi_ros.ros.imu_pitch import pitch_of
from sfi_ros.ros.spinning import spun_by_a_thread
from sfi_ros.ros.stopping import REFUSED
from sfi_ros.ros.timeline import Step
from sfi_ros.synthetic import SyntheticStreet

pytest_plugins = ["ros_harness"]
pytestmark = pytest.mark.timeout(1200)
SECOND = 10**9


@pytest.fixture(scope="module")
def pictures():
    street = SyntheticStreet(seed=2, width=64, height=48)
    return [street.frame(number).image for number in range(4)]


def play(probe, tmp_path, *arguments, topic="/image", message_type=Image, until=None):
    """Run a player to its end (or until a condition); returns its images and calibrations."""
    words = [word for argument in arguments for word in ("-p", argument)]
    with (
        probe.listen("/camera_info", CameraInfo) as infos,  # first: the player begins when images are listened to
        probe.listen(topic, message_type) as images,
        Process("camera_player", *words, "-p", "wait_for_subscribers:=1", log=tmp_path / "log") as player,
    ):
        if until is None:
            assert player.wait() == 0, player.log()
        else:
            wait_for(lambda: until(images.messages), "the player's images")
            player.stop()
        wait_for(lambda: len(infos.messages) >= len(images.messages) > 0, "calibrations")
        return list(images.messages), list(infos.messages), player.log()


def folder_of(pictures, folder):
    folder.mkdir()
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return folder


def test_the_synthetic_street_with_its_own_calibration(probe, tmp_path):
    images, infos, _ = play(probe, tmp_path, "limit:=3", "seed:=5", "frame_id:=front")
    street = SyntheticStreet(seed=5)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(view(image), street.frame(number).image)
        assert image.header.frame_id == "front"
    assert len(images) == 3
    assert [i.header.stamp for i in infos] == [i.header.stamp for i in images]
    np.testing.assert_allclose(np.reshape(infos[0].k, (3, 3)), street.camera_matrix)
    assert (infos[0].width, infos[0].height) == (512, 256)


def test_the_synthetic_street_tells_its_motion_and_its_cameras_pose(probe, tmp_path):
    street = SyntheticStreet(seed=5)
    words = ("-p", "seed:=5", "-p", "limit:=10", "-p", "wait_for_subscribers:=1")
    with (
        probe.listen("/odom", Odometry) as odometry,
        probe.listen("/imu", Imu) as imu,
        Process("camera_player", *words, log=tmp_path / "log") as player,
    ):
        height, pitch = (value.double_value for value in probe.get(["pose.height", "pose.pitch"], "/camera_player"))
        wait_for(lambda: odometry.publishers and imu.publishers, "the publishers")
        with probe.listen("/image") as images:
            assert player.wait() == 0, player.log()
            wait_for(lambda: len(images.messages) == 10 and images.stamps()[-1] in imu.stamps(), "all messages")
        number = {stamp: index for index, stamp in enumerate(images.stamps())}
    poses = [street.pose(index) for index in range(0, 150, 5)]
    assert height == pytest.approx(np.mean([pose.height for pose in poses]))
    assert pitch == pytest.approx(np.mean([pose.pitch for pose in poses]))
    for message in odometry.messages:
        index = number[stamp_of(message)]
        told, vehicle = message.pose.pose, street.vehicle(index)
        assert (told.position.x, told.position.y) == pytest.approx((vehicle.x, vehicle.y))
        assert 2 * np.arctan2(told.orientation.z, told.orientation.w) == pytest.approx(vehicle.yaw)
        assert (message.header.frame_id, message.child_frame_id) == ("odom", "base_footprint")
    for message in imu.messages:
        nods = street.pose(number[stamp_of(message)]).pitch - pitch
        assert pitch_of(message.orientation) == pytest.approx(nods, abs=1e-6)
    speed = odometry.messages[-1].twist.twist.linear.x
    assert speed == pytest.approx(street.vehicle(9).seen_from(street.vehicle(8)).x * street.rate)
    assert "odometry on /odom, IMU on /imu" in player.log()


def test_a_folder_skips_what_is_no_image(probe, tmp_path, pictures):
    folder = folder_of(pictures, tmp_path / "images")
    (folder / "1.png").write_bytes(b"no image")
    images, infos, log = play(probe, tmp_path, f"source:={folder}", "rate:=30.0", "field_of_view:=90.0")
    assert len(images) == 3
    np.testing.assert_array_equal(view(images[1]), pictures[2])
    assert "1.png skipped" in log
    assert infos[0].k[0] == pytest.approx(32)  # half the width, at 90 degrees


def test_compressed_and_endless(probe, tmp_path, pictures):
    folder = folder_of(pictures[:2], tmp_path / "images")
    images, _, _ = play(
        probe,
        tmp_path,
        f"source:={folder}",
        "rate:=50.0",
        "loop:=true",
        "image_transport:=compressed",
        topic="/image/compressed",
        message_type=CompressedImage,
        until=lambda messages: len(messages) >= 5,
    )
    for number, image in enumerate(images[:5]):
        assert np.abs(rgb_of(image).astype(int) - pictures[number % 2]).mean() < 10


def test_a_video(probe, tmp_path, pictures):
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    if not writer.isOpened():
        pytest.skip("OpenCV cannot write MJPEG here")
    for picture in pictures:
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.release()
    images, _, log = play(probe, tmp_path, f"source:={path}")
    assert len(images) == 4
    assert "at 25 frames/s" in log


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_bag_with_its_calibration(probe, tmp_path, pictures, storage):
    bag = write_bag(tmp_path / "bag", pictures, storage=storage, rate=20.0)
    images, infos, log = play(probe, tmp_path, f"source:={bag}")
    assert len(images) == 4
    np.testing.assert_array_equal(view(images[3]), pictures[3])
    assert infos[0].k[0] == pytest.approx(123.0)
    assert infos[0].distortion_model == "plumb_bob"
    assert "at 20 frames/s, as recorded, on /image" in log
    assert {message.header.frame_id for message in (*images, *infos)} == {"front"}


@pytest.mark.parametrize(
    ("recorded", "arguments", "expected"), [("", (), "camera"), ("front", ("frame_id:=mine",), "mine")]
)
def test_the_frame_of_a_bag(probe, tmp_path, pictures, recorded, arguments, expected):
    bag = write_bag(tmp_path / "bag", pictures[:2], rate=20.0, frame_id=recorded)
    images, infos, _ = play(probe, tmp_path, f"source:={bag}", *arguments)
    assert {message.header.frame_id for message in (*images, *infos)} == {expected}


def test_the_gaps_of_a_bag(probe, tmp_path, pictures):
    times = [START, START + 2 * SECOND, START + 2 * SECOND + 1, START + 2 * SECOND + 2]
    bag = write_bag(tmp_path / "bag", pictures, times=times)
    images, _, _ = play(probe, tmp_path, f"source:={bag}")
    published = [nanoseconds(image.header.stamp) for image in images]
    assert published[1] - published[0] > 1.5 * SECOND  # a mean gap would be 0.67 s


def test_the_original_stamps_with_the_clock_of_the_recording(probe, tmp_path, pictures):
    """Two rounds: the clock runs with the images, and jumps back between the rounds."""
    times = [START, START + SECOND // 2, START + SECOND // 2 + 1, START + SECOND]
    stamps = [at - 30_000_000 for at in times]
    bag = write_bag(tmp_path / "bag", pictures, times=times, stamps=stamps)
    with probe.listen("/clock", Clock) as clocks:
        images, infos, _ = play(
            probe, tmp_path, f"source:={bag}", "stamps:=original", "publish_clock:=true", "loop:=true", "limit:=8"
        )
        told = [nanoseconds(message.clock) for message in list(clocks.messages)]
    assert [nanoseconds(image.header.stamp) for image in images] == stamps * 2
    assert [nanoseconds(info.header.stamp) for info in infos] == stamps * 2
    assert set(times) <= set(told)
    assert times[0] <= min(told)
    assert max(told) <= times[-1]
    assert any(times[0] < at < times[1] for at in told)  # also between two images
    assert sum(after < before for before, after in itertools.pairwise(told)) == 1


def test_a_node_with_sim_time_follows_a_bag_that_loops(probe, tmp_path, pictures):
    weights = small_weights(tmp_path / "small.safetensors")
    bag = write_bag(tmp_path / "bag", pictures, rate=10.0)
    arguments = ("-p", f"weights:={weights}", "-p", "device:=cpu", "-p", "lazy:=false", "-p", "use_sim_time:=true")
    player = ("-p", f"source:={bag}", "-p", "stamps:=original", "-p", "publish_clock:=true", "-p", "loop:=true")
    with (
        Process("inpaint_node", *arguments, log=tmp_path / "node.log") as node,
        probe.listen("/inpaint/foreground_mask") as masks,
    ):
        wait_for(lambda: "active" in node.log(), "activation")
        with Process("camera_player", *player, log=tmp_path / "player.log"):
            status = probe.await_status(
                lambda s: int(s["time jumps"]) >= 2 and s["state"] == "active" and s["latency counted from"] == "stamp",
                "a few rounds",
            )
            wait_for(lambda: masks.messages, "results")
        recorded = {START + n * SECOND // 10 for n in range(4)}
        assert {nanoseconds(mask.header.stamp) for mask in masks.messages} <= recorded
        assert int(status["frames failed"]) == 0
        assert "Traceback" not in node.log()


CALIBRATION = """
image_width: 128
image_height: 96
camera_name: front
distortion_model: plumb_bob
camera_matrix: {rows: 3, cols: 3, data: [100.0, 0.0, 63.5, 0.0, 100.0, 47.5, 0.0, 0.0, 1.0]}
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0.0, 0.0, 0.0, 0.0]}
rectification_matrix: {rows: 3, cols: 3, data: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]}
projection_matrix: {rows: 3, cols: 4, data: [100.0, 0.0, 63.5, 0.0, 0.0, 100.0, 47.5, 0.0, 0.0, 0.0, 1.0, 0.0]}
"""


def test_a_calibration_file_is_scaled_to_the_images(probe, tmp_path, pictures):
    path = tmp_path / "camera.yaml"
    path.write_text(CALIBRATION)
    folder = folder_of(pictures[:1], tmp_path / "images")
    _, infos, _ = play(probe, tmp_path, f"source:={folder}", f"calibration:={path}")
    assert (infos[0].width, infos[0].height) == (64, 48)
    assert infos[0].k[0] == pytest.approx(50.0)
    assert infos[0].k[2] == pytest.approx(31.5)  # the middle stays the middle
    assert infos[0].d[0] == pytest.approx(0.1)


UNCALIBRATED = {"d": np.zeros(0), "k": np.zeros(9), "r": np.zeros(9), "p": np.zeros(12)}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (UNCALIBRATED, "the camera is not calibrated"),
        ({**UNCALIBRATED, "width": 0, "height": 0}, "the camera is not calibrated"),
        ({"width": 0}, "image size"),
        ({"k": np.full(9, np.nan)}, "not finite"),
    ],
)
def test_a_bag_of_an_uncalibrated_camera(probe, tmp_path, pictures, fields, reason):
    bag = write_bag(tmp_path / "bag", pictures, rate=20.0, camera_info=fields)
    with probe.listen("/camera_info", CameraInfo) as infos, probe.listen("/image") as images:
        arguments = ("-p", f"source:={bag}", "-p", "wait_for_subscribers:=1")
        with Process("camera_player", *arguments, log=tmp_path / "log") as player:
            assert player.wait() == 0, player.log()
            wait_for(lambda: len(images.messages) == 4, "the images")
            assert not infos.messages
            assert f"camera_info is left out: {bag} holds one that cannot be used" in player.log()
            assert reason in player.log()
            assert "parameter calibration" in player.log()
            assert "Traceback" not in player.log()


def test_a_calibration_file_with_too_few_numbers_is_refused(tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text(CALIBRATION.replace("47.5, 0.0, 0.0, 1.0]}\ndist", "47.5]}\ndist"))
    with Process("camera_player", "-p", f"calibration:={path}", log=tmp_path / "log") as player:
        assert player.wait() == REFUSED
        assert f"{path} is not a calibration" in player.log()
        assert "K has 6 numbers instead of 9" in player.log()
        assert "Traceback" not in player.log()


def test_a_source_that_breaks_off_is_named(probe, monkeypatch, pictures):
    """A disk that is pulled out, say: what was read is played, and the exit status tells."""

    def breaking(*_):
        yield Step(0.01, Frame("0", pictures[0]))
        yield Step(0.01, Frame("1", pictures[1]))
        raise OSError("input/output error")

    monkeypatch.setattr(player_module, "steps", breaking)
    with probe.listen("/rosout", Log) as log:
        node = player_module.CameraPlayer()
        with spun_by_a_thread(node):
            wait_for(lambda: node.finished, "the end")
            assert (node.published, node.exit_status()) == (2, 1)
            expected = "the source cannot be read any further: OSError: input/output error"
            wait_for(lambda: expected in [message.msg for message in list(log.messages)], "the reason")


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("source:=/no/such/thing", "/no/such/thing does not exist"),
        ("calibration:=/no/such.yaml", "/no/such.yaml cannot be read"),
        ("image_transport:=theora", "accepted are 'raw' and 'compressed'"),
        ("rate:=fast", "rate"),
        ("rate:=-1.0", "rate"),
        ("stamps:=theirs", "accepted are 'now' and 'original'"),
        ("stamps:=original", "stamps:=original needs a bag"),
        ("publish_clock:=true", "publish_clock needs stamps:=original"),
        ("significant_bits:=17", "significant_bits"),
    ],
)
def test_what_cannot_be_played_is_named(tmp_path, argument, reason):
    with Process("camera_player", "-p", argument, log=tmp_path / "log") as player:
        assert player.wait() == REFUSED
        assert reason in player.log()
        assert "Traceback" not in player.log()
