"""Real ROS for tests: a domain of their own, processes of ours, and a probe that publishes, listens and asks."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rclpy
from conftest import weights_telling_kinds
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from sfi_ros.network import checkpoint
from sfi_ros.ros.dds import profile_environment
from sfi_ros.ros.image_messages import compressed_message, image_message
from sfi_ros.ros.spinning import spun_by_a_thread, start_ros


def _claim_domain() -> int:
    """A ROS domain that no other test process on this machine has, of any user or checkout, until this process ends."""
    for number in range(1, 102):  # the domains whose ports no other program is given
        path = Path(tempfile.gettempdir(), f"sfi_ros-test-domain-{number}.lock")
        try:
            file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        except PermissionError:  # another user's
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            continue
        return number  # the lock lasts as long as the file is open
    raise RuntimeError("all ROS domains from 1 to 101 are claimed by other test processes")


os.environ["ROS_DOMAIN_ID"] = str(_claim_domain())
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.update(profile_environment())  # without it, images above half a megabyte get lost

PATIENCE = 120.0  # seconds until a condition counts as never coming true; the machine may be busy
ASK_AGAIN = 10.0  # seconds
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
    "shutdown": Transition.TRANSITION_INACTIVE_SHUTDOWN,
}


def wait_for(condition: Callable[[], object], what: str, timeout: float = PATIENCE):
    """Poll until `condition()` is true and return its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout:.0f} s"
        time.sleep(0.02)
    return value


def python_path(install: Path) -> Path:
    """Where the built package lies for PYTHONPATH."""
    return next(install.glob("sfi_ros/lib/python*/site-packages"))


def installed_environment(install: Path) -> dict[str, str]:
    """The variables of this process, as after sourcing what colcon installed and activating this environment."""

    def in_front(variable: str, *paths: Path | str) -> str:
        return os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get(variable, "")])])

    return {
        **os.environ,
        "PATH": in_front("PATH", Path(sys.executable).parent),
        "PYTHONPATH": in_front("PYTHONPATH", python_path(install)),
        "LD_LIBRARY_PATH": in_front("LD_LIBRARY_PATH", install / "sfi_ros" / "lib"),
        "AMENT_PREFIX_PATH": in_front("AMENT_PREFIX_PATH", install / "sfi_ros", sys.prefix),
    }


def small_weights(path: Path) -> Path:
    """A checkpoint that is quick to run: the weights that ship, for small images; they tell some kind of objects."""
    checkpoint.save(path, checkpoint.load(weights_telling_kinds()).network, input_height=64)
    return path


