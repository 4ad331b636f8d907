"""The ground in metres as topics: what two cameras of one process see together, and what Nav2 would read of it."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed (pip install sfi_ros[ros])")

from builtin_interfaces.msg import Time
from nav_msgs.msg import OccupancyGrid
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from ros_harness import Camera, Process, stamp_of, wait_for
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from sfi_ros.frames.encodings import view
from sfi_ros.geometry.fusion import fuse
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.layout import BLOCKED, INFERRED, OUT_OF_VIEW, SEEN, LayoutMaker
from sfi_ros.geometry.occupancy import Costs, occupied_now
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.inference import InferenceEngine
from sfi_ros.ros import ground_messages
from sfi_ros.ros.camera_info import camera_info_message
from sfi_ros.ros.ground_messages import POINT, grid_map_message
from sfi_ros.synthetic import SyntheticStreet

pytest_plugins = ["ros_harness"]
pytestmark = pytest.mark.timeout(1200)
FRAME = 20
SIZE = (320, 160)
GRID = GroundGrid(-15.0, 30.0, -10.0, 10.0, 0.2, "base_footprint")
POSES = {"front": CameraPose(1.4, pitch=0.02, x=1.0), "rear": CameraPose(1.4, pitch=0.05, yaw=3.1, x=-1.0)}
# What the costmap's static layer subscribes with, and the semantic segmentation layer.
STATIC_LAYER = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SEMANTIC_LAYER = QoSProfile(depth=50, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
LABELS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module")
def street():
    return SyntheticStreet(0, *SIZE)


@pytest.fixture(scope="module")
def picture(street):
    return street.frame(FRAME).image


@pytest.fixture(scope="module")
def node(probe, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "node.log"
    words = ["device:=cpu", "precision:=float32", "cameras:=[front, rear]", "lazy:=true", "layout.max_age:=60.0"]
    words += [f"layout.{name}:={getattr(GRID, name)}" for name in ("x_min", "x_max", "y_min", "y_max", "resolution")]
    for camera, pose in POSES.items():
        words += [f"{camera}.pose.{name}:={value}" for name, value in vars(pose).items()]
    arguments = [word for each in words for word in ("-p", each)]
    with Process("inpaint_node", *arguments, log=log) as process:
        wait_for(lambda: process.log().count("active: camera") == 2 or not process.alive, "activation")
        assert process.alive, process.log()
        yield process
        assert process.alive, process.log()
    assert process.stop() == 0, process.log()
    assert "Traceback" not in process.log()


@pytest.fixture(scope="module")
def scene(picture):
    return InferenceEngine.load(device="cpu", precision="float32")(picture)


@pytest.fixture(scope="module")
def expected(street, scene):
    """The layout of each camera, when both show the picture."""
    make = LayoutMaker(GRID)
    return {
        name: make(street.calibration, pose, scene.foreground, scene.background, scene.confidence)
        for name, pose in POSES.items()
    }


class Calibrated(Camera):
    """A camera that publishes its calibration with every image."""

    def __init__(self, probe, name, calibration):
        super().__init__(probe, f"/{name}/image_raw")
        self.calibration = calibration
        self._infos = probe.node.create_publisher(CameraInfo, f"/{name}/camera_info", 10)

    def show(self, image):
        message = self.message(image)
        if self.calibration is not None:
            self._infos.publish(camera_info_message(self.calibration, message.header))
        self.send(message)
        return stamp_of(message)

    def connect(self, *inboxes):
        """As that of any camera, with images that fit the calibration; latched grids of earlier images do not count."""
        sent = []

        def step():
            sent.append(self.show(np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)))
            time.sleep(0.05)
            return any(all(stamp in inbox.stamps() for inbox in inboxes) for stamp in sent)

        wait_for(step, "all results of an image")
        wait_for(lambda: all(sent[-1] in inbox.stamps() for inbox in inboxes), "the newest image's results")
        for inbox in inboxes:
            inbox.messages.clear()

    def __exit__(self, *_):
        super().__exit__()
        self._node.destroy_publisher(self._infos)


@pytest.fixture
def front(probe, node, street):
    with Calibrated(probe, "front", street.calibration) as camera:
        yield camera


@pytest.fixture
def rear(probe, node, street):
    with Calibrated(probe, "rear", street.calibration) as camera:
        yield camera


def newest(inbox, stamp):
    """The message with this stamp, once it is there."""
    found = wait_for(lambda: [m for m in list(inbox.messages) if stamp_of(m) == stamp], f"{inbox.topic} of {stamp}")
    return found[0]


def cells(message: OccupancyGrid) -> np.ndarray:
    return np.array(message.data, np.int8).reshape(message.info.height, message.info.width)


def points_of(message: PointCloud2) -> np.ndarray:
    return np.frombuffer(message.data, POINT).reshape(message.height, message.width)


def agrees(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Another number of threads may round the odd pixel differently."""
    return found.shape == wanted.shape and float((found != wanted).mean()) < 0.01


