"""Memory that is used again. Fresh pages for every frame can cost more than what is written into them.

They do where a hypervisor takes pages back: there one call in twenty took 80 times as long.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import DTypeLike

_ALIGNMENT: Final = 64
"""Bytes: a cache line, and what vector instructions like best."""

_FOR_FRAMES: Final = {"arena_max": (-8, 1), "mmap_threshold": (-3, 1 << 25), "trim_threshold": (-1, 1 << 28)}
"""glibc's name -> number in its malloc.h, and value: heaps, or bytes (of mmap_threshold the most that there can be)."""

_FOR_STEPS: Final = {"arena_max": (-8, 1), "mmap_max": (-4, 0), "trim_threshold": (-1, -1), "top_pad": (-2, 1 << 28)}
"""The same for blocks of any size: none is mapped by itself, nothing is trimmed, the heap grows by 256 MB at a time."""


def give_back() -> None:
    """Give the system what was freed and the C library still keeps, such as what loading a network needed for once."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc
        return


def keep_freed() -> None:
    """Have the C library keep what is freed in this process for whoever asks next, in one heap for all threads.

    By itself it gives large blocks back, and what lies at the end of a heap, most of all in the heaps of threads: on a
    node's thread that was up to 12 000 fresh pages and 10 ms of 75 for a frame, in some runs and not in others.

    What the environment sets, as MALLOC_TRIM_THRESHOLD_ or in GLIBC_TUNABLES, stays as it is.
    """
    _tell_glibc(_FOR_FRAMES)


def keep_freed_tensors() -> None:
    """Keep freed blocks of any size: training on a CPU frees tensors of 100 MB and asks for them again in every step.

    A process never gets smaller afterwards, unless `keep_freed` is called in it, too: the last call counts. What the
    environment sets stays, as for that one.
    """
    _tell_glibc(_FOR_STEPS)


def _tell_glibc(settings: Mapping[str, tuple[int, int]]) -> None:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    try:
        for name, (number, value) in settings.items():
            # A threshold of the user's says which blocks are mapped: then there are to be some.
            names = ("mmap_max", "mmap_threshold") if name == "mmap_max" else (name,)
            variables = {f"MALLOC_{each.upper()}{end}" for each in names for end in ("", "_")}
            if not variables & os.environ.keys() and not any(f"glibc.malloc.{each}=" in tunables for each in names):
                ctypes.CDLL(None).mallopt(number, value)
    except (AttributeError, OSError, TypeError):  # not glibc
        return


class Recycled:
    """Arrays that are given out again as soon as nobody holds them, or a view of them, any more.

    Safe from any thread.

    Args:
        sizes: in bytes, that are kept; of more, what has been asked for longest ago is forgotten.
        most: arrays of a size that are kept while nobody holds them.
    """

    def __init__(self, sizes: int = 12, most: int = 4):
        self._sizes, self._most = sizes, most
        self._free: dict[int, list[memoryview]] = {}
        self._given: dict[int, tuple[weakref.ref, memoryview]] = {}
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> np.ndarray:
        """Return a contiguous array of any content."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if size == 0:
            return np.empty(shape, kind)
        memory = self._memory(size)
        # NumPy's views hold the array that owns no other array: this one, whose base is no array.
        whole = np.frombuffer(memory, kind)
        reference = weakref.ref(whole, self._take_back)
        self._given[id(reference)] = reference, memory
        return whole.reshape(shape)

    def _memory(self, size: int) -> memoryview:
        with self._lock:
            free = self._free.pop(size, [])
            self._free[size] = free  # last in order
            if len(self._free) > self._sizes:
                del self._free[next(iter(self._free))]
        try:
            return free.pop()
        except IndexError:
            block = np.empty(size + _ALIGNMENT, np.uint8)
            start = -block.ctypes.data % _ALIGNMENT
            return block.data[start : start + size]

    def _take_back(self, reference: weakref.ref) -> None:
        # Called wherever the last holder let go, in the middle of `take` even: no lock, and nothing but single steps.
        _, memory = self._given.pop(id(reference))
        free = self._free.get(memory.nbytes)
        if free is not None and len(free) < self._most:
            free.append(memory)
