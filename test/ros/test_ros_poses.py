"""Where a camera is over the ground: from parameters, from TF and with the pitch of an IMU."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

import rclpy
from geometry_msgs.msg import Quaternion, TransformStamped
from rclpy.parameter import Parameter
from ros_harness import wait_for
from sensor_msgs.msg import Imu

from sfi_ros.geometry.pose import CameraPose
from sfi_ros.ros.imu_pitch import ImuPitch, pitch_of
from sfi_ros.ros.parameters import Parameters
from sfi_ros.ros.poses import CameraPoses
from sfi_ros.ros.transforms import NEWEST, PoseError, Transforms

pytest_plugins = ["ros_harness"]
pytestmark = pytest.mark.timeout(600)
SECOND = 10**9


def stamped(message, stamp: int):
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
    return message


class Buffer:
    """What this package uses of `tf2_ros.Buffer`, which is not on PyPI: one transform, known until a time."""

    def __init__(self, height: float, until: int, fixed: bool = False):
        self._height, self._until, self._fixed = height, until, fixed

    def lookup_transform(self, target: str, source: str, time):
        if (target, source) != ("base_footprint", "camera_optical"):
            raise RuntimeError(f'"{source}" passed to lookupTransform argument source_frame does not exist.')
        newest = time == NEWEST
        if not newest and not self._fixed and time.nanoseconds > self._until:
            raise RuntimeError("Lookup would require extrapolation into the future.")
        found = stamped(TransformStamped(), self._until if newest else time.nanoseconds)
        found.transform.translation.x, found.transform.translation.z = 1.2, self._height
        found.transform.rotation = Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5)  # an optical frame that looks ahead
        return found


def test_from_tf_at_the_stamp_of_the_image_or_near_it():
    transforms = Transforms(Buffer(1.5, until=100 * SECOND))
    asked = ("base_footprint", "camera_optical")
    pose = transforms.pose(*asked, 99 * SECOND, tolerance=0.1)
    assert (pose.height, pose.x) == (1.5, 1.2)
    assert (pose.pitch, pose.roll, pose.yaw) == pytest.approx((0, 0, 0), abs=1e-9)
    assert transforms.pose(*asked, 100 * SECOND + 50_000_000, tolerance=0.1) == pose
    with pytest.raises(PoseError, match=r"newest transform from camera_optical to base_footprint is 0\.50 s away"):
        transforms.pose(*asked, 100 * SECOND + 500_000_000, tolerance=0.1)
    assert Transforms(Buffer(1.5, until=0, fixed=True)).pose(*asked, 5000 * SECOND, tolerance=0.1) == pose


def test_a_transform_that_nobody_publishes_is_named():
    transforms = Transforms(Buffer(1.5, until=0))
    with pytest.raises(PoseError, match=r'no transform from camera to base_footprint: "camera" passed to'):
        transforms.pose("base_footprint", "camera", SECOND, tolerance=0.1)
    with pytest.raises(PoseError, match="the images, which name no frame_id"):
        transforms.pose("base_footprint", "", SECOND, tolerance=0.1)


def nodding(pitch: float) -> Quaternion:
    return Quaternion(y=math.sin(pitch / 2), w=math.cos(pitch / 2))


def test_pitch_is_positive_for_nose_down():
    assert pitch_of(nodding(0.1)) == pytest.approx(0.1)
    assert pitch_of(nodding(-0.3)) == pytest.approx(-0.3)
    assert pitch_of(Quaternion(z=1.0, w=0.0)) == 0
    assert pitch_of(Quaternion(x=0.0, y=0.0, z=0.0, w=0.0)) == 0


@pytest.fixture
def imu(probe):
    """An IMU's publisher and who listens to it."""
    listening = ImuPitch(probe.node, "/imu")
    publisher = probe.node.create_publisher(Imu, "/imu", 100)
    wait_for(lambda: publisher.get_subscription_count() > 0, "the subscription")

    def send(stamp: int, pitch: float, covariance: float = 0.0):
        message = stamped(Imu(orientation=nodding(pitch)), stamp)
        message.orientation_covariance[0] = covariance
        publisher.publish(message)

    yield SimpleNamespace(pitch=listening, send=send)
    listening.close()
    probe.node.destroy_publisher(publisher)


def arrived(imu, stamp: int) -> bool:
    try:
        imu.pitch.of(stamp, tolerance=1e-3)
    except LookupError:
        return False
    return True


