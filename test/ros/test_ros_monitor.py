"""What diagnostics conclude from what happened, and the mailbox in which the newest frame wins."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("diagnostic_msgs", reason="ROS messages are not installed (pip install sfi_ros[ros])")

from dataclasses import replace
from types import SimpleNamespace

from sfi_ros.ros import mailbox
from sfi_ros.ros.dds import PROFILE, VARIABLES, lost_images_remedy
from sfi_ros.ros.diagnostics import ERROR, OK, WARN, Condition, Limits, status
from sfi_ros.ros.mailbox import Mailboxes
from sfi_ros.ros.monitor import STAGES, Monitor

LIMITS = Limits(stale_warn=1.0, stale_error=5.0, latency_warn=0.3, latency_error=2.0, stall_error=10.0)
ACTIVE = Condition("active")


def healthy():
    """A monitor's snapshot after one frame went through well."""
    monitor = Monitor()
    monitor.arrived(100.0, 100.01, dropped_another=False)
    monitor.published(dict.fromkeys(STAGES, 0.01))
    return monitor.snapshot()


def judged(condition=ACTIVE, frames=None, **changes):
    result = status("inpaint: camera", condition, replace(frames or healthy(), **changes), LIMITS)
    return result.level, result.message


@pytest.mark.parametrize(
    ("condition", "changes", "level", "message"),
    [
        (ACTIVE, {}, OK, "active"),
        (Condition("unconfigured"), {}, OK, "unconfigured"),
        (Condition("unconfigured", configure_problem="no file x"), {}, ERROR, "configure failed: no file x"),
        (Condition("inactive"), {"age": 900.0}, OK, "inactive"),
        (Condition("active", demanded=False), {"age": 900.0}, OK, "idle"),
        (Condition("active", camera_problem="nobody publishes /x"), {"age": None}, WARN, "nobody publishes /x"),
        (ACTIVE, {"age": None}, WARN, "waiting; no frame arrived yet"),
        (ACTIVE, {"age": None, "active_for": 6.0}, ERROR, "waiting"),
        (ACTIVE, {"age": 1.5}, WARN, "stale; the last frame arrived 1.5 s ago"),
        (ACTIVE, {"age": 6.0}, ERROR, "stale"),
        (Condition("active", busy_for=11.0), {}, ERROR, "stalled: one frame has taken 11 s"),
        (Condition("active", worker_alive=False), {}, ERROR, "the worker thread died"),
        (Condition("active", untrained=True), {}, WARN, "untrained"),
        (ACTIVE, {"rejected_lately": 2, "last_rejection": "bad step"}, WARN, "2 frames rejected: bad step"),
        (ACTIVE, {"rejected_lately": 2, "published": 0}, ERROR, "rejected; 2 frames rejected"),
        (ACTIVE, {"failed_lately": 1, "last_failure": "out of memory"}, ERROR, "out of memory"),
        (ACTIVE, {"stages": {"total": [0.5]}}, WARN, "latency p95 is 500 ms"),
        (ACTIVE, {"stages": {"total": [3.0]}}, ERROR, "latency p95 is 3000 ms"),
        (Condition("active", demanded=False, busy_for=11.0), {}, ERROR, "stalled"),
        (
            Condition("active", remedy_for_loss="export X"),
            {"lost_rate": 7.7, "input_rate": 2.3},
            WARN,
            "active; 7.7 of 10.0 images/s are lost on their way here; export X",
        ),
        (ACTIVE, {"lost_rate": 10.0, "input_rate": 0.0, "age": None}, WARN, "10.0 of 10.0 images/s are lost"),
        (
            Condition("active", calibration_problem="no message arrived on /camera_info"),
            {},
            WARN,
            "~/camera_info is left out: no message arrived on /camera_info",
        ),
    ],
)
def test_states(condition, changes, level, message):
    got_level, got_message = judged(condition, **changes)
    assert got_level == level
    assert message in got_message


def test_the_worst_comes_first():
    level, message = judged(
        Condition("active", untrained=True), age=6.0, failed_lately=1, last_failure="boom", rejected_lately=0
    )
    assert level == ERROR
    assert message.index("boom") < message.index("untrained")


