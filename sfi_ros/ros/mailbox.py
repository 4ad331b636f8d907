"""Newest frame wins: places for one item each, between the thread that receives and the thread that works."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Holds at most one item; a newer one takes its place, so nothing queues. `Mailboxes` makes and empties it.

    Args:
        changed: tells who waits at the mailboxes; its lock guards this one.
    """

    def __init__(self, changed: threading.Condition):
        self._changed = changed
        self._item: T | None = None
        self._rests_until = 0.0
        self._forget()

    def put(self, item: T) -> bool:
        """Leave an item; True if it took the place of one that nobody had taken."""
        with self._changed:
            now = time.monotonic()
            self._gap = None if self._came is None else now - self._came
            self._came = now
            replaced = self._item is not None
            self._item = item
            self._changed.notify()
            return replaced

    def clear(self) -> None:
        """Throw away what is there, and forget when more is due."""
        with self._changed:
            self._item = None
            self._forget()

    def rest(self, until: float) -> None:
        """Give nothing out before `until` (`time.monotonic` seconds)."""
        with self._changed:
            self._rests_until = until

    def _forget(self) -> None:
        self._came: float | None = None  # `time.monotonic` of the newest item
        self._gap: float | None = None  # seconds between the newest two

    # --- for `Mailboxes`, which holds the lock ---

    def _ready_at(self) -> float | None:
        """Since or from when an item can be taken; None while there is none."""
        return None if self._item is None or self._came is None else max(self._came, self._rests_until)

    def _is_due(self, since: float, until: float) -> bool:
        """Whether the next item is expected in this time, if they keep coming as the newest two did."""
        if self._came is None or self._gap is None:
            return False
        return since < max(self._came + self._gap, self._rests_until) <= until

    def _take(self) -> T | None:
        item, self._item = self._item, None
        return item


class Mailboxes(Generic[T]):
    """A mailbox for each name, emptied together.

    Args:
        names: of the mailboxes.
    """

    def __init__(self, names: Iterable[str]):
        self._changed = threading.Condition()
        self._boxes: dict[str, Mailbox[T]] = {name: Mailbox(self._changed) for name in names}

    def __getitem__(self, name: str) -> Mailbox[T]:
        """Return one of them."""
        return self._boxes[name]

    def take(self, timeout: float, window: float = 0.0) -> dict[str, T]:
        """Take every item that is there.

        Args:
            timeout: seconds to wait for a first item.
            window: seconds, from the arrival of the oldest item, to wait for those that are due by then. A mailbox to
                which nothing comes any more is not waited for.

        Returns:
            The items by the name of their mailbox; empty if none came.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                now = time.monotonic()
                filled = {name: at for name, box in self._boxes.items() if (at := box._ready_at()) is not None}
                ready = [name for name, at in filled.items() if at <= now]
                if ready:
                    until = min(filled[name] for name in ready) + window
                    missing = (box for name, box in self._boxes.items() if name not in ready)
                    if now >= until or not any(box._is_due(now - window, until) for box in missing):
                        return {name: item for name in ready if (item := self._boxes[name]._take()) is not None}
                elif now >= deadline:
                    return {}
                else:
                    until = min((deadline, *filled.values()))
                self._changed.wait(until - now)

    def clear(self) -> None:
        """Throw away all that is there."""
        for box in self._boxes.values():
            box.clear()
