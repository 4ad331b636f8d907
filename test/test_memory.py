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
from sfi_ros.memory import keep_freed

def work():
    for round in range(22):
        if round == 2:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [np.ones(size << 20, np.uint8) for size in (25, 20, 25)]
        del blocks
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if {keep}:
    keep_freed()
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="another C library, which decides by itself")
def test_what_a_thread_frees_is_kept_for_its_next_frame():
    faults = [
        int(subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, check=True).stdout)
        for keep in (False, True)
    ]
    assert faults[1] < 1000 < faults[0], "fresh pages in 20 rounds"


@pytest.mark.skipif(sys.platform != "linux", reason="another C library, which decides by itself")
@pytest.mark.parametrize(
    ("variable", "value", "kept"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072", False),
        ("MALLOC_MMAP_THRESHOLD_", "131072", False),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0:glibc.malloc.trim_threshold=131072", False),
        ("MALLOC_TOP_PAD_", "0", True),
    ],
)
def test_what_the_environment_sets_stays(variable, value, kept):
    """Small thresholds of the user's give memory back; another setting changes nothing."""
    command = [sys.executable, "-c", FAULTS.format(keep=True)]
    ended = subprocess.run(command, capture_output=True, check=True, env={**os.environ, variable: value})
    assert (int(ended.stdout) < 1000) == kept, "fresh pages in 20 rounds"
