"""Ctrl-C, SIGTERM and a closed terminal end a command; while it writes results, after the frame at hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignals:
    """Turns signals that ask a process to end into KeyboardInterrupt or, inside `deferred`, a note.

    A context manager. In other threads than the main one, which cannot receive signals, it does nothing.
    """

    def __init__(self) -> None:
        self._noted: int | None = None
        self._deferred = False
        self._before: dict[int, signal._HANDLER] = {}

    def __call__(self) -> bool:
        """Return whether a signal has come."""
        return self._noted is not None

    @property
    def status(self) -> int:
        """The exit status that shells know the signal by: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self._noted or signal.SIGINT)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Note the first signal; a second one raises KeyboardInterrupt nevertheless."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGINT, signal.SIGTERM]
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup makes it
                numbers.append(signal.SIGHUP)
            self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        first, self._noted = self._noted is None, number
        if not (first and self._deferred):
            raise KeyboardInterrupt