def test_a_grid_before_there_is_a_calibration_and_when_it_is_for_another_size(probe, node, front, street, picture):
    calibration, front.calibration = front.calibration, None
    with probe.listen("/inpaint/layout", OccupancyGrid, STATIC_LAYER) as layouts:

        def says(text):
            def told(status):
                front.show(picture)
                return text in status["message"]

            status = probe.await_status(told, text, "/front/inpaint", "layout")
            assert status["level"] == "1"
            assert status["state"] == "no layout"

        says("no layout; no calibration arrived on /front/camera_info")
        told = (
            "front/inpaint/ground_points and the layout lack this camera: no calibration arrived on /front/camera_info"
        )
        front.show_until(lambda: told in node.log(), "a line in the log", picture)
        front.calibration = calibration.resized((640, 320))
        says("/front/camera_info is for images of 640x320, the camera's have 320x160")
        assert not layouts.messages
        front.calibration = calibration
        front.show_until(lambda: layouts.messages, "a layout", picture)
        assert node.log().count("lack this camera") == 1  # not with every image
        status = probe.await_status(lambda s: s["state"] == "active", "an active layout", "/front/inpaint", "layout")
    assert float(status["camera height (m)"]) == pytest.approx(1.4)
    assert float(status["camera pitch (degrees)"]) == pytest.approx(np.degrees(0.02), abs=0.05)
    status = probe.await_status(lambda s: s["state"] == "idle", "idleness", "/front/inpaint", "layout")
    assert status["level"] == "0"


def test_what_the_static_layer_of_a_costmap_reads(probe, front, picture, expected):
    """It subscribes late, and gets the newest grid; the other camera is silent."""
    with probe.listen("/inpaint/layout_objects", OccupancyGrid, STATIC_LAYER) as standing:
        front.connect(standing)
        stamp = front.show(picture)
        objects = newest(standing, stamp)
        with probe.listen("/inpaint/layout", OccupancyGrid, STATIC_LAYER) as early:
            stamp = front.show_until(lambda: early.messages, "a layout", picture)[-1]
            newest(early, stamp)
            with probe.listen("/inpaint/layout", OccupancyGrid, STATIC_LAYER) as late:
                grid = newest(late, stamp)
    assert grid.header.frame_id == "base_footprint"
    assert (grid.info.width, grid.info.height) == (225, 100)
    assert grid.info.resolution == pytest.approx(0.2)
    origin = grid.info.origin
    assert (origin.position.x, origin.position.y, origin.orientation.w) == (-15.0, -10.0, 1.0)
    assert agrees(cells(grid), Costs().of(expected["front"]))
    assert agrees(cells(objects), occupied_now(expected["front"]))
    assert {-1, 0, 50, 100} <= set(np.unique(cells(grid)))
    assert {-1, 0, 100} == set(np.unique(cells(objects)))
    road = cells(grid)[50, 75 + 75]  # 15 m ahead of a car on a road
    assert road in (0, 20)


def test_two_cameras_make_one_layout(probe, front, rear, picture, expected):
    with probe.listen("/inpaint/layout", OccupancyGrid, STATIC_LAYER) as layouts:
        front.connect(layouts)
        rear.connect(layouts)
        front.show(picture)
        stamp = rear.show(picture)

        def both():
            grid = newest(layouts, stamp)
            return agrees(cells(grid), Costs().of(fuse([expected["rear"], expected["front"]])))

        def again():
            nonlocal stamp
            front.show(picture)
            stamp = rear.show(picture)
            return both()

        wait_for(again, "a layout of both")
    known = expected["front"].evidence != OUT_OF_VIEW
    assert not known[:, : int(15 / 0.2)].any()  # the front camera knows nothing of what is behind the vehicle
    assert (expected["rear"].evidence[:, : int(10 / 0.2)] != OUT_OF_VIEW).any()


def test_costs_change_at_run_time(probe, front, picture, expected):
    with probe.listen("/inpaint/layout", OccupancyGrid, STATIC_LAYER) as layouts:
        front.connect(layouts)
        for name, value in (("cost_sidewalk", 100), ("cost_inferred", -1)):
            assert probe.set(f"layout.{name}", value).successful
        try:
            stamp = front.show(picture)
            of_front = Costs(sidewalk=100, inferred=-1).of(expected["front"])
            ahead = np.s_[:, 100:]  # where the layout of the other camera, from the test before, says nothing
            assert agrees(cells(newest(layouts, stamp))[ahead], of_front[ahead])
        finally:
            assert probe.set("layout.cost_sidewalk", 50).successful
            assert probe.set("layout.cost_inferred", 20).successful
        assert not probe.set("layout.cost_road", 101).successful
        assert not probe.set("layout.resolution", 0.5).successful  # while it is in use


