"""Where a camera is over the ground: from parameters or from TF, with the IMU's pitch added where there is one."""

from __future__ import annotations

from dataclasses import replace

from rclpy.node import Node

from sfi_ros.geometry.pose import CameraPose
from sfi_ros.ros.imu_pitch import ImuPitch
from sfi_ros.ros.parameters import CameraParameters
from sfi_ros.ros.transforms import PoseError, Transforms

_STEP = 0.002
"""Radians in which the IMU's pitch is taken: a pose that is new costs tens of milliseconds, one seen lately nothing."""

_GIVEN = ("height", "pitch", "roll", "yaw", "x", "y")


class CameraPoses:
    """Tells the pose of one camera.

    Args:
        node: to subscribe with.
        parameters: of the camera, read anew for every image.
        frame: on the ground, that poses are in.

    Attributes:
        warning: what is left out of the newest pose, and why; "" if nothing is.
    """

    def __init__(self, node: Node, parameters: CameraParameters, frame: str):
        self._parameters, self._frame = parameters, frame
        self._transforms = None if parameters["pose.height"] > 0 else Transforms.of(node)
        topic = parameters["pose.imu"]
        self._imu = ImuPitch(node, topic) if topic else None
        self.warning = ""

    def close(self) -> None:
        """End the subscriptions."""
        for source in (self._transforms, self._imu):
            if source is not None:
                source.close()

    def of(self, camera_frame: str, stamp: int) -> CameraPose:
        """Return where the camera was when an image was taken.

        Args:
            camera_frame: the camera's optical frame, as in the image's header.
            stamp: of the image, nanoseconds.

        Raises:
            PoseError: it is not known.
            OptionError: see `CameraPose`.
        """
        parameters = self._parameters
        tolerance = parameters["pose.tolerance"]
        if parameters["pose.height"] > 0:
            pose = CameraPose(**{name: parameters[f"pose.{name}"] for name in _GIVEN})
        elif self._transforms is not None:
            pose = self._transforms.pose(self._frame, camera_frame, stamp, tolerance)
        else:
            raise PoseError("the camera's pose is unknown: tf2_ros is not installed; set the parameter pose.height")
        self.warning = ""
        if self._imu is not None:
            self._imu.mean_over = parameters["pose.imu_mean_over"]
            try:
                nods = round(self._imu.of(stamp, tolerance) / _STEP) * _STEP
                pose = replace(pose, pitch=pose.pitch + nods)
            except LookupError as error:
                self.warning = f"the IMU's pitch is left out: {error}"
        return pose
