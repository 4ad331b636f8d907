"""What the vehicle of the synthetic street tells beside its images: odometry, an IMU, TF, and the true pose."""

from __future__ import annotations

import math

import numpy as np
from geometry_msgs.msg import Point, Quaternion, TransformStamped, Vector3
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from sensor_msgs.msg import Imu
from std_msgs.msg import Header

from sfi_ros.frames.frame import Frame
from sfi_ros.geometry.motion import PlanarPose
from sfi_ros.ros.qos import publish_on
from sfi_ros.synthetic import SyntheticStreet

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # not on PyPI
    TFMessage = None

ODOM, BASE = "odom", "base_footprint"
_AVERAGED = range(0, 150, 5)  # frames of the drive; the vehicle nods in each of them
_DEGREES = ("pitch", "roll", "yaw")


class TrueMotion:
    """Publishes `odom` (nav_msgs/Odometry), `imu` (sensor_msgs/Imu) and, where tf2_msgs is installed, /tf.

    The average pose of the camera is in the node's parameters `pose.height`, `pose.pitch` and so on, named as those of
    `inpaint_node`; by how much the vehicle nods is in the IMU's orientation.

    Args:
        node: to publish with.
        street: whose motion it is.
        rate: at which its frames are played, per second.
    """

    def __init__(self, node: Node, street: SyntheticStreet, rate: float):
        self._rate = rate
        poses = [street.pose(index) for index in _AVERAGED]
        self._pitch = float(np.mean([pose.pitch for pose in poses]))
        self._before: PlanarPose | None = None
        described = ParameterDescriptor(description="of the camera, on average; see inpaint_node", read_only=True)
        average = {name: float(np.mean([getattr(pose, name) for pose in poses])) for name in ("height", *_DEGREES)}
        for name, value in average.items():
            node.declare_parameter(f"pose.{name}", value, described)
        self._odometry = publish_on(node, Odometry, "odom")
        self._imu = publish_on(node, Imu, "imu")
        self._tf = None if TFMessage is None else node.create_publisher(TFMessage, "/tf", 100)
        told = " ".join(f"-p pose.{name}:={value:.4f}" for name, value in average.items())
        how = "TF" if self._tf is not None else f"no TF, as tf2_msgs is not installed; for inpaint_node: {told}"
        node.get_logger().info(f"odometry on {self._odometry.topic_name}, IMU on {self._imu.topic_name}, {how}")

    def publish(self, frame: Frame, header: Header) -> None:
        """Tell where vehicle and camera were.

        Args:
            frame: of the street.
            header: of its image.
        """
        pose, vehicle = frame.pose, frame.vehicle
        if pose is None or vehicle is None:
            return
        turned = _about_z(vehicle.yaw)
        step = PlanarPose() if self._before is None else vehicle.seen_from(self._before)
        self._before = vehicle
        odometry = Odometry(header=Header(stamp=header.stamp, frame_id=ODOM), child_frame_id=BASE)
        odometry.pose.pose.position = Point(x=vehicle.x, y=vehicle.y)
        odometry.pose.pose.orientation = turned
        odometry.twist.twist.linear = Vector3(x=step.x * self._rate, y=step.y * self._rate)
        odometry.twist.twist.angular = Vector3(z=step.yaw * self._rate)
        self._odometry.publish(odometry)
        imu = Imu(header=Header(stamp=header.stamp, frame_id=BASE))
        imu.orientation = _about_z(vehicle.yaw, nods=pose.pitch - self._pitch)
        imu.angular_velocity_covariance[0] = imu.linear_acceleration_covariance[0] = -1.0  # it measures neither
        self._imu.publish(imu)
        if self._tf is not None:
            of_vehicle = TransformStamped(header=odometry.header, child_frame_id=BASE)
            of_vehicle.transform.translation = Vector3(x=vehicle.x, y=vehicle.y)
            of_vehicle.transform.rotation = turned
            of_camera = TransformStamped(header=imu.header, child_frame_id=header.frame_id)
            of_camera.transform.translation = Vector3(x=pose.x, y=pose.y, z=pose.height)
            of_camera.transform.rotation = Quaternion(**dict(zip("xyzw", pose.quaternion.tolist(), strict=True)))
            self._tf.publish(TFMessage(transforms=[of_vehicle, of_camera]))


def _about_z(yaw: float, nods: float = 0.0) -> Quaternion:
    """Return a turn to the left after one with the nose down."""
    cy, sy, cp, sp = math.cos(yaw / 2), math.sin(yaw / 2), math.cos(nods / 2), math.sin(nods / 2)
    return Quaternion(x=-sy * sp, y=cy * sp, z=sy * cp, w=cy * cp)
