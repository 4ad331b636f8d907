"""The ground that one camera sees, in metres: its layout, and `~/ground_points` while somebody subscribes to them."""

from __future__ import annotations

import time

from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from sfi_ros.errors import SfiError
from sfi_ros.frames.own_vehicle import read_own_vehicle
from sfi_ros.frames.stamps import nanoseconds
from sfi_ros.geometry.calibration import CalibrationError
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.ground_points import GroundPoints
from sfi_ros.geometry.ground_table import GroundTable
from sfi_ros.geometry.layout import GroundLayout, LayoutMaker, lay_out
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.inference.scene import Scene
from sfi_ros.ros.calibrations import Calibrations
from sfi_ros.ros.ground_messages import PointsMessage
from sfi_ros.ros.parameters import CameraParameters
from sfi_ros.ros.poses import CameraPoses
from sfi_ros.ros.qos import publish_on

_TOLERATED = 3.0  # seconds of images without a layout before the log says so: calibrations and transforms may come late


class CameraGround:
    """Lays the scenes of one camera out on the ground, while that is wanted.

    Args:
        node: to publish and listen with.
        prefix: of the topics.
        parameters: of the camera.
        grid: of the layouts.

    Attributes:
        problem: why the newest scene has no layout; "" if it has one or none was wanted.
        warning: what is left out of it; "" if nothing is.
        pose: of the newest layout, None before there is one.

    Raises:
        OptionError: `layout.own_vehicle` is neither an image nor a polygon.
    """

    def __init__(self, node: Node, prefix: str, parameters: CameraParameters, grid: GroundGrid):
        self._node, self._prefix, self._parameters, self._grid = node, prefix, parameters, grid
        self._maker = LayoutMaker(
            grid,
            read_own_vehicle(parameters["layout.own_vehicle"], "layout.own_vehicle"),
            kerb_height=parameters["layout.kerb_height"],
            rectified=parameters["layout.rectified"],
        )
        self._publisher: Publisher | None = publish_on(node, PointCloud2, f"{prefix}/ground_points")
        self._poses: CameraPoses | None = None
        self._points: tuple[GroundTable, GroundPoints] | None = None
        self._cloud: PointsMessage | None = None
        self._without_since: float | None = None
        self._said = False
        self.problem = self.warning = ""
        self.pose: CameraPose | None = None

    def close(self) -> None:
        """Destroy the publisher and end the subscriptions."""
        self.stop()
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None

    def points_wanted(self) -> bool:
        """Whether anybody subscribes to ~/ground_points."""
        return self._publisher is not None and self._publisher.get_subscription_count() > 0

    @property
    def started(self) -> bool:
        """Whether layouts are made."""
        return self._poses is not None

    def start(self) -> None:
        """Listen to what tells the camera's pose: layouts are wanted."""
        if self._poses is None:
            self._poses = CameraPoses(self._node, self._parameters, self._grid.frame)

    def stop(self) -> None:
        """Listen no more."""
        poses, self._poses = self._poses, None
        if poses is not None:
            poses.close()
        self.problem, self.warning, self.pose = "", "", None
        self._without_since, self._said = None, False

    # --- the worker's thread ---

    def lay_out(
        self, scene: Scene, header: Header, image_size: tuple[int, int], calibrations: Calibrations
    ) -> GroundLayout | None:
        """Lay a scene out and publish its points, where that is wanted and possible; `problem` then says why not.

        Args:
            scene: of an image.
            header: of the image.
            image_size: its width and height.
            calibrations: of its camera.
        """
        poses = self._poses
        if poses is None:
            return None
        try:
            table = self._table(poses, header, image_size, scene.foreground.shape, calibrations)
        except SfiError as error:
            self.problem = str(error)
            self._say_once(time.monotonic())
            return None
        self._without_since, self._said = None, False
        self.problem, self.warning, self.pose = "", poses.warning, table.camera.pose
        layout = lay_out(table, scene.foreground, scene.background, scene.confidence)
        if self.points_wanted():
            self._publish_points(table, layout, scene, header)
        return layout

    def _say_once(self, now: float) -> None:
        """Log why there is no layout if there has been none for a while; again only after there was one."""
        self._without_since = since = self._without_since or now
        if not self._said and now - since >= _TOLERATED:
            self._said = True
            self._node.get_logger().warning(
                f"{self._prefix}/ground_points and the layout lack this camera: {self.problem}"
            )

    def _table(
        self,
        poses: CameraPoses,
        header: Header,
        image_size: tuple[int, int],
        shape: tuple[int, int],
        calibrations: Calibrations,
    ) -> GroundTable:
        stamp = nanoseconds(header.stamp)
        calibration = calibrations.of(stamp)
        if calibration is None:
            raise CalibrationError(f"no calibration arrived on {calibrations.topic}")
        if calibration.image_size != image_size:
            of_calibration, of_image = ("x".join(map(str, size)) for size in (calibration.image_size, image_size))
            raise CalibrationError(
                f"{calibrations.topic} is for images of {of_calibration}, the camera's have {of_image}"
            )
        height, width = shape
        return self._maker.table(calibration, poses.of(header.frame_id, stamp), (width, height))

    def _publish_points(self, table: GroundTable, layout: GroundLayout, scene: Scene, header: Header) -> None:
        shape = scene.foreground.shape
        if self._points is None or self._points[0] is not table:
            self._points = table, GroundPoints.of(table)
        if self._cloud is None or self._cloud.shape != shape:
            self._cloud = PointsMessage(shape, self._grid.frame)
        ground = self._points[1]
        evidence = ground.evidence(layout, scene.foreground)
        points = ground.known(evidence)
        self._publisher.publish(self._cloud.filled(points, scene.background, evidence, scene.confidence, header.stamp))