def test_values_break_the_latency_down():
    values = {v.key: v.value for v in status("x", ACTIVE, healthy(), LIMITS).values}
    for stage in (*STAGES, "total"):
        expected = 50.0 if stage == "total" else 10.0
        assert float(values[f"{stage} p50 (ms)"]) == pytest.approx(expected)
        assert float(values[f"{stage} p95 (ms)"]) == pytest.approx(expected)
    assert values["latency counted from"] == "stamp"


def test_counts():
    monitor = Monitor()
    for number in range(5):
        monitor.arrived(number / 10, number / 10, dropped_another=number % 2 == 1)
    monitor.rejected("a")
    monitor.failed("b")
    frames = monitor.snapshot()
    assert (frames.received, frames.dropped, frames.rejected, frames.failed, frames.published) == (5, 2, 1, 1, 0)
    assert (frames.last_rejection, frames.last_failure) == ("a", "b")
    monitor.start()
    frames = monitor.snapshot()
    assert (frames.received, frames.rejected, frames.age, frames.last_rejection) == (0, 0, None, "")


def test_losses():
    monitor = Monitor()
    assert monitor.snapshot().loss() == ""
    for number in range(3):
        monitor.arrived(number / 10, number / 10, dropped_another=False)
    monitor.lost(7)
    monitor.lost(2)
    frames = monitor.snapshot()
    assert frames.lost == 9
    assert frames.lost_rate == pytest.approx(3 * frames.input_rate)
    assert "images/s are lost" in frames.loss()
    values = {v.key: v.value for v in status("x", ACTIVE, frames, LIMITS).values}
    assert values["frames lost on their way here"] == "9"
    assert float(values["rate of loss (Hz)"]) > 0
    monitor.resume()  # what was lost for a subscription that has ended says nothing about the new one
    frames = monitor.snapshot()
    assert (frames.lost, frames.loss()) == (9, "")


