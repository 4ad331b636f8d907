"""Arrays are given out again when nobody holds them, and never before."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from sfi_ros.memory import Recycled


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_memory_is_used_again_once_it_is_free():
    memory = Recycled()
    first = memory.take((10, 20), np.float32)
    assert (first.shape, first.dtype, address(first) % 64) == ((10, 20), np.float32, 0)
    assert first.flags.c_contiguous and first.flags.writeable
    second = memory.take((10, 20), np.float32)
    place, other = address(first), address(second)
    assert place != other
    del first
    assert address(memory.take((20, 10), np.int32)) == place
    assert memory.take((0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[3:, ::2],
        lambda a: a.reshape(-1)[5:].view(np.uint8),
        lambda a: memoryview(a)[2:],
        lambda a: torch.from_numpy(a)[1:].view(torch.int32),
        lambda a: list(a)[-1][None],
    ],
)
def test_whoever_holds_a_view_holds_the_memory(view):
    memory = Recycled()
    array = memory.take((10, 20), np.float32)
    place = address(array)
    held = view(array)
    del array
    taken = [memory.take((10, 20), np.float32) for _ in range(3)]
    assert place not in map(address, taken)
    del held
    assert address(memory.take((10, 20), np.float32)) == place


def test_only_so_much_is_kept():
    memory = Recycled(sizes=3, most=2)
    for size in range(1, 10):
        arrays = [memory.take((size,)) for _ in range(5)]
        assert len(set(map(address, arrays))) == 5
        del arrays
    assert sorted(memory._free) == [7, 8, 9]
    assert all(len(free) == 2 for free in memory._free.values())
    assert not memory._given


def test_threads_never_share_an_array():
    memory, problems = Recycled(), []

    def use(number: int) -> None:
        for round_number in range(300):
            array = memory.take((1000 + round_number % 3,), np.int64)
            array[:] = number
            if not (array == number).all():
                problems.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


FAULTS = """
import resource, threading
import numpy as np
from sfi_ros import memory

def work():
    for round in range(22):
        if round == 2:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [np.ones(size << 20, np.uint8) for size in {megabytes}]
        del blocks
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

{keep}
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


FRAMES, TENSORS = (25, 20, 25), (50, 40, 50)  # MB: glibc maps what is larger than 32, whatever its thresholds


def faults(keep: str, megabytes: tuple[int, ...], **environment: str) -> int:
    """Run a thread that takes and frees blocks 20 times over; return how many fresh pages it got."""
    command = [sys.executable, "-c", FAULTS.format(keep=keep, megabytes=megabytes)]
    ended = subprocess.run(command, capture_output=True, check=True, env={**os.environ, **environment})
    return int(ended.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="another C library, which decides by itself")
def test_what_a_thread_frees_is_kept_for_its_next_frame():
    assert faults("memory.keep_freed()", FRAMES) < 1000 < faults("", FRAMES)


@pytest.mark.skipif(sys.platform != "linux", reason="another C library, which decides by itself")
def test_tensors_of_any_size_are_kept_for_the_next_step():
    assert faults("memory.keep_freed_tensors()", TENSORS) < 1000 < faults("memory.keep_freed()", TENSORS)


@pytest.mark.skipif(sys.platform != "linux", reason="another C library, which decides by itself")
@pytest.mark.parametrize(
    ("keep", "megabytes", "variable", "value", "kept"),
    [
        ("keep_freed", FRAMES, "MALLOC_TRIM_THRESHOLD_", "131072", False),
        ("keep_freed", FRAMES, "MALLOC_MMAP_THRESHOLD_", "131072", False),
        ("keep_freed", FRAMES, "GLIBC_TUNABLES", "glibc.malloc.hugetlb=0:glibc.malloc.trim_threshold=131072", False),
        ("keep_freed", FRAMES, "MALLOC_TOP_PAD_", "0", True),
        ("keep_freed_tensors", TENSORS, "MALLOC_MMAP_THRESHOLD_", "131072", False),
        ("keep_freed_tensors", TENSORS, "MALLOC_MMAP_MAX_", "65536", False),
        ("keep_freed_tensors", TENSORS, "GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=131072", False),
        ("keep_freed_tensors", TENSORS, "MALLOC_ARENA_MAX", "1", True),
    ],
)
def test_what_the_environment_sets_stays(keep, megabytes, variable, value, kept):
    """Small thresholds of the user's give memory back; another setting changes nothing."""
    assert (faults(f"memory.{keep}()", megabytes, **{variable: value}) < 1000) == kept
