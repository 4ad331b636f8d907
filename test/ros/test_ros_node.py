"""The node as a process: what it publishes, when it computes, what it refuses, and how it says what is wrong."""

from __future__ import annotations

import array
import re
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

import rclpy
from builtin_interfaces.msg import Time as StampMessage
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_harness import Camera, Process, small_weights, stamp_of, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from sfi_ros.frames.encodings import view
from sfi_ros.geometry.calibration import Calibration, camera_matrix
from sfi_ros.inference import InferenceEngine
from sfi_ros.inference.temporal import TemporalFilter
from sfi_ros.outputs import OUTPUTS
from sfi_ros.ros.camera_info import camera_info_message
from sfi_ros.ros.image_messages import image_message
from sfi_ros.synthetic import SyntheticStreet
from sfi_ros.visualization import colorize, overlay

pytest_plugins = ["ros_harness"]
pytestmark = pytest.mark.timeout(1200)
IMAGE_RESULTS = tuple(output.name for output in OUTPUTS)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_weights(tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture(scope="module")
def node(probe, weights, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "node.log"
    arguments = ("-p", f"weights:={weights}", "-p", "device:=cpu", "-p", "precision:=float32")
    with Process("inpaint_node", *arguments, log=log) as process:
        wait_for(lambda: "active" in process.log() or not process.alive, "activation")
        assert process.alive, process.log()
        yield process
        assert process.alive, process.log()
    assert process.stop() == 0, process.log()


@pytest.fixture
def camera(probe, node):
    with Camera(probe) as camera:
        yield camera


@pytest.fixture(scope="module")
def picture():
    return SyntheticStreet(seed=3, width=160, height=96).frame(5).image


def same_scene(inboxes, stamp):
    """The message of each inbox with this stamp, once all have it."""
    found = [next((m for m in list(inbox.messages) if stamp_of(m) == stamp), None) for inbox in inboxes]
    return None if any(message is None for message in found) else found


def test_every_topic_carries_what_the_engine_says(probe, camera, picture, weights):
    scene = InferenceEngine.load(weights, device="cpu", precision="float32")(picture)
    expected = {
        "foreground_mask": scene.foreground * 255,
        "background": scene.background,
        "background_confidence": scene.confidence,
        "background_color": colorize(scene.background),
        "overlay": overlay(picture, scene.foreground, scene.background),
        "foreground_probability": scene.foreground_probability,
        "background_evidence": scene.background + 3 * scene.foreground,
        "foreground_classes": scene.foreground_classes,
    }
    assert set(expected) == set(IMAGE_RESULTS)
    assert all(len(np.unique(image)) > 1 for image in expected.values())
    inboxes = [probe.listen(f"/inpaint/{name}") for name in IMAGE_RESULTS]
    camera.connect(*inboxes)
    stamp = camera.show(picture)
    messages = wait_for(lambda: same_scene(inboxes, stamp), "one scene on every topic")
    for name, message, inbox in zip(IMAGE_RESULTS, messages, inboxes, strict=True):
        assert message.header.frame_id == "front"
        assert message.encoding == ("mono8" if expected[name].ndim == 2 else "rgb8")
        different = np.abs(view(message).astype(int) - expected[name]).reshape(96, 160, -1).max(axis=2) > 1
        assert different.mean() < 0.01, name  # another number of threads may round the odd pixel differently
        inbox.__exit__()


def test_every_stamp_is_that_of_an_image_and_the_newest_frame_is_always_done(probe, camera, picture):
    with probe.listen("/inpaint/foreground_mask") as masks:
        camera.connect(masks)
        sent = [camera.show(picture) for _ in range(40)]  # as fast as it goes: faster than the network
        wait_for(lambda: sent[-1] in masks.stamps(), "the newest image's result")
        assert set(masks.stamps()) <= set(sent)
        assert masks.stamps() == sorted(masks.stamps())


@pytest.mark.parametrize("size", [(96, 160), (375, 1242), (64, 64), (33, 47), (1, 1)])
def test_sizes(probe, camera, size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    with probe.listen("/inpaint/background") as inbox:
        camera.connect(inbox)
        stamp = camera.show(image)
        (message,) = wait_for(lambda: same_scene([inbox], stamp), "a result")
        assert view(message).shape == size


def test_network_size_comes_with_a_calibration_that_fits(probe, camera, picture):
    info = camera_info_message(Calibration.pinhole(160, 96, camera_matrix(160, 96, 70.0)), camera.header())
    infos = probe.node.create_publisher(CameraInfo, "/camera_info", 10)
    assert probe.set("output_size", "network").successful
    try:
        with probe.listen("/inpaint/overlay") as overlays, probe.listen("/inpaint/camera_info", CameraInfo) as scaled:
            camera.connect(overlays)

            def calibrated():
                infos.publish(info)
                return scaled.messages

            camera.show_until(calibrated, "a calibration", picture)
            stamp = scaled.stamps()[-1]
            messages = wait_for(lambda: same_scene([overlays, scaled], stamp), "overlay and calibration of one image")
            small, calibration = messages
            assert (small.height, small.width) == (64, 107)
            assert (calibration.height, calibration.width) == (64, 107)
            assert calibration.k[0] == pytest.approx(info.k[0] * 107 / 160)
            assert calibration.header.frame_id == "front"
    finally:
        assert probe.set("output_size", "input").successful
        probe.node.destroy_publisher(infos)


def test_nothing_is_computed_while_nobody_listens(probe, camera, picture):
    wait_for(lambda: camera.subscribers == 0, "the end of the subscription")
    status = probe.await_status(lambda s: s["state"] == "idle", "idleness")
    assert status["level"] == "0"
    with probe.listen("/inpaint/foreground_mask") as inbox:
        camera.show_until(lambda: inbox.messages, "a result", picture)
    wait_for(lambda: camera.subscribers == 0, "the end of the subscription")


def test_not_lazy_computes_for_nobody(probe, camera, picture):
    assert probe.set("lazy", False).successful
    try:
        wait_for(lambda: camera.subscribers, "a subscription without a listener")
        before = int(probe.await_status(lambda s: True, "diagnostics")["frames published"])
        camera.show_until(lambda: int(probe.status()["frames published"]) > before, "a published frame", picture)
    finally:
        assert probe.set("lazy", True).successful


def test_malformed_images_are_counted_and_named_and_survived(probe, camera, node, picture):
    good = camera.message(picture)

    def spoiled(**fields):
        message = camera.message(picture)
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    malformed = {
        "unknown encoding 'something'": spoiled(encoding="something"),
        "needs 46080 bytes": spoiled(data=good.data[:-1]),
        "has no pixels": spoiled(width=0),
        "step 3": spoiled(step=3),
        "24 megapixels": spoiled(width=7680, height=4320, step=7680 * 3),
        "factor of 16": image_message(np.zeros((2, 200, 3), np.uint8), "rgb8", camera.header()),
    }
    with probe.listen("/inpaint/foreground_mask") as inbox:
        camera.connect(inbox)
        for reason, message in malformed.items():
            before = int(probe.await_status(lambda s: s["state"] != "idle", "diagnostics")["frames rejected"])
            camera.send(message)
            status = probe.await_status(lambda s, b=before: int(s["frames rejected"]) == b + 1, f"rejection: {reason}")
            assert reason in status["last rejection"]
            assert reason in status["message"]
            assert int(status["level"]) > 0
        stamp = camera.show(picture)
        wait_for(lambda: stamp in inbox.stamps(), "a result after all that")
    assert "frame from /image rejected: unknown encoding 'something'" in node.log()


def test_stamps_before_1970_are_counted_and_kept(probe, camera, node, picture):
    with probe.listen("/inpaint/foreground_mask") as masks:
        camera.connect(masks)
        before = int(probe.await_status(lambda s: s["state"] != "idle", "diagnostics")["frames received"])
        message = camera.message(picture)
        message.header.stamp.sec = -5
        message.header.stamp.nanosec = 7
        camera.send(message)
        wait_for(lambda: (-5, 7) in masks.stamps(), "the result of second -5")
        status = probe.await_status(lambda s: int(s["frames received"]) > before, "a count")
        assert "not of this clock" in status["latency counted from"]
    assert "images on /image have stamps before 1970" in node.log()
    assert "Traceback" not in node.log()


def twelve_bits(camera, picture, shift: int):
    """The red channel of a picture as a 12-bit camera sends it, its bits shifted up or not."""
    values = picture[..., 0].astype(np.uint16) << (4 + shift)
    message = camera.message(picture)
    message.encoding, message.step = "mono16", picture.shape[1] * 2
    message.data = array.array("B", values.astype("<u2").tobytes())
    return message


def test_a_twelve_bit_camera_is_black_until_its_bits_are_named(probe, camera, node, picture):
    with probe.listen("/inpaint/overlay") as overlays:
        camera.connect(overlays)

        def shown(message):
            camera.send(message)
            (overlay_,) = wait_for(lambda: same_scene([overlays], stamp_of(message)), "a result")
            return view(overlay_)

        assert probe.set("overlay_alpha", 0.0).successful
        assert probe.set("foreground_threshold", 1.0).successful  # neither tint nor outline: the image itself
        try:
            assert shown(twelve_bits(camera, picture, shift=0)).max() < 16
            shown(twelve_bits(camera, picture, shift=0))
            warning = "16-bit images on /image use 12 bits of each value and reach only 6.25 % of white"
            assert node.log().count(warning) == 1
            assert "set significant_bits" in node.log()
            assert probe.set("significant_bits", 12).successful
            np.testing.assert_array_equal(
                shown(twelve_bits(camera, picture, shift=0)), picture[..., 0, None].repeat(3, axis=2)
            )
            assert "too bright" not in node.log()
            shown(twelve_bits(camera, picture, shift=4))
            wait_for(lambda: "with significant_bits = 12 they are too bright" in node.log(), "a warning")
            assert not probe.set("significant_bits", 7).successful
        finally:
            assert probe.set("significant_bits", 16).successful
            assert probe.set("overlay_alpha", 0.5).successful
            assert probe.set("foreground_threshold", 0.5).successful


def test_a_camera_without_calibration_is_named_once_it_is_asked_for(probe, camera, node, picture):
    with probe.listen("/inpaint/foreground_mask") as masks:
        camera.connect(masks)
        stamp = camera.show(picture)
        wait_for(lambda: stamp in masks.stamps(), "a result")
        status = probe.await_status(lambda s: s["state"] == "active" or camera.show(picture), "diagnostics")
        assert "camera_info" not in status["message"]
        assert status["calibration topic"] == "/camera_info"
        infos = probe.node.create_publisher(CameraInfo, "/camera_info", 10)
        uncalibrated = CameraInfo(width=160, height=96)
        try:
            with probe.listen("/inpaint/camera_info", CameraInfo) as calibrations:

                def send():
                    message = camera.message(picture)
                    uncalibrated.header = message.header
                    infos.publish(uncalibrated)
                    camera.send(message)

                reason = "~/camera_info is left out: /camera_info: the camera is not calibrated"
                status = probe.await_status(lambda s: reason in s["message"] or send(), "the reason")
                assert int(status["level"]) > 0
                assert not calibrations.messages
            assert node.log().count(reason) == 1
            assert "Traceback" not in node.log()
        finally:
            probe.node.destroy_publisher(infos)


def test_the_log_names_the_topics_and_what_the_engine_says(node):
    assert "active: camera /image, calibration /camera_info, results in /inpaint/" in node.log()


def test_parameters_describe_themselves(probe, node):
    names = ["weights", "foreground_threshold", "autostart", "output_size", "input_height"]
    weights, threshold, autostart, size, height = probe.describe(names)
    assert all(d.description for d in (weights, threshold, autostart, size, height))
    assert (threshold.floating_point_range[0].from_value, threshold.floating_point_range[0].to_value) == (0.0, 1.0)
    assert height.integer_range[0].to_value == 4096
    assert autostart.read_only
    assert "'network'" in size.additional_constraints
    assert "unconfigured" in weights.additional_constraints


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("overlay_alpha", 1.5, "0 to 1"),
        ("foreground_threshold", float("nan"), "0 to 1"),
        ("max_rate", -1.0, "0 to 1000"),
        ("output_size", "huge", "'input', 'network'"),
        ("weights", "other.safetensors", "cleanup"),
        ("device", "cuda", "cleanup"),
        ("autostart", False, "read-only"),
        ("overlay_alpha", "a lot", "type"),
    ],
)
def test_parameters_refuse_with_a_reason(probe, node, name, value, reason):
    (before,) = probe.get([name])
    result = probe.set(name, value)
    assert not result.successful
    assert reason in result.reason or "range" in result.reason
    assert probe.get([name]) == [before]


def test_alpha_and_threshold_change_at_run_time(probe, camera, picture):
    overlays, masks, probabilities = (
        probe.listen(f"/inpaint/{name}") for name in ("overlay", "foreground_mask", "foreground_probability")
    )
    with overlays, masks, probabilities:
        camera.connect(overlays, masks, probabilities)
        try:
            assert probe.set("overlay_alpha", 0.0).successful
            assert probe.set("foreground_threshold", 1.0).successful  # no pixel is above it: no outline either
            stamp = camera.show(picture)
            picture_out, mask = wait_for(lambda: same_scene([overlays, masks], stamp), "a result")
            np.testing.assert_array_equal(view(picture_out), picture)
            assert view(mask).max() == 0
            assert probe.set("foreground_threshold", 0.0).successful
            stamp = camera.show(picture)
            mask, probability = wait_for(lambda: same_scene([masks, probabilities], stamp), "a result")
            np.testing.assert_array_equal(view(mask) > 0, view(probability) > 0)
            assert view(mask).mean() > 128
        finally:
            assert probe.set("overlay_alpha", 0.5).successful
            assert probe.set("foreground_threshold", 0.5).successful


def test_what_a_camera_saw_before_steadies_its_results_if_asked_to(probe, camera, weights):
    street, memory = SyntheticStreet(seed=3, width=160, height=96), TemporalFilter()
    engine = InferenceEngine.load(weights, device="cpu", precision="float32")
    with probe.listen("/inpaint/foreground_probability") as results:
        camera.connect(results)
        try:
            assert probe.set("temporal", True).successful
            differ = 0
            for step in range(3):
                image = street.frame(5 + step).image
                message = camera.message(image)
                message.header.stamp = StampMessage(sec=1000, nanosec=step * 100_000_000)
                camera.send(message)
                memory.follow(1000 + 0.1 * step)
                expected, alone = engine(image, memory), engine(image)
                wanted = stamp_of(message)
                (result,) = wait_for(lambda wanted=wanted: same_scene([results], wanted), "a result")
                np.testing.assert_array_equal(view(result), expected.foreground_probability)
                differ += np.count_nonzero(expected.foreground_probability != alone.foreground_probability)
            assert differ
        finally:
            assert probe.set("temporal", False).successful


def test_max_rate(probe, camera, picture):
    with probe.listen("/inpaint/foreground_mask") as masks:
        camera.connect(masks)
        try:
            assert probe.set("max_rate", 2.0).successful
            began = time.monotonic()
            camera.show_until(lambda: len(masks.messages) >= 5, "five results", picture)
            assert time.monotonic() - began > 1.5  # four pauses of half a second; a busy machine only adds to them
        finally:
            assert probe.set("max_rate", 0.0).successful


def test_a_camera_that_dies_is_reported_and_welcomed_back(probe, node, picture):
    probe.await_status(lambda s: s["state"] == "idle", "the end of what earlier tests wanted")
    with probe.listen("/inpaint/foreground_mask") as masks:
        status = probe.await_status(lambda s: s["state"] == "waiting", "waiting")
        assert "nobody publishes /image" in status["message"]
        for _ in range(2):
            done = len(masks.messages)
            with Camera(probe) as camera:
                camera.show_until(lambda d=done: len(masks.messages) > d, "a result", picture)
                camera.show_until(lambda: probe.status()["state"] == "active", "an active state", picture)
                assert float(probe.status()["inference p50 (ms)"]) > 0
                assert float(probe.status()["transport p50 (ms)"]) >= 0
            status = probe.await_status(lambda s: s["state"] == "stale", "a stale state")
            assert "the last frame arrived" in status["message"]
            assert int(status["level"]) > 0
        probe.await_status(lambda s: s["level"] == "2", "an error")


def test_a_camera_of_another_type_is_named(probe, node):
    context = rclpy.Context()  # DDS forbids two types for one name in one participant, so this driver has its own
    rclpy.init(args=[], context=context)
    driver = rclpy.create_node("driver", context=context)
    driver.create_publisher(CompressedImage, "/image", 1)
    try:
        with probe.listen("/inpaint/foreground_mask"):
            expected = "/driver publishes /image as sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image"
            probe.await_status(lambda s: expected in s["message"], "a word about the type")
    finally:
        driver.destroy_node()
        rclpy.shutdown(context=context)


def test_time_that_jumps_back_is_no_stale_camera(probe, camera, picture):
    with probe.listen("/inpaint/foreground_mask") as masks:
        camera.connect(masks)
        before = int(probe.await_status(lambda s: s["state"] != "idle", "diagnostics")["time jumps"])
        for sec in (500, 501, 502, 100, 101):  # a bag that starts again
            message = camera.message(picture)
            message.header.stamp.sec = sec
            camera.send(message)
            wait_for(lambda m=message: stamp_of(m) in masks.stamps(), f"the result of second {sec}")
        status = probe.await_status(lambda s: int(s["time jumps"]) > before + 1, "two time jumps")
        assert int(status["time jumps"]) - before == 2
        assert "not of this clock" in status["latency counted from"]


def test_lifecycle_and_parameters_answer_while_frames_are_worked_on(probe, camera, picture):
    big = cv2.resize(picture, (1920, 1080))
    with probe.listen("/inpaint/overlay") as overlays:
        camera.connect(overlays)
        for _ in range(10):
            camera.show(big)
        assert probe.state() == "active"
        assert probe.set("overlay_alpha", 0.5).successful
        wait_for(lambda: overlays.messages, "a result")


def test_lifecycle_walk_and_compressed_images(probe, node, picture):
    with probe.listen("/inpaint/foreground_mask") as masks:
        assert probe.transition("deactivate")
        assert probe.state() == "inactive"
        with Camera(probe) as camera:
            wait_for(lambda: camera.subscribers == 0, "the end of the subscription")
        assert not probe.set("image_transport", "compressed").successful
        assert probe.transition("cleanup")
        assert probe.state() == "unconfigured"
        probe.await_status(lambda s: s["state"] == "unconfigured" and s["level"] == "0", "the unconfigured state")
        wait_for(lambda: masks.publishers == 0, "the end of the results")
        assert probe.set("image_transport", "compressed").successful
        assert probe.transition("configure")
        assert probe.transition("activate")
        with Camera(probe, "/image/compressed", CompressedImage) as camera:
            camera.connect(masks)
            stamp = camera.show(picture)
            wait_for(lambda: stamp in masks.stamps(), "the result of a JPEG")
            deep = camera.message(picture)
            dark = picture[..., 0].astype(np.uint16) << 4  # of a 12-bit camera that leaves the upper bits empty
            deep.data = array.array("B", cv2.imencode(".png", dark)[1].tobytes())
            assert probe.set("significant_bits", 15).successful  # which makes the node look at the bits once more
            camera.send(deep)
            wait_for(lambda: stamp_of(deep) in masks.stamps(), "the result of a 16-bit PNG")
            assert "16-bit images on /image/compressed use 12 bits of each value and reach only 12.5 %" in node.log()
            assert probe.set("significant_bits", 16).successful
            truncated = camera.message(picture)
            truncated.data = array.array("B", truncated.data[:-300])
            camera.send(truncated)
            probe.await_status(lambda s: "truncated" in s["last rejection"], "the rejection of half a JPEG")
            again = camera.show(picture)
            wait_for(lambda: again in masks.stamps(), "the result of a whole JPEG after it")
    assert probe.transition("deactivate")
    assert probe.transition("cleanup")
    assert probe.set("image_transport", "raw").successful
    assert probe.transition("configure")
    assert probe.transition("activate")


def test_late_subscribers_learn_the_labels(probe, node):
    vision_msgs = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed: not on PyPI")
    from rclpy.qos import DurabilityPolicy

    qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    with probe.listen("/inpaint/label_info", vision_msgs.LabelInfo, qos) as inbox:
        wait_for(lambda: inbox.messages, "label info")
        assert [(c.class_id, c.class_name) for c in inbox.messages[0].class_map] == [
            (0, "road"),
            (1, "sidewalk"),
            (2, "other"),
        ]


def test_two_cameras_and_qos_overrides(probe, weights, picture, tmp_path):
    """Two nodes in namespaces; one asks for reliable images, which a best-effort publisher cannot give."""
    common = ("-p", f"weights:={weights}", "-p", "device:=auto", "-r", "image:=image_raw")
    override = "qos_overrides./rear/image_raw.subscription.reliability:=reliable"
    with (
        Process("inpaint_node", *common, "-r", "__ns:=/front", log=tmp_path / "front.log") as front,
        Process("inpaint_node", *common, "-r", "__ns:=/rear", "-p", override, log=tmp_path / "rear.log") as rear,
        probe.listen("/front/inpaint/foreground_mask") as front_masks,
        probe.listen("/rear/inpaint/foreground_mask") as rear_masks,
        Camera(probe, "/front/image_raw") as front_camera,
    ):
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        front_camera.connect(front_masks)
        with Camera(probe, "/rear/image_raw", Image, best_effort):
            expected = "/probe publishes /rear/image_raw with incompatible QoS"
            wait_for(lambda: expected in rear.log(), "a warning that names the publisher")
            status = probe.await_status(lambda s: s["state"] == "waiting", "waiting", "/rear/inpaint")
            assert expected in status["message"]
            front_stamp = front_camera.show(picture)
            wait_for(lambda: front_stamp in front_masks.stamps(), "the front camera's result")
            assert not rear_masks.messages
        with Camera(probe, "/rear/image_raw") as rear_camera:
            rear_camera.connect(rear_masks)
            rear_stamp = rear_camera.show(picture)
            wait_for(lambda: rear_stamp in rear_masks.stamps(), "the rear camera's result")
            assert rear_masks.stamps() == [rear_stamp]
            assert front_stamp in front_masks.stamps()
            assert rear_stamp not in front_masks.stamps()
        assert front.alive
        assert rear.alive
        (line,) = (line for line in front.log().splitlines() if "device 'auto': running on" in line)
        assert re.fullmatch(r"\[WARN\] \[[0-9.]+\] \[front\.inpaint\]: device 'auto': running on .*", line)
        assert "active: camera /front/image_raw, calibration /front/camera_info" in front.log()
