"""Listens to a camera and to the node, and puts together what belongs to one image: for the demo's recorder."""

from __future__ import annotations

import queue
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from sfi_ros.frames.encodings import view
from sfi_ros.frames.stamps import nanoseconds
from sfi_ros.inference import Scene, Timing
from sfi_ros.outputs import SCENE_OUTPUTS, scene_of
from sfi_ros.ros.image_messages import rgb_of

_NO_TIMING = Timing(0.0, 0.0, 0.0)  # the node tells its times in diagnostics


@dataclass(frozen=True)
class Recorded:
    """One image and what the node made of it.

    Attributes:
        number: of the image, from 0, in order of arrival.
        image: (H, W, 3) uint8 RGB.
        scene: of the image; its timing is empty.
        latency: seconds from the image's stamp to the arrival of the last result.
    """

    number: int
    image: np.ndarray
    scene: Scene
    latency: float


@dataclass
class _Pending:
    number: int
    image: np.ndarray
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    arrived: int = 0  # nanoseconds, of the last part


class SceneListener(Node):
    """Subscribes to a camera's images, the node's results and /diagnostics.

    Attributes:
        complete: finished `Recorded`s, for another thread to take.
        frames_in: images seen.
        frames_out: images whose results have all arrived.
        status: what the node said last on /diagnostics, None before.
    """

    def __init__(self, camera: str, results: str):
        super().__init__("sfi_recorder")
        self.complete: queue.Queue[Recorded] = queue.Queue()
        self.frames_in = self.frames_out = 0
        self.status: DiagnosticStatus | None = None
        self._name = results.lstrip("/")
        self._pending: dict[int, _Pending] = {}
        self._newest = self._newest_done = -1
        deep = QoSProfile(depth=20)  # reliable: the recorder shall see every image, although the node need not
        self.create_subscription(Image, camera, self._image, deep)
        for output in SCENE_OUTPUTS:
            self.create_subscription(Image, f"{results}/{output.name}", partial(self._result, output.name), deep)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._diagnostics, 10)

    @property
    def finished(self) -> bool:
        """Whether the newest image seen has all its results."""
        return self._newest >= 0 and self._newest == self._newest_done

    def _image(self, message: Image) -> None:
        stamp = _stamp(message)
        waiting = self._pending.setdefault(stamp, _Pending(self.frames_in, np.empty(0)))
        waiting.number, waiting.image = self.frames_in, rgb_of(message)
        self._newest = stamp
        self.frames_in += 1
        self._hand_over(stamp)

    def _result(self, name: str, message: Image, info: dict[str, int]) -> None:
        stamp = _stamp(message)
        # A result may overtake its image on the way here: only what is left over in the end is foreign.
        waiting = self._pending.setdefault(stamp, _Pending(-1, np.empty(0)))
        waiting.parts[name] = view(message)
        # When it reached this process; when Python got round to it says more about the recorder than about the node.
        arrived = info["received_timestamp"] or self.get_clock().now().nanoseconds
        waiting.arrived = max(waiting.arrived, arrived)
        self._hand_over(stamp)

    def _hand_over(self, stamp: int) -> None:
        waiting = self._pending[stamp]
        if waiting.number < 0 or len(waiting.parts) < len(SCENE_OUTPUTS):
            return
        scene = scene_of(waiting.parts, _NO_TIMING)
        latency = (waiting.arrived - stamp) * 1e-9
        self.complete.put(Recorded(waiting.number, waiting.image, scene, latency))
        self.frames_out += 1
        self._newest_done = max(self._newest_done, stamp)
        # Older images never get results any more: the node takes the newest.
        self._pending = {s: p for s, p in self._pending.items() if s > stamp or p.number < 0}

    def stamps_without_image(self) -> int:
        """Results whose stamp is that of no image seen."""
        return sum(waiting.number < 0 for waiting in self._pending.values())

    def _diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f"{self._name}: camera":
                self.status = status


def _stamp(message: Image) -> int:
    return nanoseconds(message.header.stamp)
