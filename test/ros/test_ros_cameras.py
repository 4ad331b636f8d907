"""Several cameras in one process: one network, results and diagnostics of each camera, and none that delays another."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

import rclpy
from ros_harness import Camera, Process, small_weights, stamp_of, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_msgs.msg import Header

from sfi_ros.frames.encodings import view
from sfi_ros.geometry.calibration import Calibration, camera_matrix
from sfi_ros.inference import InferenceEngine
from sfi_ros.inference.backends import open_model
from sfi_ros.network.metadata import Metadata
from sfi_ros.ros.camera import Arrival
from sfi_ros.ros.camera_info import camera_info_message
from sfi_ros.ros.channel import Channel
from sfi_ros.ros.image_messages import image_message
from sfi_ros.ros.layouts import Layouts, grid_of
from sfi_ros.ros.mailbox import Mailboxes
from sfi_ros.ros.parameters import Parameters
from sfi_ros.ros.results import Results
from sfi_ros.ros.worker import Worker
from sfi_ros.synthetic import SyntheticStreet

pytest_plugins = ["ros_harness"]
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_weights(tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture(scope="module")
def pictures():
    return [SyntheticStreet(seed=3, width=160, height=96).frame(number).image for number in (5, 40)]


@pytest.fixture(scope="module")
def node(probe, weights, tmp_path_factory):
    """Three cameras, of which `dead` never sends anything."""
    log = tmp_path_factory.mktemp("log") / "node.log"
    arguments = [f"weights:={weights}", "device:=cpu", "precision:=float32", "cameras:=[front, rear, dead]"]
    arguments += [
        "rear.output_size:=network",
        "rear.image:=/driver/rear/compressed",
        "rear.image_transport:=compressed",
    ]
    words = [word for argument in arguments for word in ("-p", argument)]
    with Process("inpaint_node", *words, "-r", "__ns:=/car", log=log) as process:
        wait_for(lambda: process.log().count("active: camera") == 3 or not process.alive, "activation")
        assert process.alive, process.log()
        yield process
        assert process.alive, process.log()
    assert process.stop() == 0, process.log()
    assert "Traceback" not in process.log()


@pytest.fixture
def front(probe, node):
    with Camera(probe, "/car/front/image_raw") as camera:
        yield camera


@pytest.fixture
def rear(probe, node):
    with Camera(probe, "/driver/rear/compressed", CompressedImage) as camera:
        yield camera


def test_each_camera_has_its_results_and_a_dead_one_delays_nobody(probe, front, rear, pictures, weights):
    engine = InferenceEngine.load(weights, device="cpu", precision="float32")
    with (
        probe.listen("/car/front/inpaint/background") as of_front,
        probe.listen("/car/rear/inpaint/background") as of_rear,
        probe.listen("/car/dead/inpaint/background") as of_dead,
    ):
        front.connect(of_front)
        rear.connect(of_rear)
        stamps = [camera.show(picture) for camera, picture in zip((front, rear), pictures, strict=True)]
        for inbox, stamp, size in ((of_front, stamps[0], "input"), (of_rear, stamps[1], "network")):
            wait_for(lambda i=inbox, s=stamp: s in i.stamps(), "a result")
            (result,) = (message for message in inbox.messages if stamp_of(message) == stamp)
            engine.output_size = size
            # the rear camera's picture went through JPEG, so only its size is compared
            expected = engine(pictures[0]).background
            assert view(result).shape == expected.shape
            if size == "input":
                assert (view(result) != expected).mean() < 0.01
        assert not of_dead.messages
        statuses = {
            name: probe.await_status(lambda s: s["state"] not in ("idle", ""), "a status", f"/car/{name}/inpaint")
            for name in ("dead", "front", "rear")
        }
    assert statuses["dead"]["state"] == "waiting"
    assert "nobody publishes /car/dead/image_raw" in statuses["dead"]["message"]
    for name, topic in (("front", "/car/front/image_raw"), ("rear", "/driver/rear/compressed")):
        assert statuses[name]["camera topic"] == topic
        assert int(statuses[name]["frames published"]) >= 2
        assert statuses[name]["frames rejected"] == "0"


def test_only_the_camera_whose_results_are_wanted_is_listened_to(probe, front, rear, pictures):
    wait_for(lambda: front.subscribers == rear.subscribers == 0, "the end of the subscriptions")
    with probe.listen("/car/rear/inpaint/foreground_mask") as inbox:
        rear.show_until(lambda: inbox.messages, "a result", pictures[0])
        assert front.subscribers == 0
        probe.await_status(lambda s: s["state"] == "idle", "idleness", "/car/front/inpaint")


def test_what_is_rejected_is_counted_for_its_camera_alone(probe, front, rear, pictures):
    with (
        probe.listen("/car/front/inpaint/foreground_mask") as of_front,
        probe.listen("/car/rear/inpaint/foreground_mask") as of_rear,
    ):
        front.connect(of_front)
        rear.connect(of_rear)
        truncated = rear.message(pictures[0])
        truncated.data = truncated.data[:-300]
        rear.send(truncated)
        stamp = front.show(pictures[0])
        status = probe.await_status(lambda s: "truncated" in s["last rejection"], "the rejection", "/car/rear/inpaint")
        assert "/driver/rear/compressed" in status["camera topic"]
        assert status["frames rejected"] == "1"
        wait_for(lambda: stamp in of_front.stamps(), "the other camera's result")
        status = probe.await_status(lambda s: True, "a status", "/car/front/inpaint")
        assert status["frames rejected"] == "0"
        probe.await_status(lambda s: s["state"] == "stale", "a stale camera", "/car/front/inpaint")
        again = rear.show(pictures[0])
        wait_for(lambda: again in of_rear.stamps(), "a result after that")


def test_a_camera_has_its_own_calibration(probe, front, node, pictures):
    infos = probe.node.create_publisher(CameraInfo, "/car/front/camera_info", 10)
    info = camera_info_message(Calibration.pinhole(160, 96, camera_matrix(160, 96, 70.0)), front.header())
    try:
        with probe.listen("/car/front/inpaint/camera_info", CameraInfo) as calibrations:

            def calibrated():
                infos.publish(info)
                return calibrations.messages

            front.show_until(calibrated, "a calibration", pictures[0])
            assert calibrations.messages[0].k[0] == pytest.approx(info.k[0])
    finally:
        probe.node.destroy_publisher(infos)


def test_parameters_of_one_camera_override_those_of_all(probe, front, pictures):
    node = "/car/inpaint"
    with probe.listen("/car/front/inpaint/foreground_mask") as masks:
        front.connect(masks)

        def shown():
            stamp = front.show(pictures[0])
            wait_for(lambda: stamp in masks.stamps(), "a result")
            return view(next(message for message in masks.messages if stamp_of(message) == stamp))

        assert probe.set("foreground_threshold", 0.0, node).successful
        assert (shown() == 255).mean() > 0.8  # where the probability is not 0
        assert probe.set("front.foreground_threshold", 1.0, node).successful
        assert shown().max() == 0
        assert probe.set("foreground_threshold", 0.5, node).successful
    refused = probe.set("front.image", "/elsewhere", node)
    assert not refused.successful
    assert "cleanup" in refused.reason
    assert not probe.set("rear.output_size", "huge", node).successful
    described, common = probe.describe(["rear.max_rate", "max_rate"], node)
    assert described.description == f"of camera rear: {common.description}"
    assert described.floating_point_range == common.floating_point_range


def test_lifecycle_of_all_cameras(probe, front, rear, pictures):
    with (
        probe.listen("/car/front/inpaint/foreground_mask") as of_front,
        probe.listen("/car/rear/inpaint/foreground_mask") as of_rear,
    ):
        for step in ("deactivate", "cleanup"):
            assert probe.transition(step, "/car/inpaint")
        wait_for(lambda: of_front.publishers == of_rear.publishers == 0, "the end of the results")
        for step in ("configure", "activate"):
            assert probe.transition(step, "/car/inpaint")
        front.connect(of_front)
        rear.connect(of_rear)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        (["cameras:=[front, rear, front]"], "parameter cameras names front more than once"),
        (["cameras:=[front, 2rear]"], r"parameter cameras is \['front', '2rear'\]"),
        (["cameras:=[front]", "front.output_size:=huge"], "parameter front.output_size is 'huge'"),
        (["cameras:=[front]", "front.image:=größe"], "parameter front.image is 'größe'"),
    ],
)
def test_names_and_values_that_are_refused(parameters, reason):
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", *(word for each in parameters for word in ("-p", each))], context=context)
    node = rclpy.create_node("n", context=context)
    try:
        with pytest.raises(ValueError, match=reason):
            Parameters(node, is_configured=lambda: False)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


class Recording(InferenceEngine):
    """Notes what it was asked for: output size, threshold and shapes; fails for images of one height."""

    calls: list
    fails_for = 33

    def __call__(self, images, memory=None):
        self.calls.append((self.output_size, self.foreground_threshold, [image.shape[:2] for image in images]))
        if any(image.shape[0] == self.fails_for for image in images):
            raise RuntimeError("out of memory")
        return super().__call__(images, memory)


@pytest.fixture
def work(weights):
    """Lets a worker take one image of each camera at once; returns the engine's calls and the channels."""
    context = rclpy.Context()
    cameras = ["front", "left", "rear", "right"]
    rclpy.init(args=["--ros-args", "-p", f"cameras:=[{', '.join(cameras)}]"], context=context)
    node = rclpy.create_node("n", context=context)
    parameters = Parameters(node, is_configured=lambda: False)
    mailboxes = Mailboxes(cameras)
    channels = {name: Channel(node, name, parameters.of(name), mailboxes[name]) for name in cameras}
    engine = Recording(open_model(weights, device="cpu", precision="float32"))
    engine.calls = []
    layouts = Layouts(node, parameters, grid_of(parameters))

    def run(shapes: dict[str, tuple[int, int]], **values):
        node.set_parameters([rclpy.parameter.Parameter(name.replace("__", "."), value=values[name]) for name in values])
        for channel in channels.values():
            channel.open(engine.metadata, "weights", layouts)
            channel.activate()
        for name, shape in shapes.items():
            message = image_message(np.zeros((*shape, 3), np.uint8), "rgb8", Header())
            mailboxes[name].put(Arrival(message, 0, 0.0, None))
        worker = Worker(channels, mailboxes, parameters, engine, layouts)

        def done():
            frames = [channel.monitor.snapshot() for channel in channels.values()]
            return sum(each.published + each.failed + each.rejected for each in frames) == len(shapes)

        wait_for(done, "all frames")
        assert worker.stop(60.0)
        return engine.calls, channels

    yield run
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize("foreground_classes", [1, 3])
def test_kinds_of_objects_have_topics_where_the_weights_tell_them(foreground_classes):
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node("n", context=context)
    said = []
    node.get_logger().info = said.append
    Results(node, Metadata("some network", {"foreground_classes": foreground_classes}), "some.onnx", "~/front")
    topics = {name for name, _ in node.get_topic_names_and_types()}
    assert ("/n/front/foreground_classes" in topics) == (foreground_classes == 3)
    reason = "~/front/foreground_classes is left out: some.onnx tells no kinds of objects"
    assert (reason in said) == (foreground_classes == 1)
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_frames_that_are_there_together_share_a_pass_by_size(work):
    calls, _ = work({"front": (96, 160), "left": (64, 64), "rear": (96, 160)})
    assert calls == [("input", 0.5, [(64, 64), (96, 160), (96, 160)])]


def test_frames_that_ask_for_something_else_do_not(work):
    calls, _ = work({"front": (96, 160), "left": (96, 160), "rear": (96, 160)}, left__output_size="network")
    assert calls == [("input", 0.5, [(96, 160), (96, 160)]), ("network", 0.5, [(96, 160)])]


def test_cameras_with_and_without_a_memory_do_not_either(work):
    calls, _ = work({"front": (96, 160), "left": (96, 160), "rear": (96, 160)}, left__temporal=True)
    assert calls == [("input", 0.5, [(96, 160), (96, 160)]), ("input", 0.5, [(96, 160)])]


def test_the_failure_of_one_is_not_that_of_others(work):
    _, channels = work({"front": (33, 40), "left": (33, 600), "rear": (96, 160)})
    counts = {name: channel.monitor.snapshot() for name, channel in channels.items()}
    assert (counts["front"].failed, counts["front"].last_failure) == (1, "RuntimeError: out of memory")
    assert (counts["left"].rejected, counts["rear"].published) == (1, 1)
    assert counts["rear"].failed == 0