class Process:
    """A module of `sfi_ros.ros` run as a process.

    Args:
        module: its name.
        ros_arguments: behind --ros-args.
        log: file for its output.
        env: variables in addition to those of the test.
        cwd: folder to run in.
        blocked: start with SIGINT and SIGTERM blocked, as the executables do that CMakeLists.txt installs.
    """

    def __init__(
        self,
        module: str,
        *ros_arguments: str,
        log: Path,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        blocked: bool = False,
    ):
        self.log_path = log
        command = [sys.executable, "-m", f"sfi_ros.ros.{module}", "--ros-args", *ros_arguments]
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS if blocked else ())  # a child inherits it
        try:
            with log.open("wb") as out:
                self._process = subprocess.Popen(
                    command, stdout=out, stderr=out, env={**os.environ, **(env or {})}, cwd=cwd
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait(self) -> int:
        return self._process.wait(PATIENCE)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End it as Ctrl-C does; returns its exit status."""
        if self.alive:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Probe:
    """A node of the test, spun by a thread."""

    def __init__(self) -> None:
        start_ros([])
        self.node = rclpy.create_node("probe")
        self._spinning = spun_by_a_thread(self.node)
        self._spinning.__enter__()
        self._statuses: dict[str, DiagnosticStatus] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._remember, 10)

    def close(self) -> None:
        self._spinning.__exit__(None, None, None)
        rclpy.shutdown()

    def listen(self, topic: str, message_type=Image, qos=None) -> Inbox:
        return Inbox(self.node, topic, message_type, qos or QoSProfile(depth=50))

    def status(self, node: str = "/inpaint", kind: str = "camera") -> dict[str, str]:
        """The node's last diagnostics as a dictionary, with "message" and "level" (0, 1, 2)."""
        status = self._statuses.get(f"{node[1:]}: {kind}")
        if status is None:
            return {"message": "", "level": "", "state": ""}
        values = {value.key: value.value for value in status.values}
        return {**values, "message": status.message, "level": str(status.level[0])}

    def await_status(
        self,
        condition: Callable[[dict[str, str]], object],
        what: str,
        node: str = "/inpaint",
        kind: str = "camera",
    ):
        self._statuses.clear()  # what was said before does not count
        wait_for(lambda: self.status(node, kind)["message"] and condition(self.status(node, kind)), what)
        return self.status(node, kind)

    def call(self, service_type, name: str, request):
        client = self.node.create_client(service_type, name)
        try:
            wait_for(client.service_is_ready, f"service {name}")
            futures = []

            def answer():
                """Ask again now and then: an answer is lost while the server does not yet know of this client."""
                if not futures or (service_type is not ChangeState and time.monotonic() > asked[-1] + ASK_AGAIN):
                    futures.append(client.call_async(request))
                    asked.append(time.monotonic())
                return next((future for future in futures if future.done()), None)

            asked: list[float] = []
            return wait_for(answer, f"an answer of {name}").result()
        finally:
            self.node.destroy_client(client)

    def state(self, node: str = "/inpaint") -> str:
        return self.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label

    def transition(self, name: str, node: str = "/inpaint") -> bool:
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[name]))
        return self.call(ChangeState, f"{node}/change_state", request).success

    def set(self, name: str, value, node: str = "/inpaint"):
        parameter = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        return self.call(SetParameters, f"{node}/set_parameters", request).results[0]

    def get(self, names: list[str], node: str = "/inpaint"):
        return self.call(GetParameters, f"{node}/get_parameters", GetParameters.Request(names=names)).values

    def describe(self, names: list[str], node: str = "/inpaint"):
        request = DescribeParameters.Request(names=names)
        return self.call(DescribeParameters, f"{node}/describe_parameters", request).descriptors

    def _remember(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._statuses[status.name] = status


@pytest.fixture(scope="module")
def probe():
    """A node of the tests, for the tests of one file."""
    probe = Probe()
    yield probe
    probe.close()


class Inbox:
    """Messages of one topic, until the end of its `with` block."""

    def __init__(self, node, topic: str, message_type, qos):
        self._node = node
        self.messages: list = []
        self._subscription = node.create_subscription(message_type, topic, self.messages.append, qos)
        self.topic = topic

    @property
    def publishers(self) -> int:
        return self._node.count_publishers(self._subscription.topic_name)

    def stamps(self) -> list[tuple[int, int]]:
        return [stamp_of(message) for message in list(self.messages)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._node.destroy_subscription(self._subscription)


class Camera:
    """Publishes pictures of the test."""

    def __init__(self, probe: Probe, topic: str = "/image", message_type=Image, qos=None):
        self._node = probe.node
        self._compressed = message_type is CompressedImage
        self._publisher = self._node.create_publisher(message_type, topic, qos or QoSProfile(depth=10))

    @property
    def subscribers(self) -> int:
        return self._publisher.get_subscription_count()

    def header(self) -> Header:
        return Header(stamp=self._node.get_clock().now().to_msg(), frame_id="front")

    def send(self, message) -> None:
        self._publisher.publish(message)

    def message(self, image: np.ndarray) -> Image | CompressedImage:
        """An RGB image with the stamp of now, as this camera sends it."""
        if self._compressed:
            return compressed_message(image, self.header())
        return image_message(image, "rgb8", self.header())

    def show(self, image: np.ndarray) -> tuple[int, int]:
        """Publish one image; returns its stamp."""
        message = self.message(image)
        self.send(message)
        return stamp_of(message)

    def show_until(self, condition: Callable[[], object], what: str, image: np.ndarray, pause: float = 0.05):
        """Publish one image again and again until `condition()`; returns the stamps."""
        stamps: list[tuple[int, int]] = []

        def step():
            stamps.append(self.show(image))
            time.sleep(pause)
            return condition()

        wait_for(step, what)
        return stamps

    def connect(self, *inboxes: Inbox) -> None:
        """Show a grey image until its results are in all inboxes, then empty them: from now on no image is lost.

        That this side has discovered the node's subscription is not enough: an image that reaches a reader before it
        knows its writer is thrown away without a word.
        """
        grey = np.full((64, 64, 3), 128, np.uint8)
        stamps = self.show_until(lambda: all(inbox.messages for inbox in inboxes), "a result", grey)
        wait_for(lambda: all(stamps[-1] in inbox.stamps() for inbox in inboxes), "the newest image's results")
        for inbox in inboxes:
            inbox.messages.clear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._node.destroy_publisher(self._publisher)


def stamp_of(message) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec
