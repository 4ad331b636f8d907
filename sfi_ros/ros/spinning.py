"""Runs the callbacks of a node in a thread, so that the main thread always notices that the process should end.

rclpy's own signal handlers invalidate everything at once, so that whatever a node does at that moment fails; they are
not used. One callback that fails does not end the process, either.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Final, TypeVar

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from sfi_ros.ros.stopping import REFUSED, StopRequest

NodeType = TypeVar("NodeType", bound=Node)
_LAST_CALLBACK: Final = 0.5  # seconds that a callback may still take once the process is asked to end


def start_ros(arguments: Sequence[str] | None) -> None:
    """`rclpy.init` without signal handlers."""
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)


def run(
    name: str,
    make_node: Callable[[], NodeType],
    stop: StopRequest,
    arguments: Sequence[str] | None,
    *,
    until: Callable[[NodeType], bool] = lambda node: False,
    at_end: Callable[[NodeType], int] = lambda node: 0,
) -> int:
    """Make a node and run it until it has finished or the process is asked to end.

    What takes long then, such as weights that are being loaded, is not waited for: it may go on in its thread, and the
    process has to be ended by `stopping.leave`.

    Args:
        name: of the executable, for the log.
        make_node: a ValueError or a refused parameter is logged in one line.
        stop: asks the process to end.
        arguments: for ROS; None for those of the process.
        until: whether the node has finished.
        at_end: makes the node give up what takes long; returns the exit status.

    Returns:
        The exit status: that of `at_end`, or `REFUSED`.
    """
    try:
        start_ros(arguments)
    except (rclpy_implementation.RCLError, rclpy_implementation.UnknownROSArgsError) as error:
        get_logger(name).fatal(f"arguments refused: {error}")
        return REFUSED
    stop.hold()
    spinning = _Spinning(make_node)
    stop.wait_for(spinning.made.done)
    wait([spinning.made], timeout=_LAST_CALLBACK)
    if not spinning.made.done():  # asked to end in the middle of it
        return 0
    try:
        node = spinning.made.result()
    except (ValueError, InvalidParameterTypeException, InvalidParameterValueException) as error:
        get_logger(name).fatal(str(error))
        rclpy.shutdown()
        return REFUSED
    stop.wait_for(lambda: until(node))
    status = at_end(node)
    spinning.stop(_LAST_CALLBACK)
    node.destroy_node()  # tells other nodes that this one is gone
    rclpy.shutdown()
    return status


@contextmanager
def spun_by_a_thread(node: Node) -> Iterator[None]:
    """Run a node's callbacks in a thread of its own during a `with` block; afterwards the node is destroyed."""
    spinning = _Spinning(lambda: node)
    try:
        yield
    finally:
        spinning.stop()
        node.destroy_node()


class _Spinning:
    """A thread that makes a node and runs its callbacks.

    Attributes:
        made: the node, once it is made.
    """

    def __init__(self, make_node: Callable[[], Node]):
        self.made: Future[Node] = Future()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(make_node,), name="callbacks", daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = None) -> None:
        """Wait for the callback at hand, so that nothing is taken away from under it; no longer than `timeout`."""
        self._stopped.set()
        self._thread.join(timeout)

    def _run(self, make_node: Callable[[], Node]) -> None:
        try:
            node = make_node()
        except BaseException as error:
            self.made.set_exception(error)
            return
        self.made.set_result(node)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not self._stopped.is_set():
            _spin_once(executor, node)
        executor.remove_node(node)
        executor.shutdown(timeout_sec=1.0)


def _spin_once(executor: SingleThreadedExecutor, node: Node) -> None:
    try:
        executor.spin_once(timeout_sec=0.1)
    except Exception:
        node.get_logger().error(traceback.format_exc(), throttle_duration_sec=5.0)