def test_what_the_semantic_segmentation_layer_reads(probe, front, picture, scene, expected):
    """Mask, confidence and an organised cloud of one stamp; a finite point for every pixel that shows known ground."""
    topics = {"background": Image, "background_confidence": Image, "ground_points": PointCloud2}
    inboxes = [
        probe.listen(f"/front/inpaint/{name}", message_type, SEMANTIC_LAYER) for name, message_type in topics.items()
    ]
    front.connect(*inboxes)
    stamp = front.show(picture)
    mask, confidence, cloud = (newest(inbox, stamp) for inbox in inboxes)
    for inbox in inboxes:
        inbox.__exit__()
    assert (cloud.height, cloud.width) == (mask.height, mask.width) == (confidence.height, confidence.width)
    assert cloud.header.frame_id == "base_footprint"
    assert len(cloud.data) == cloud.row_step * cloud.height
    assert [(field.name, field.offset) for field in cloud.fields[:3]] == [("x", 0), ("y", 4), ("z", 8)]
    assert {field.name for field in cloud.fields[3:]} == {"class", "evidence", "confidence"}
    points, classes = points_of(cloud), view(mask)
    np.testing.assert_array_equal(points["class"], classes)
    np.testing.assert_array_equal(points["confidence"], view(confidence))
    finite = np.isfinite(points["z"])
    assert not finite[:60].any()  # above the horizon
    assert set(np.unique(points["evidence"][finite])) <= {SEEN, INFERRED}
    assert set(np.unique(points["evidence"][~finite])) <= {OUT_OF_VIEW, BLOCKED}
    # Its tile map, as the plugin fills it: the class of the most confident pixel in each cell.
    flat = GRID.cells(points["x"][finite].astype(float), points["y"][finite].astype(float))
    order = np.argsort(points["confidence"][finite], kind="stable")
    tiles = np.full(GRID.shape[0] * GRID.shape[1], 255)
    tiles[flat[order]] = points["class"][finite][order]
    layout = expected["front"]
    both = (tiles != 255) & (layout.classes.ravel() != 255)
    assert both.sum() > 1000
    assert (tiles == layout.classes.ravel())[both].mean() > 0.9
    hidden = (points["evidence"] == INFERRED) & finite
    assert (scene.foreground[hidden] == 1).mean() > 0.98


def test_the_labels_that_the_semantic_segmentation_layer_needs(probe, node):
    vision_msgs = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed: not on PyPI")
    with probe.listen("/front/inpaint/label_info", vision_msgs.LabelInfo, LABELS) as labels:
        wait_for(lambda: labels.messages, "label info")
        assert {c.class_id: c.class_name for c in labels.messages[0].class_map} == {
            0: "road",
            1: "sidewalk",
            2: "other",
        }


def test_a_picture_of_the_layout(probe, front, picture):
    with probe.listen("/inpaint/layout_color") as pictures:
        front.connect(pictures)
        stamp = front.show(picture)
        shown = newest(pictures, stamp)
    assert (shown.height, shown.width, shown.encoding) == (225, 100, "rgb8")
    assert len(np.unique(view(shown).reshape(-1, 3), axis=0)) > 3


def test_a_camera_is_only_listened_to_while_its_ground_is_wanted(probe, front, rear):
    wait_for(lambda: front.subscribers == rear.subscribers == 0, "the end of the subscriptions")
    with probe.listen("/rear/inpaint/ground_points", PointCloud2):
        wait_for(lambda: rear.subscribers, "the rear camera")
        assert front.subscribers == 0
    with probe.listen("/inpaint/layout", OccupancyGrid):  # as RViz subscribes: volatile
        wait_for(lambda: rear.subscribers and front.subscribers, "both cameras")


def test_what_makes_no_grid_is_named_when_the_node_is_configured(probe, node, front, picture):
    with probe.listen("/front/inpaint/ground_points", PointCloud2) as points:
        for step in ("deactivate", "cleanup"):
            assert probe.transition(step)
        wrong = {
            "layout.x_min": (30.0, -15.0, "the grid has no cells"),
            "rear.layout.own_vehicle": ("1,2", "", "1 corners"),
        }
        for name, (value, right, reason) in wrong.items():
            assert probe.set(name, value).successful
            assert not probe.transition("configure")
            assert probe.state() == "unconfigured"
            probe.await_status(lambda s, r=reason: r in s["message"], reason, "/front/inpaint")
            wait_for(lambda: points.publishers == 0, "the end of what was opened")
            assert probe.set(name, right).successful
        for step in ("configure", "activate"):
            assert probe.transition(step)
        front.show_until(lambda: points.messages, "points", picture)


class StandIn(SimpleNamespace):
    """Of grid_map_msgs/GridMap, which is not on PyPI."""

    def __init__(self, **fields):
        pose = SimpleNamespace(position=SimpleNamespace(), orientation=SimpleNamespace())
        super().__init__(info=SimpleNamespace(pose=pose), data=[], **fields)


def test_a_grid_map_counts_from_the_far_left_corner(monkeypatch):
    if ground_messages.GridMap is None:
        monkeypatch.setattr(ground_messages, "GridMap", StandIn)
    grid = GroundGrid(0.0, 3.0, -1.0, 1.0, 1.0)
    message = grid_map_message({"class": np.arange(6, dtype=np.float32).reshape(2, 3)}, grid, Time())
    assert list(message.data[0].data) == [5, 4, 3, 2, 1, 0]
    assert [dimension.size for dimension in message.data[0].layout.dim] == [2, 3]
    assert (message.info.length_x, message.info.length_y) == (3.0, 2.0)
    assert (message.info.pose.position.x, message.info.pose.position.y) == (1.5, 0.0)
