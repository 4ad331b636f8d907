"""The thread that turns the newest frame into published results while the node's own thread keeps answering."""

from __future__ import annotations

import threading
import time

from rclpy.node import Node

from sfi_ros.geometry.calibration import Calibration, CalibrationError
from sfi_ros.inference import InferenceEngine
from sfi_ros.ros.camera import Arrival
from sfi_ros.ros.image_messages import ImageError, rgb_of
from sfi_ros.ros.mailbox import Mailbox
from sfi_ros.ros.monitor import Monitor
from sfi_ros.ros.parameters import Parameters
from sfi_ros.ros.results import Results

_IDLE_WAIT = 0.2  # seconds until an empty mailbox is looked at again: how fast `stop` works
_SAY_EVERY = 5.0  # seconds between two log messages about the same kind of trouble


class Worker:
    """Takes frames from a mailbox until it is stopped.

    Args:
        node: for its log.
        topic: of the camera, for the log.
        parameters: read anew for every frame.
        engine: infers.
        mailbox: where frames come from.
        results: where scenes go.
        monitor: what counts them.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        parameters: Parameters,
        engine: InferenceEngine,
        mailbox: Mailbox[Arrival],
        results: Results,
        monitor: Monitor,
    ):
        self._log, self._topic = node.get_logger(), topic
        self._parameters, self._engine = parameters, engine
        self._mailbox, self._results, self._monitor = mailbox, results, monitor
        self._stopped = threading.Event()
        self._busy_since: float | None = None
        # A daemon: a frame that hangs in a driver must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="sfi-worker", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def busy_for(self) -> float:
        """Seconds since it took the frame it works on; 0 while it waits."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self, timeout: float) -> bool:
        """Stop after the frame at hand; False if that took longer than `timeout` seconds."""
        self._stopped.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.is_set():
            arrival = self._mailbox.take(_IDLE_WAIT)
            if arrival is None:
                continue
            began = time.monotonic()
            self._busy_since = began
            try:
                self._work(arrival)
            except ImageError as error:
                self._monitor.rejected(str(error))
                self._log.warning(f"frame from {self._topic} rejected: {error}", throttle_duration_sec=_SAY_EVERY)
            except Exception as error:
                self._monitor.failed(f"{type(error).__name__}: {error}")
                self._log.error(
                    f"frame from {self._topic} failed: {type(error).__name__}: {error}",
                    throttle_duration_sec=_SAY_EVERY,
                )
            finally:
                self._busy_since = None
            self._keep_rate(began)

    def _work(self, arrival: Arrival) -> None:
        started = time.monotonic()
        parameters = self._parameters
        image = rgb_of(arrival.message, parameters["max_megapixels"])
        decoded = time.monotonic()
        self._engine.output_size = parameters["output_size"]
        self._engine.foreground_threshold = parameters["foreground_threshold"]
        try:
            scene = self._engine(image)
        except ValueError as error:  # the engine refuses images of an absurd shape
            raise ImageError(str(error)) from error
        inferred = time.monotonic()
        if self._stopped.is_set():
            return
        height, width = scene.foreground.shape
        calibration = None
        if arrival.info is not None:
            try:
                camera = Calibration.from_message(arrival.info)
                calibration = camera.scaled((image.shape[1], image.shape[0]), (width, height))
            except CalibrationError as error:
                self._log.warning(f"~/camera_info is left out: {error}", throttle_duration_sec=_SAY_EVERY)
        self._results.publish(
            scene,
            image,
            arrival.message.header,
            calibration,
            parameters["overlay_alpha"],
            time.monotonic() - arrival.at,
        )
        stages = {
            "wait": started - arrival.at,
            "decode": decoded - started,
            "inference": inferred - decoded,
            "publish": time.monotonic() - inferred,
        }
        if arrival.transport is not None:
            stages = {"transport": arrival.transport, **stages}
        self._monitor.published(stages)

    def _keep_rate(self, began: float) -> None:
        limit = self._parameters["max_rate"]
        if limit > 0:
            self._stopped.wait(max(0.0, began + 1 / limit - time.monotonic()))
