"""Threads for what happens before and after the network: frames are prefetched, and results are written meanwhile.

Decoding and encoding pictures takes several times as long as a GPU takes to infer them, and OpenCV releases Python's
lock while it does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar, cast

PREFETCH: Final = 4
"""Items that are worth holding ready: some take longer to make than others."""

Item = TypeVar("Item")

_END: Final = object()


def prefetch(items: Iterable[Item], count: int = PREFETCH) -> Generator[Item, None, None]:
    """Yield the same items; a thread has up to `count` of them ready.

    Args:
        items: iterated in that one thread, from the first item to the closing of a generator.
        count: how many to hold, at least 1.

    Raises:
        Exception: whatever the items raise, in their place.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, "prefetch") as reader:
        waiting = deque(reader.submit(next, iterator, _END) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(reader.submit(next, iterator, _END))
                yield cast(Item, item)
        finally:
            for future in waiting:
                future.cancel()
            if isinstance(iterator, Generator):
                reader.submit(iterator.close).result()


class BackgroundCalls:
    """Calls functions in threads of its own, and makes the caller wait while too many calls are under way.

    A context manager: at its end all calls are made or, if the block raises, those that wait are forgotten.

    Args:
        threads: how many; with one, calls are made in order.
        max_in_flight: calls that may wait or be under way.
    """

    def __init__(self, threads: int, max_in_flight: int):
        self._pool = ThreadPoolExecutor(threads, "background")
        self._max_in_flight, self._pending = max_in_flight, deque[Future[Any]]()

    def call(self, function: Callable[..., Item], *arguments: Any) -> Future[Item]:
        """Call a function later.

        Raises:
            Exception: what an earlier call raised.
        """
        while len(self._pending) >= self._max_in_flight:
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

    def __enter__(self) -> BackgroundCalls:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self._pool.shutdown(cancel_futures=True)
