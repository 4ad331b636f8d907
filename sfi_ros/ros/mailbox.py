"""Newest frame wins: a place for one item between the thread that receives and the thread that works."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Holds at most one item; a newer one takes its place, so nothing queues."""

    def __init__(self) -> None:
        self._filled = threading.Condition()
        self._item: T | None = None

    def put(self, item: T) -> bool:
        """Leave an item; True if it took the place of one that nobody had taken."""
        with self._filled:
            replaced = self._item is not None
            self._item = item
            self._filled.notify()
            return replaced

    def take(self, timeout: float) -> T | None:
        """Take the item, waiting for one up to `timeout` seconds; None if none came."""
        with self._filled:
            if self._item is None:
                self._filled.wait(timeout)
            item, self._item = self._item, None
            return item

    def clear(self) -> None:
        """Throw away what is there."""
        with self._filled:
            self._item = None
