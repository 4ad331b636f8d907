"""The thread that turns the newest frames into published results while the node's own thread keeps answering."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import TypeVar

from sfi_ros.inference import InferenceEngine
from sfi_ros.ros.camera import Arrival
from sfi_ros.ros.channel import Channel, Frame
from sfi_ros.ros.image_messages import ImageError
from sfi_ros.ros.layouts import Layouts
from sfi_ros.ros.mailbox import Mailboxes
from sfi_ros.ros.parameters import Parameters

T = TypeVar("T")
_IDLE_WAIT = 0.2  # seconds until empty mailboxes are looked at again: how fast `stop` works


class Worker:
    """Takes the newest frame of each camera until it is stopped; those that are there together share a pass.

    Args:
        channels: of the cameras, by name.
        mailboxes: where their frames come from.
        parameters: of the node, read anew every time.
        engine: infers.
        layouts: of the ground, published after each pass.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel],
        mailboxes: Mailboxes[Arrival],
        parameters: Parameters,
        engine: InferenceEngine,
        layouts: Layouts,
    ):
        self._channels, self._mailboxes = channels, mailboxes
        self._parameters, self._engine, self._layouts = parameters, engine, layouts
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
        """Seconds since it took the frames it works on; 0 while it waits."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self, timeout: float) -> bool:
        """Stop after the frames at hand; False if that took longer than `timeout` seconds."""
        self._stopped.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.is_set():
            arrivals = self._mailboxes.take(_IDLE_WAIT, self._parameters["batch_window"])
            if not arrivals:
                continue
            self._busy_since = time.monotonic()
            try:
                self._work(arrivals)
            finally:
                self._busy_since = None

    def _work(self, arrivals: Mapping[str, Arrival]) -> None:
        frames = []
        for name, arrival in arrivals.items():
            channel = self._channels[name]
            if frame := self._attempt(channel, lambda channel=channel, arrival=arrival: channel.decode(arrival)):
                frames.append(frame)
        for _, alike in groupby(sorted(frames, key=_what_shares_a_pass), key=_what_the_engine_is_told):
            self._infer(list(alike))
        if frames and not self._stopped.is_set():
            self._attempt(frames[-1].channel, self._layouts.publish)

    def _infer(self, frames: Sequence[Frame]) -> None:
        """Infer frames in one call, and publish each."""
        self._engine.output_size, self._engine.foreground_threshold, _ = _what_the_engine_is_told(frames[0])
        memories = [frame.memory for frame in frames if frame.memory is not None]
        try:
            scenes = self._engine([frame.image for frame in frames], memories)
        except Exception as error:
            if len(frames) == 1:
                self._failed(frames[0].channel, error)
                return
            for frame in frames:  # one camera's trouble shall not become that of others
                self._infer([frame])
            return
        inferred = time.monotonic()
        for frame, scene in zip(frames, scenes, strict=True):
            if self._stopped.is_set():
                return
            channel = frame.channel
            self._attempt(channel, lambda c=channel, f=frame, s=scene: c.publish(f, s, inferred))

    def _attempt(self, channel: Channel, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except ImageError as error:
            channel.reject(str(error))
        except Exception as error:
            self._failed(channel, error)
        return None

    def _failed(self, channel: Channel, error: Exception) -> None:
        if not self._stopped.is_set():  # else its publishers may be gone already
            channel.fail(error)


def _what_the_engine_is_told(frame: Frame) -> tuple[str, float, bool]:
    return frame.output_size, frame.foreground_threshold, frame.memory is not None


def _what_shares_a_pass(frame: Frame) -> tuple[tuple[str, float, bool], tuple[int, ...]]:
    """Frames of one size, side by side in a call of the engine, share a batch."""
    return _what_the_engine_is_told(frame), frame.image.shape
