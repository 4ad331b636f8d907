"""What happened to the frames lately: counted by the threads that handle them, read by diagnostics."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

WINDOW: Final = 10.0
"""Seconds over which rates and percentiles are taken."""

STAGES: Final = ("transport", "wait", "decode", "inference", "publish")
"""Where the time of a frame goes: stamp to arrival, in the mailbox, to RGB, in the engine, into outgoing messages."""

COMPARABLE: Final = 60.0
"""Seconds; a stamp further than this from the clock was not made by it (a bag without use_sim_time, say)."""

_MAX_ENTRIES = 10_000  # of a window: beyond any camera's rate


@dataclass(frozen=True)
class Snapshot:
    """The state of a `Monitor` at one moment.

    Attributes:
        received, published, dropped, rejected, failed: frames since activation.
        lost: frames since activation that were sent and did not arrive.
        input_rate, output_rate, lost_rate: frames per second lately.
        rejected_lately, failed_lately: frames lately.
        age: seconds since the newest frame arrived, None before the first one.
        active_for: seconds since activation, the first demand or the last time jump.
        stamp_offset: seconds that the newest stamp lies behind the clock, None before the first one.
        stages: stage -> durations in seconds lately; "total" is from the stamp where it is comparable with the clock.
        last_rejection, last_failure: reasons; "" if there was none.
        time_jumps: how often time went back.
    """

    received: int
    published: int
    dropped: int
    rejected: int
    failed: int
    lost: int
    input_rate: float
    output_rate: float
    lost_rate: float
    rejected_lately: int
    failed_lately: int
    age: float | None
    active_for: float
    stamp_offset: float | None
    stages: dict[str, list[float]] = field(repr=False)
    last_rejection: str
    last_failure: str
    time_jumps: int

    def loss(self) -> str:
        """Say how many images are lost on their way lately; "" if none are."""
        if not self.lost_rate:
            return ""
        return f"{self.lost_rate:.1f} of {self.lost_rate + self.input_rate:.1f} images/s are lost on their way here"


class Monitor:
    """Counts frames and times; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.start()

    def start(self) -> None:
        """Begin from nothing: the node was activated."""
        with self._lock:
            self._counts = dict.fromkeys(("received", "published", "dropped", "rejected", "failed", "lost"), 0)
            self._last_rejection = self._last_failure = ""
            self._time_jumps = 0
            self._forget()

    def resume(self) -> None:
        """Note that the camera was subscribed to anew: how old its last frame is says nothing."""
        with self._lock:
            self._began = time.monotonic()
            self._newest = None

    def time_jumped(self) -> None:
        """Time went back: ages and latencies from before mean nothing."""
        with self._lock:
            self._time_jumps += 1
            self._forget()

    def arrived(self, stamp: float, now: float, *, dropped_another: bool) -> None:
        """Count a frame that arrived; `stamp` and `now` are seconds of the node's clock."""
        with self._lock:
            went_back = self._newest_stamp is not None and stamp < self._newest_stamp - 0.5
            if went_back:
                self._time_jumps += 1
                self._forget()
            self._newest = time.monotonic()
            self._newest_stamp = stamp
            self._stamp_offset = now - stamp
            self._count("received")
            if dropped_another:
                self._count("dropped")

    def lost(self, count: int) -> None:
        """So many frames were sent and did not arrive."""
        with self._lock:
            self._count("lost", count)

    def rejected(self, reason: str) -> None:
        """Count a frame that could not be decoded."""
        with self._lock:
            self._last_rejection = reason
            self._count("rejected")

    def failed(self, reason: str) -> None:
        """Count a frame that could not be inferred or published."""
        with self._lock:
            self._last_failure = reason
            self._count("failed")

    def published(self, stages: dict[str, float]) -> None:
        """Count a scene that went out; `stages` are seconds, without "transport" where the stamp is not comparable."""
        with self._lock:
            self._count("published")
            self._stages.append((time.monotonic(), stages))

    def snapshot(self) -> Snapshot:
        """Return the state now."""
        with self._lock:
            now = time.monotonic()
            span = min(WINDOW, max(now - self._began, 1e-3))
            since = max(now - WINDOW, self._began)
            lately = {name: _after(times, since) for name, times in self._times.items()}
            recent = [stages for at, stages in self._stages if at >= now - WINDOW]
            stages = {name: [s[name] for s in recent if name in s] for name in STAGES}
            stages["total"] = [sum(s.values()) for s in recent]
            return Snapshot(
                **self._counts,
                input_rate=lately["received"] / span,
                output_rate=lately["published"] / span,
                lost_rate=lately["lost"] / span,
                rejected_lately=lately["rejected"],
                failed_lately=lately["failed"],
                age=None if self._newest is None else now - self._newest,
                active_for=now - self._began,
                stamp_offset=self._stamp_offset,
                stages=stages,
                last_rejection=self._last_rejection,
                last_failure=self._last_failure,
                time_jumps=self._time_jumps,
            )

    def _forget(self) -> None:
        self._began = time.monotonic()
        self._times = {name: deque[float](maxlen=_MAX_ENTRIES) for name in self._counts}
        self._stages = deque[tuple[float, dict[str, float]]](maxlen=_MAX_ENTRIES)
        self._newest: float | None = None
        self._newest_stamp: float | None = None
        self._stamp_offset: float | None = None

    def _count(self, name: str, count: int = 1) -> None:
        self._counts[name] += count
        self._times[name].extend([time.monotonic()] * min(count, _MAX_ENTRIES))


def _after(times: deque[float], start: float) -> int:
    return sum(at >= start for at in times)