def test_what_differs_from_the_average_counts(imu):
    with pytest.raises(LookupError, match="no orientation arrived on /imu"):
        imu.pitch.of(SECOND, tolerance=0.1)

    def first():
        imu.send(SECOND, 0.05)  # a slope; lost, perhaps: both sides have to know each other first
        return arrived(imu, SECOND)

    wait_for(first, "the first message")
    for tenth in range(1, 20):
        imu.send(SECOND + tenth * SECOND // 10, 0.05)
    imu.send(3 * SECOND, 0.07)  # braking
    imu.send(4 * SECOND, 1.0, covariance=-1.0)  # measures none
    wait_for(lambda: arrived(imu, 3 * SECOND), "the last message")
    assert imu.pitch.of(2 * SECOND, tolerance=0.1) == pytest.approx(0.0, abs=1e-4)
    assert imu.pitch.of(3 * SECOND, tolerance=0.1) == pytest.approx(0.02, abs=1e-3)
    with pytest.raises(LookupError, match=r"nearest message on /imu is 1\.00 s away from the image"):
        imu.pitch.of(4 * SECOND, tolerance=0.1)


@pytest.fixture
def parameters():
    """Parameters of a node of two cameras; `set` changes them."""
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-p", "cameras:=[front, rear]", "-p", "front.pose.imu:=/imu"], context=context)
    node = rclpy.create_node("n", context=context)
    declared = Parameters(node, is_configured=lambda: False)

    def change(**values):
        changes = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
        assert all(result.successful for result in node.set_parameters(changes))

    yield SimpleNamespace(node=node, of=declared.of, set=change)
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_from_parameters_of_each_camera(parameters):
    parameters.set(pose__height=1.4, pose__pitch=0.03, rear__pose__yaw=3.1, rear__pose__x=-0.5)
    poses = {name: CameraPoses(parameters.node, parameters.of(name), "base_footprint") for name in ("front", "rear")}
    assert poses["rear"].of("", SECOND) == CameraPose(1.4, pitch=0.03, yaw=3.1, x=-0.5)
    assert poses["rear"].warning == ""
    assert poses["front"].of("", SECOND) == CameraPose(1.4, pitch=0.03)
    assert poses["front"].warning == "the IMU's pitch is left out: no orientation arrived on /imu"
    for each in poses.values():
        each.close()


def test_the_pitch_of_the_imu_is_added_in_steps(parameters, probe):
    parameters.set(pose__height=1.4, front__pose__imu_mean_over=0.0)
    poses = CameraPoses(probe.node, parameters.of("front"), "base_footprint")
    publisher = probe.node.create_publisher(Imu, "/imu", 10)
    try:

        def pitch(nods):
            publisher.publish(stamped(Imu(orientation=nodding(nods)), SECOND))
            pose = poses.of("", SECOND)
            return None if poses.warning else pose.pitch

        wait_for(lambda: pitch(0.0213), "the IMU's pitch")
        assert poses.of("", SECOND).pitch == pytest.approx(0.022)
        assert poses.of("", 2 * SECOND).pitch == 0
        assert poses.warning.endswith("the nearest message on /imu is 1.00 s away from the image")
    finally:
        poses.close()
        probe.node.destroy_publisher(publisher)


def test_without_height_and_without_tf_the_remedy_is_named(parameters):
    try:
        import tf2_ros  # noqa: F401

        pytest.skip("tf2_ros is installed")
    except ImportError:
        pass
    poses = CameraPoses(parameters.node, parameters.of("rear"), "base_footprint")
    with pytest.raises(PoseError, match=r"tf2_ros is not installed; set the parameter pose\.height"):
        poses.of("camera", SECOND)


def test_tf_where_it_is_installed(probe):
    """The real thing: a transform that is published, looked up at the stamp of an image."""
    tf2_ros = pytest.importorskip("tf2_ros", reason="tf2_ros is not installed: not on PyPI")
    transforms = Transforms.of(probe.node)
    broadcaster = tf2_ros.StaticTransformBroadcaster(probe.node)
    message = TransformStamped(child_frame_id="camera_optical")
    message.header.frame_id = "base_footprint"
    message.transform.translation.z = 1.5
    message.transform.rotation = Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5)
    broadcaster.sendTransform(message)

    def found():
        try:
            return transforms.pose("base_footprint", "camera_optical", 5 * SECOND, tolerance=0.1)
        except PoseError:
            return None

    assert wait_for(found, "the transform").height == pytest.approx(1.5)
    transforms.close()
