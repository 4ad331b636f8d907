"""Threads around the network change neither what comes out nor its order, and lose no error."""

from __future__ import annotations

import threading
import time

import pytest

from sfi_ros.offline.prefetch import BackgroundCalls, prefetch


def test_items_come_in_order_and_are_made_in_one_other_thread():
    makers = set()

    def items():
        for number in range(50):
            makers.add(threading.get_ident())
            yield number

    assert list(prefetch(items(), 3)) == list(range(50))
    assert len(makers) == 1 and threading.get_ident() not in makers


def test_no_more_items_are_made_ahead_than_asked():
    made = []
    given = prefetch((made.append(number) or number for number in range(100)), 4)
    assert next(given) == 0
    deadline = time.monotonic() + 20
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(made) == 5  # one given, four ready
    given.close()


def test_an_error_comes_in_its_place():
    def items():
        yield 1
        yield 2
        raise OSError("the disk is gone")

    given = prefetch(items(), 8)
    assert [next(given), next(given)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(given)


def test_a_generator_is_closed_in_its_own_thread_when_nobody_wants_more():
    threads = []

    def items():
        try:
            for number in range(100):
                threads.append(threading.get_ident())
                yield number
        finally:
            threads.append(threading.get_ident())

    for number in prefetch(items(), 2):
        if number == 3:
            break
    assert len(set(threads)) == 1
    assert len(threads) < 10


def test_what_is_no_generator_will_do():
    assert list(prefetch([1, 2, 3], 2)) == [1, 2, 3]
    assert list(prefetch([], 2)) == []


def test_the_caller_waits_while_too_many_calls_are_in_flight():
    release, done = threading.Event(), []
    with BackgroundCalls(2, max_in_flight=3) as calls:
        for number in range(3):
            calls.call(lambda number=number: release.wait(20) and done.append(number))
        caller = threading.Thread(target=calls.call, args=(done.append, 3))
        caller.start()
        caller.join(0.2)
        assert caller.is_alive() and not done
        release.set()
        caller.join(20)
    assert sorted(done) == [0, 1, 2, 3]


def test_one_thread_keeps_the_order():
    done: list[int] = []
    with BackgroundCalls(1, max_in_flight=5) as calls:
        for number in range(40):
            calls.call(done.append, number)
    assert done == list(range(40))


@pytest.mark.parametrize("later_calls", [0, 10])
def test_no_error_of_a_call_is_lost(later_calls):
    def fails():
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"), BackgroundCalls(1, max_in_flight=2) as calls:
        calls.call(fails)
        for _ in range(later_calls):
            calls.call(int)


def test_calls_that_wait_are_forgotten_when_the_caller_fails():
    started, release, done = threading.Event(), threading.Event(), []
    with pytest.raises(KeyError), BackgroundCalls(1, max_in_flight=5) as calls:
        calls.call(lambda: started.set() or release.wait(20))
        calls.call(done.append, 1)
        assert started.wait(20)
        threading.Timer(0.1, release.set).start()
        raise KeyError
    assert not done