@pytest.mark.parametrize(
    ("rmw", "environment", "expected"),
    [
        (
            "rmw_fastrtps_cpp",
            {},
            f"export FASTRTPS_DEFAULT_PROFILES_FILE={PROFILE} for the processes of the camera and",
        ),
        (
            "rmw_fastrtps_dynamic_cpp",
            {"FASTRTPS_DEFAULT_PROFILES_FILE": str(PROFILE), "ROS_DISTRO": "humble"},
            f"export FASTRTPS_DEFAULT_PROFILES_FILE={PROFILE} for the camera's process before it starts",
        ),
        (
            "rmw_fastrtps_cpp",
            {"FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE), "ROS_DISTRO": "kilted"},
            f"export FASTDDS_DEFAULT_PROFILES_FILE={PROFILE} for the camera's process",
        ),
        ("rmw_fastrtps_cpp", {"FASTRTPS_DEFAULT_PROFILES_FILE": "/my.xml"}, f"as {PROFILE} does"),
        ("rmw_cyclonedds_cpp", {}, "docs/node.md for rmw_cyclonedds_cpp"),
    ],
)
def test_the_remedy_for_losses_names_what_to_export(monkeypatch, rmw, environment, expected):
    for variable in (*VARIABLES, "ROS_DISTRO"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert expected in lost_images_remedy(rmw)


def test_a_stamp_that_goes_back_starts_latencies_anew_but_counts_on():
    monitor = Monitor()
    monitor.arrived(100.0, 100.0, dropped_another=False)
    monitor.published({"inference": 9.0})
    monitor.arrived(99.9, 100.1, dropped_another=False)  # jitter, not a jump
    assert monitor.snapshot().time_jumps == 0
    monitor.arrived(5.0, 100.2, dropped_another=False)
    frames = monitor.snapshot()
    assert (frames.time_jumps, frames.received, frames.stages["total"]) == (1, 3, [])
    assert frames.age is not None
    monitor.time_jumped()  # the clock itself
    assert monitor.snapshot().age is None


def test_a_resumed_camera_is_waited_for_anew():
    monitor = Monitor()
    monitor.arrived(1.0, 1.0, dropped_another=False)
    monitor.resume()
    frames = monitor.snapshot()
    assert (frames.age, frames.received) == (None, 1)


def test_the_newest_frame_wins():
    mailboxes = Mailboxes(["front"])
    front = mailboxes["front"]
    assert mailboxes.take(timeout=0.0) == {}
    assert not front.put("old")
    assert front.put("new")
    assert mailboxes.take(timeout=0.0) == {"front": "new"}
    assert mailboxes.take(timeout=0.0) == {}
    front.put("stale")
    front.clear()
    assert mailboxes.take(timeout=0.0) == {}


def test_who_waits_at_the_mailboxes_is_woken():
    mailboxes = Mailboxes(["front", "rear"])
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(mailboxes.take(timeout=60.0)))
    waiting.start()
    mailboxes["rear"].put("frame")
    waiting.join(60.0)
    assert taken == [{"rear": "frame"}]


@pytest.fixture
def clock(monkeypatch):
    """The mailboxes' clock, which stands still: who would wait for it to go on waits forever."""
    now = [1000.0]
    monkeypatch.setattr(mailbox, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def keeps_coming(box, clock, gap: float):
    """Let two items come to a mailbox, the second one now."""
    clock[0] -= gap
    box.put("first")
    clock[0] += gap
    box.put("second")


def test_frames_that_are_there_are_taken_together():
    mailboxes = Mailboxes(["front", "rear", "side"])
    mailboxes["rear"].put("r")
    mailboxes["front"].put("f")
    assert mailboxes.take(timeout=0.0, window=3600.0) == {"front": "f", "rear": "r"}


def test_a_frame_waits_for_another_that_is_due():
    mailboxes = Mailboxes(["front", "rear"])
    for text in ("first", "second"):
        mailboxes["rear"].put(text)
    assert mailboxes.take(timeout=0.0) == {"rear": "second"}
    mailboxes["front"].put("f")
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(mailboxes.take(timeout=60.0, window=60.0)))
    waiting.start()
    assert not taken
    mailboxes["rear"].put("r")
    waiting.join(120.0)
    assert taken == [{"front": "f", "rear": "r"}]


@pytest.mark.timeout(60)
def test_nobody_waits_for_a_camera_that_is_dead_or_not_due(clock):
    mailboxes = Mailboxes(["front", "dead", "once", "slow", "ended"])
    mailboxes["once"].put("o")
    keeps_coming(mailboxes["dead"], clock, gap=0.03)
    clock[0] += 100.0
    keeps_coming(mailboxes["slow"], clock, gap=0.5)
    keeps_coming(mailboxes["ended"], clock, gap=0.03)
    mailboxes.take(timeout=0.0)
    mailboxes["ended"].clear()  # the node has unsubscribed
    mailboxes["front"].put("f")
    assert mailboxes.take(timeout=0.0, window=0.1) == {"front": "f"}


@pytest.mark.timeout(60)
def test_a_frame_that_has_waited_for_the_network_does_not_wait_for_other_frames(clock):
    mailboxes = Mailboxes(["front", "rear"])
    keeps_coming(mailboxes["rear"], clock, gap=0.15)
    mailboxes.take(timeout=0.0)
    mailboxes["front"].put("f")
    clock[0] += 0.12
    assert mailboxes.take(timeout=0.0, window=0.1) == {"front": "f"}


@pytest.mark.timeout(60)
def test_a_mailbox_at_rest_keeps_the_newest_until_its_time(clock):
    mailboxes = Mailboxes(["front", "rear"])
    mailboxes["front"].rest(until=clock[0] + 10.0)
    mailboxes["front"].put("old")
    assert mailboxes.take(timeout=0.0) == {}
    mailboxes["rear"].put("r")
    mailboxes["front"].put("new")
    assert mailboxes.take(timeout=0.0, window=0.1) == {"rear": "r"}
    clock[0] += 10.0
    assert mailboxes.take(timeout=0.0) == {"front": "new"}
