"""The thread that turns the newest frame into published results while the node's own thread keeps answering."""

from __future__ import annotations

import threading
import time

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from sfi_ros.frames.encodings import used_bits
from sfi_ros.geometry.calibration import Calibration, CalibrationError
from sfi_ros.inference import InferenceEngine
from sfi_ros.outputs import SceneView
from sfi_ros.ros.calibrations import Calibrations
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
        topic: of the camera's images, for the log.
        calibrations: of the camera.
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
        calibrations: Calibrations,
        parameters: Parameters,
        engine: InferenceEngine,
        mailbox: Mailbox[Arrival],
        results: Results,
        monitor: Monitor,
    ):
        self._log, self._topic = node.get_logger(), topic
        self._calibrations = calibrations
        self._parameters, self._engine = parameters, engine
        self._mailbox, self._results, self._monitor = mailbox, results, monitor
        self._stopped = threading.Event()
        self._busy_since: float | None = None
        self._calibration_problem = self._logged_problem = ""
        self._bits = (0, 0)  # significant bits, and the most that any 16-bit image has used since they were set
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

    @property
    def calibration_problem(self) -> str:
        """Why the newest scene had no calibration; "" if it had one or there is none yet."""
        return self._calibration_problem

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
                if self._stopped.is_set():  # its publishers may be gone already
                    return
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
        significant_bits = parameters["significant_bits"]
        image = rgb_of(arrival.message, parameters["max_megapixels"], significant_bits)
        self._check_bits(arrival.message, significant_bits)
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
        self._results.publish(
            SceneView(scene, image, parameters["overlay_alpha"]),
            arrival.message.header,
            self._calibration(arrival.stamp, image, (width, height)),
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

    def _calibration(self, stamp: int, image: np.ndarray, size: tuple[int, int]) -> Calibration | None:
        """Return the camera's, for results of `size`; asked for last, since it may arrive after its image."""
        try:
            calibration = self._calibrations.of(stamp)
            if calibration is None:
                self._calibration_problem = f"no message arrived on {self._calibrations.topic}"
                return None
            scaled = calibration.scaled((image.shape[1], image.shape[0]), size)
        except CalibrationError as error:
            problem = f"{self._calibrations.topic}: {error}"
            if problem != self._logged_problem:  # an uncalibrated camera stays so: once is enough
                self._log.warning(f"~/camera_info is left out: {problem}")
            self._calibration_problem = self._logged_problem = problem
            return None
        self._calibration_problem = ""
        return scaled

    def _check_bits(self, message: Image | CompressedImage, significant_bits: int) -> None:
        """Warn if 16-bit images use other bits than they are taken to: the network would see black or white."""
        known_for, most = self._bits
        if known_for != significant_bits:
            most = 0
        elif isinstance(message, CompressedImage):
            return  # looked at once: it has to be decoded again for that
        bits = used_bits(message) or 0
        self._bits = (significant_bits, max(bits, most))
        if bits <= most:
            return
        what = f"16-bit images on {self._topic} use {bits} bits of each value"
        if bits > significant_bits:
            self._log.warning(
                f"{what}, so with significant_bits = {significant_bits} they are too bright: set it to 16"
            )
        elif bits <= significant_bits - 2:
            share = 100 * 2.0 ** (bits - significant_bits)
            self._log.warning(
                f"{what} and reach only {share:.3g} % of white; if the camera has 10, 12 or 14 bits at the low end, "
                "set the parameter significant_bits to that"
            )

    def _keep_rate(self, began: float) -> None:
        limit = self._parameters["max_rate"]
        if limit > 0:
            self._stopped.wait(max(0.0, began + 1 / limit - time.monotonic()))
