"""What libraries log or warn about becomes a line of the ROS log: on /rosout, with its level and the node's name."""

from __future__ import annotations

import logging
import warnings

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

from rcl_interfaces.msg import Log
from ros_harness import wait_for

from sfi_ros.inference import DefaultWeightsMissing
from sfi_ros.ros.logs import RoutedLogs

pytest_plugins = ["ros_harness"]
pytestmark = pytest.mark.timeout(600)
DEBUG, INFO, WARN, ERROR = 10, 20, 30, 40


@pytest.fixture
def rosout(probe):
    """(level, text) of the probe's own lines, once it hears itself."""
    with probe.listen("/rosout", Log) as inbox:

        def heard():
            probe.node.get_logger().info("hello")
            return inbox.messages

        wait_for(heard, "the ROS log")
        yield lambda: [(m.level, m.msg) for m in list(inbox.messages) if m.name == "probe"]


@pytest.fixture
def routed(probe):
    routed = RoutedLogs(probe.node.get_logger())
    yield routed
    routed.close()


def test_levels(rosout, routed):
    engine, other = logging.getLogger("sfi_ros.inference.backends"), logging.getLogger("onnxruntime.somewhere")
    engine.info("compiling the network ...")
    engine.warning("device %s", "auto")
    engine.error("out of %s", "memory")
    other.info("not interesting")
    other.warning("falls back to %d", 5)
    other.critical("gone")
    expected = {
        (INFO, "compiling the network ..."),
        (WARN, "device auto"),
        (ERROR, "out of memory"),
        (WARN, "falls back to 5"),
        (ERROR, "gone"),
    }
    wait_for(lambda: expected <= set(rosout()), "the lines")
    assert not any("not interesting" in text for _, text in rosout())


def test_a_traceback_goes_along(rosout, routed):
    try:
        raise KeyError("tensor")
    except KeyError:
        logging.getLogger("sfi_ros.x").exception("failed")
    wait_for(lambda: any("KeyError: 'tensor'" in text and level == ERROR for level, text in rosout()), "the traceback")


def test_warnings(rosout, routed):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("this network is UNTRAINED", DefaultWeightsMissing, stacklevel=1)
        warnings.warn("old and slow", RuntimeWarning, stacklevel=1)
    wait_for(lambda: (WARN, "this network is UNTRAINED") in rosout(), "our warning")
    wait_for(lambda: any("test_ros_logs.py" in text and "old and slow" in text for _, text in rosout()), "another's")


def test_closed_it_leaves_logging_as_it_was(probe):
    before = (warnings.showwarning, list(logging.getLogger().handlers), logging.getLogger("sfi_ros").level)
    routed = RoutedLogs(probe.node.get_logger())
    assert warnings.showwarning != before[0]
    routed.close()
    assert (warnings.showwarning, list(logging.getLogger().handlers), logging.getLogger("sfi_ros").level) == before
