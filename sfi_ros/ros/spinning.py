"""Runs a node as a process until it is asked to end, then lets it end in order.

rclpy's own signal handlers invalidate everything at once, so that whatever a node does at that moment fails; these
only note the wish. One callback that fails does not end the process, either.
"""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def start_ros(arguments: Sequence[str] | None) -> None:
    """`rclpy.init` without signal handlers: `spin` has its own."""
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)


def spin(node: Node, finished: Callable[[], bool] = lambda: False) -> bool:
    """Run a node's callbacks until SIGINT, SIGTERM or `finished()`.

    Args:
        node: stays usable afterwards.
        finished: asked after every callback.

    Returns:
        True if it was asked to end by a signal.
    """
    asked = threading.Event()
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in _SIGNALS}
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not asked.is_set() and not finished():
            _spin_once(executor, node)
    finally:
        executor.remove_node(node)
        executor.shutdown(timeout_sec=1.0)
        for number, handler in before.items():
            signal.signal(number, handler)
    return asked.is_set()


@contextmanager
def spun_by_a_thread(node: Node) -> Iterator[None]:
    """Run a node's callbacks in a thread of its own during a `with` block; afterwards the node is destroyed."""
    ended = threading.Event()
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def run() -> None:
        while not ended.is_set():
            _spin_once(executor, node)

    thread = threading.Thread(target=run, name=f"{node.get_name()}-executor", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()  # before anything is taken away from under it
        executor.remove_node(node)
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()


def _spin_once(executor: SingleThreadedExecutor, node: Node) -> None:
    try:
        executor.spin_once(timeout_sec=0.2)  # Python notices signals only between two of these
    except Exception:
        node.get_logger().error(traceback.format_exc(), throttle_duration_sec=5.0)
