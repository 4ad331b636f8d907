"""One camera of the node: where its images come from, what happens to them, and where their results go."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from sfi_ros.inference.images import check_image
from sfi_ros.inference.scene import Scene
from sfi_ros.inference.temporal import TemporalFilter
from sfi_ros.network.metadata import Metadata
from sfi_ros.outputs import SceneView
from sfi_ros.ros import diagnostics
from sfi_ros.ros.bit_depth import BitDepth
from sfi_ros.ros.calibrations import Calibrations
from sfi_ros.ros.camera import Arrival, Camera
from sfi_ros.ros.camera_ground import CameraGround
from sfi_ros.ros.image_messages import rgb_of
from sfi_ros.ros.layouts import Layouts
from sfi_ros.ros.mailbox import Mailbox
from sfi_ros.ros.monitor import Monitor
from sfi_ros.ros.parameters import CameraParameters
from sfi_ros.ros.results import Results
from sfi_ros.ros.topics import CameraTopics, camera_topics

_SAY_EVERY = 5.0  # seconds between two log messages about the same kind of trouble
_LIMITS = ("stale_warn", "stale_error", "latency_warn", "latency_error", "stall_error")


@dataclass(frozen=True)
class Frame:
    """An image on its way through the network.

    Attributes:
        channel: of its camera.
        arrival: as it came.
        image: (H, W, 3) uint8 RGB.
        output_size, foreground_threshold, memory: for the engine; see there.
        began, decoded: `time.monotonic` seconds.
    """

    channel: Channel
    arrival: Arrival
    image: np.ndarray
    output_size: str
    foreground_threshold: float
    memory: TemporalFilter | None
    began: float
    decoded: float


class Channel:
    """One of the node's cameras.

    The node's thread opens, activates and closes it as the lifecycle goes on; the worker's thread lets `decode` and
    `publish` turn its images into results.

    Args:
        node: to subscribe and publish with.
        camera: name of the camera; "" for the only one.
        parameters: of this camera, read anew for every frame.
        mailbox: where the newest frame waits for the worker.
    """

    def __init__(self, node: Node, camera: str, parameters: CameraParameters, mailbox: Mailbox[Arrival]):
        self._node, self._name, self._parameters, self._mailbox = node, camera, parameters, mailbox
        self._log = node.get_logger()
        self.monitor = Monitor()
        self._results: Results | None = None
        self._layouts: Layouts | None = None
        self._ground: CameraGround | None = None
        self._calibrations: Calibrations | None = None
        self._camera: Camera | None = None
        self._bit_depth = BitDepth(node, self.topics.image)
        self._memory = TemporalFilter()

    @property
    def topics(self) -> CameraTopics:
        """Their names, as the parameters are now."""
        named = {name: self._parameters[name] for name in ("image", "camera_info")} if self._name else {}
        return camera_topics(self._node, self._name, self._parameters["image_transport"], **named)

    # --- the node's thread ---

    def open(self, weights: Metadata, weights_name: str, layouts: Layouts) -> None:
        """Make the publishers: the node is configured; see `Results`.

        Raises:
            OptionError: see `CameraGround`.
        """
        prefix = self.topics.results
        self._ground = CameraGround(self._node, prefix, self._parameters, layouts.grid)
        self._results = Results(self._node, weights, weights_name, prefix)
        self._layouts = layouts

    def activate(self) -> None:
        """Listen for calibrations, and from then on to the camera as `follow_demand` says."""
        topics = self.topics
        self.monitor.start()
        self._mailbox.clear()
        self._memory = TemporalFilter()
        self._bit_depth = BitDepth(self._node, topics.image)
        self._calibrations = Calibrations(self._node, topics.camera_info)
        self._log.info(f"active: camera {topics.image}, calibration {topics.camera_info}, results in {topics.name}/")

    def follow_demand(self) -> None:
        """Subscribe to the camera while results are wanted, and only then; to be called now and then while active."""
        ground_wanted = self._layouts.wanted() or self._ground.points_wanted()
        if ground_wanted:
            self._ground.start()
        else:
            self._ground.stop()
        wanted = ground_wanted or not self._parameters["lazy"] or self._results.wanted()
        if wanted and self._camera is None:
            self.monitor.resume()
            transport = self._parameters["image_transport"]
            self._camera = Camera(self._node, self.topics.image, transport, self._mailbox, self.monitor)
        elif not wanted:
            self._unsubscribe()

    def deactivate(self) -> None:
        """Listen to nothing any more."""
        self._unsubscribe()
        if self._ground is not None:
            self._ground.stop()
        if self._calibrations is not None:
            self._calibrations.close()

    def close(self) -> None:
        """Destroy the publishers."""
        for publishers in (self._results, self._ground):
            if publishers is not None:
                publishers.close()
        self._results = self._ground = self._layouts = None

    def status(self, condition: diagnostics.Condition) -> DiagnosticStatus:
        """Judge this camera, and log what keeps its images from arriving; to be called now and then.

        Args:
            condition: of the node; what is known of the camera is added to it.
        """
        topics, camera, calibrations = self.topics, self._camera, self._calibrations
        if calibrations is not None:
            calibrations.follow_publishers()
        if camera is not None:
            camera.warn()
        wanted = self._results is not None and self._results.calibration_wanted()
        condition = replace(
            condition,
            demanded=camera is not None,
            camera_problem=camera.problems() if camera else "",
            remedy_for_loss=camera.remedy_for_loss if camera else "",
            calibration_problem=calibrations.problem if calibrations is not None and wanted else "",
            facts={"camera topic": topics.image, "calibration topic": topics.camera_info, **condition.facts},
        )
        limits = diagnostics.Limits(**{name: self._parameters[f"diagnostics.{name}"] for name in _LIMITS})
        return diagnostics.status(f"{topics.name[1:]}: camera", condition, self.monitor.snapshot(), limits)

    def layout_status(self, lifecycle: str) -> DiagnosticStatus:
        """Judge what this camera contributes to the layout, in this state of the node."""
        ground = self._ground
        if lifecycle == "active" and (ground is None or not ground.started):
            lifecycle = "idle"
        problem, warning, pose = (ground.problem, ground.warning, ground.pose) if ground else ("", "", None)
        return diagnostics.layout_status(f"{self.topics.name[1:]}: layout", lifecycle, problem, warning, pose)

    def _unsubscribe(self) -> None:
        if self._camera is not None:
            self._camera.close()
            self._camera = None

    # --- the worker's thread ---

    def decode(self, arrival: Arrival) -> Frame:
        """Make an image of a message; the next one is given out when `max_rate` allows it.

        Raises:
            ImageError: it cannot be decoded, or is of an absurd shape.
        """
        parameters = self._parameters
        began = time.monotonic()
        if (limit := parameters["max_rate"]) > 0:
            self._mailbox.rest(began + 1 / limit)
        significant_bits = parameters["significant_bits"]
        image = check_image(rgb_of(arrival.message, parameters["max_megapixels"], significant_bits))
        self._bit_depth.check(arrival.message, significant_bits)
        size, threshold = parameters["output_size"], parameters["foreground_threshold"]
        memory = self._memory if parameters["temporal"] else None
        if memory is not None:
            memory.follow(arrival.stamp * 1e-9)
        return Frame(self, arrival, image, size, threshold, memory, began, time.monotonic())

    def publish(self, frame: Frame, scene: Scene, inferred: float) -> None:
        """Publish the scene of a frame that the network was done with at `inferred`, `time.monotonic` seconds."""
        arrival, (height, width) = frame.arrival, scene.foreground.shape
        of_image, of_result = (frame.image.shape[1], frame.image.shape[0]), (width, height)
        self._results.publish(
            SceneView(scene, frame.image, self._parameters["overlay_alpha"]),
            arrival.message.header,
            self._calibrations.of_result(arrival.stamp, of_image, of_result),
            time.monotonic() - arrival.at,
        )
        layout = self._ground.lay_out(scene, arrival.message.header, of_image, self._calibrations)
        if layout is not None:
            self._layouts.add(self._name, layout, arrival.message.header.stamp)
        stages = {
            "wait": frame.began - arrival.at,
            "decode": frame.decoded - frame.began,
            "inference": inferred - frame.decoded,
            "publish": time.monotonic() - inferred,
        }
        if arrival.transport is not None:
            stages = {"transport": arrival.transport, **stages}
        self.monitor.published(stages)

    def reject(self, reason: str) -> None:
        """Count and log a message that is no image."""
        self.monitor.rejected(reason)
        self._log.warning(f"frame from {self.topics.image} rejected: {reason}", throttle_duration_sec=_SAY_EVERY)

    def fail(self, error: Exception) -> None:
        """Count and log a frame that could not be inferred or published."""
        reason = f"{type(error).__name__}: {error}"
        self.monitor.failed(reason)
        self._log.error(f"frame from {self.topics.image} failed: {reason}", throttle_duration_sec=_SAY_EVERY)
