"""Which of a camera's calibrations belongs to an image, whatever way the camera publishes them."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_harness import wait_for
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from sfi_ros.geometry.calibration import Calibration, CalibrationError, camera_matrix
from sfi_ros.ros.calibrations import Calibrations
from sfi_ros.ros.camera_info import camera_info_message
from sfi_ros.ros.topics import camera_info_topic, camera_topics, image_topic

pytest_plugins = ["ros_harness"]
pytestmark = pytest.mark.timeout(600)
SECOND = 10**9
VOLATILE = QoSProfile(depth=10)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)


@pytest.fixture
def calibrations(probe):
    calibrations = Calibrations(probe.node, "/camera_info")
    yield calibrations
    calibrations.close()


def message(stamp: int, width: int) -> CameraInfo:
    """A calibration that is told from others by its width."""
    header = Header()
    header.stamp.sec, header.stamp.nanosec = divmod(stamp, SECOND)
    return camera_info_message(Calibration.pinhole(width, 48, camera_matrix(width, 48, 60.0)), header)


def publish(probe, calibrations, messages, qos=VOLATILE):
    """Publish calibrations until the last has arrived."""
    publisher = probe.node.create_publisher(CameraInfo, "/camera_info", qos)
    wait_for(lambda: publisher.get_subscription_count() > 0, "the subscription")

    def all_arrived():
        publisher.publish(message(0, 1))  # lost, perhaps: both sides have to know each other first
        return calibrations.of(0) is not None

    wait_for(all_arrived, "the first calibration")
    for one in messages:
        publisher.publish(one)
    last = messages[-1]
    stamp = last.header.stamp.sec * SECOND + last.header.stamp.nanosec
    wait_for(lambda: calibrations.of(stamp).width == last.width, "the last calibration")
    probe.node.destroy_publisher(publisher)


def test_none_is_known_before_one_arrives(calibrations):
    assert calibrations.of(5) is None


def test_the_calibration_with_the_stamp_of_the_image(probe, calibrations):
    """A camera that changes its calibration: an image gets the one that was published with it, not the newest."""
    publish(probe, calibrations, [message(100 * SECOND + n * SECOND // 30, 100 + n) for n in range(10)])
    for n in range(10):
        assert calibrations.of(100 * SECOND + n * SECOND // 30).width == 100 + n


def test_the_nearest_where_none_has_that_stamp(probe, calibrations):
    publish(probe, calibrations, [message(100 * SECOND + n * SECOND // 10, 100 + n) for n in range(10)])
    assert calibrations.of(100 * SECOND + 3 * SECOND // 10 + 4_000_000).width == 103
    assert calibrations.of(100 * SECOND + 12 * SECOND // 10).width == 109


def test_the_newest_where_none_is_near(probe, calibrations):
    """Images stamped by another clock than calibrations."""
    publish(probe, calibrations, [message(100 * SECOND + n * SECOND // 10, 100 + n) for n in range(5)])
    assert calibrations.of(7000 * SECOND).width == 104
    assert calibrations.of(5 * SECOND).width == 104
    assert calibrations.of(-5 * SECOND).width == 104


def test_stamps_that_are_never_set(probe, calibrations):
    publish(probe, calibrations, [message(0, 100), message(0, 101)])
    assert calibrations.of(0).width == 101
    assert calibrations.of(7000 * SECOND).width == 101


def test_one_that_was_published_once_and_latched_before_anybody_subscribed(probe):
    publisher = probe.node.create_publisher(CameraInfo, "/camera_info", LATCHED)
    publisher.publish(message(3 * SECOND, 77))
    late = Calibrations(probe.node, "/camera_info")

    def arrived():
        late.follow_publishers()
        return late.of(900 * SECOND)

    try:
        assert wait_for(arrived, "the latched calibration").width == 77
        publisher.publish(message(4 * SECOND, 78))  # still followed
        wait_for(lambda: late.of(4 * SECOND).width == 78, "a new calibration")
    finally:
        late.close()
        probe.node.destroy_publisher(publisher)
    assert late.of(4 * SECOND) is None


def test_best_effort_calibrations_are_taken_and_not_asked_for_what_is_past(probe, calibrations):
    publish(
        probe,
        calibrations,
        [message(SECOND, 55)],
        QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
    )
    calibrations.follow_publishers()
    assert len(probe.node.get_subscriptions_info_by_topic("/camera_info")) == 1


def test_what_is_no_calibration_is_named(probe, calibrations):
    publish(probe, calibrations, [message(SECOND, 55)])
    publisher = probe.node.create_publisher(CameraInfo, "/camera_info", VOLATILE)
    empty = CameraInfo(width=640, height=480)
    empty.header.stamp.sec = 50

    def refused():
        publisher.publish(empty)
        try:
            calibrations.of(50 * SECOND)
        except CalibrationError as error:
            return str(error)
        return None

    assert "not calibrated" in wait_for(refused, "a refusal")
    assert calibrations.of(SECOND).width == 55
    probe.node.destroy_publisher(publisher)


@pytest.mark.parametrize(
    ("remappings", "namespace", "raw", "compressed", "info"),
    [
        ([], "", "/image", "/image/compressed", "/camera_info"),
        ([], "/front", "/front/image", "/front/image/compressed", "/front/camera_info"),
        (["image:=/cam/image_raw"], "", "/cam/image_raw", "/cam/image_raw/compressed", "/cam/camera_info"),
        (["image:=image_raw"], "/front", "/front/image_raw", "/front/image_raw/compressed", "/front/camera_info"),
        (
            ["image:=/cam/image_raw", "camera_info:=/calibration"],
            "",
            "/cam/image_raw",
            "/cam/image_raw/compressed",
            "/calibration",
        ),
        (["image:=/cam/image/compressed"], "", "/cam/image/compressed", "/cam/image/compressed", "/cam/camera_info"),
        (["image:=/a/image", "/a/camera_info:=/b/info"], "", "/a/image", "/a/image/compressed", "/b/info"),
    ],
)
def test_topics_as_image_transport_names_them(remappings, namespace, raw, compressed, info):
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    arguments = [word for remapping in remappings for word in ("-r", remapping)]
    node = rclpy.create_node(
        "n", context=context, namespace=namespace, cli_args=["--ros-args", *arguments] if arguments else None
    )
    try:
        assert image_topic(node, "raw") == raw
        assert image_topic(node, "compressed") == compressed
        assert camera_info_topic(node) == info
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    ("remappings", "named", "image", "info"),
    [
        ([], {}, "/car/front/image_raw/compressed", "/car/front/camera_info"),
        ([], {"image": "/cam0/image"}, "/cam0/image/compressed", "/cam0/camera_info"),
        ([], {"image": "left/image", "camera_info": "info"}, "/car/left/image/compressed", "/car/info"),
        (["front/image_raw:=/cam0/image"], {}, "/cam0/image/compressed", "/cam0/camera_info"),
        (["front/camera_info:=/info"], {}, "/car/front/image_raw/compressed", "/info"),
        (["image:=/other"], {}, "/car/front/image_raw/compressed", "/car/front/camera_info"),
    ],
)
def test_topics_of_one_of_several_cameras(remappings, named, image, info):
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    arguments = [word for remapping in remappings for word in ("-r", remapping)]
    node = rclpy.create_node(
        "n", context=context, namespace="/car", cli_args=["--ros-args", *arguments] if arguments else None
    )
    try:
        topics = camera_topics(node, "front", "compressed", **named)
        assert (topics.image, topics.camera_info) == (image, info)
        assert (topics.results, topics.name) == ("front/n", "/car/front/n")
        assert camera_topics(node, "", "raw").name == "/car/n"
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
