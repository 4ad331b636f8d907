"""Arrays are given out again when nobody holds them, and never before."""

from __future__ import annotations

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
