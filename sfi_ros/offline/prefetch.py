"""Reading ahead and writing behind: what stands around the network goes on in other threads, in the same order.

Decoding and encoding pictures takes several times as long as a GPU takes to infer them, and OpenCV lets go of Python's
lock meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

READ_AHEAD: Final = 4
"""Items that are worth holding ready: enough to bridge what one of them takes longer than another."""

Item = TypeVar("Item")

_END: Final = object()


def ahead(items: Iterable[Item], count: int) -> Generator[Item, None, None]:
    """The same items; a thread has up to `count` of them ready.

    Args:
        items: iterated in that one thread, from the first item to the closing of a generator.
        count: how many to hold, at least 1.

    Raises:
        Exception: whatever the items raise, in their place.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, "ahead") as reader:
        waiting = deque(reader.submit(next, iterator, _END) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(reader.submit(next, iterator, _END))
                yield item
        finally:
            for future in waiting:
                future.cancel()
            if isinstance(iterator, Generator):
                reader.submit(iterator.close).result()


class Behind:
    """Calls functions later, in threads of its own, and holds the caller back when it is too far ahead.

    Args:
        threads: how many; with one, calls are made in order.
        most: calls that may wait or be under way.
    """

    def __init__(self, threads: int, most: int):
        self._pool = ThreadPoolExecutor(threads, "behind")
        self._most, self._pending = most, deque[Future[Any]]()

    def call(self, function: Callable[..., Item], *arguments: Any) -> Future[Item]:
        """Call it later.

        Raises:
            Exception: what an earlier call raised.
        """
        while len(self._pending) >= self._most:
            self._pending.popleft().result()
        future = self._pool.submit(function, *arguments)
        self._pending.append(future)
        return future

    def finish(self) -> None:
        """Wait for all calls, and end the threads.

        Raises:
            Exception: what a call raised.
        """
        self._pool.shutdown()
        while self._pending:
            self._pending.popleft().result()
