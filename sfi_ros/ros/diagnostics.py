"""What the node says on /diagnostics: one status that names its state, what is wrong and where the time goes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from sfi_ros.geometry.pose import CameraPose
from sfi_ros.ros.monitor import COMPARABLE, Snapshot

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass(frozen=True)
class Limits:
    """Seconds from which on a value is a warning or an error; see the parameters `diagnostics.*`."""

    stale_warn: float
    stale_error: float
    latency_warn: float
    latency_error: float
    stall_error: float


@dataclass(frozen=True)
class Condition:
    """What the node knows about itself beside its frames.

    Attributes:
        lifecycle: label of its state.
        configure_problem: why the last configure failed; "" if it did not.
        demanded: somebody subscribes to a result, or the node is not lazy.
        camera_problem: what is wrong with the camera's publishers; "" if nothing is.
        remedy_for_loss: what to do about images that are lost on their way.
        calibration_problem: why somebody waits for ~/camera_info in vain; "" if nobody does.
        untrained: the weights are a placeholder.
        busy_for: seconds since the worker took its frame; 0 while it waits.
        worker_alive: the worker's thread runs.
        facts: more to show: weights, device, ...
    """

    lifecycle: str
    configure_problem: str = ""
    demanded: bool = True
    camera_problem: str = ""
    remedy_for_loss: str = ""
    calibration_problem: str = ""
    untrained: bool = False
    busy_for: float = 0.0
    worker_alive: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)


def status(name: str, condition: Condition, frames: Snapshot, limits: Limits) -> DiagnosticStatus:
    """Judge a node.

    Args:
        name: of the status, by convention "node: what".
        condition: of the node.
        frames: what happened to its frames.
        limits: when that is bad.
    """
    state, problems = _state(condition, frames, limits)
    level = max((level for level, _ in problems), default=OK)
    worst_first = sorted(problems, key=lambda problem: problem[0], reverse=True)
    message = "; ".join([state, *(text for _, text in worst_first)])
    values = {"state": state, **condition.facts, **_values(frames)}
    result = status_of(level, name, message, values)
    result.hardware_id = str(condition.facts.get("camera topic", ""))
    return result


def status_of(level: bytes, name: str, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    """Make a status; numbers are written with three decimals, what is not known as a dash."""
    pairs = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=message, values=pairs)


def layout_status(name: str, state: str, problem: str, warning: str, pose: CameraPose | None) -> DiagnosticStatus:
    """Judge what a camera contributes to the layout of the ground.

    Args:
        name: of the status.
        state: of the node's lifecycle; "idle" where it is active and nobody subscribes to a layout.
        problem: why the newest image has no layout; "" if it has one.
        warning: what is left out of it; "" if nothing is.
        pose: of the camera in the newest layout.
    """
    values: dict[str, Any] = {"state": state}
    if state == "active" and problem:
        values["state"] = "no layout"
    elif state == "active" and pose is None:
        values["state"] = "waiting"
    if pose is not None:
        angles = {f"camera {angle} (degrees)": math.degrees(getattr(pose, angle)) for angle in ("pitch", "roll", "yaw")}
        values |= {"camera height (m)": pose.height, "camera x (m)": pose.x, "camera y (m)": pose.y, **angles}
    level, message = WARN if problem or warning else OK, "; ".join(filter(None, (values["state"], problem, warning)))
    return status_of(level, name, message, values)


def _state(condition: Condition, frames: Snapshot, limits: Limits) -> tuple[str, list[tuple[bytes, str]]]:
    """One word for the state, and what is wrong with it, each with its level."""
    if condition.lifecycle != "active":
        problem = condition.configure_problem
        return condition.lifecycle, [(ERROR, f"configure failed: {problem}")] if problem else []
    problems = _worker_problems(condition, frames, limits)
    if loss := frames.loss():
        problems.append((WARN, f"{loss}; {condition.remedy_for_loss}"))
    if condition.calibration_problem:
        problems.append((WARN, f"~/camera_info is left out: {condition.calibration_problem}"))
    if not condition.demanded:
        return "idle", problems
    if frames.age is None:
        level = ERROR if frames.active_for > limits.stale_error else WARN
        why = condition.camera_problem or "no frame arrived yet"
        return "waiting", [*problems, (level, why)]
    if frames.age > limits.stale_warn:
        level = ERROR if frames.age > limits.stale_error else WARN
        why = f"; {condition.camera_problem}" if condition.camera_problem else ""
        return "stale", [*problems, (level, f"the last frame arrived {frames.age:.1f} s ago{why}")]
    state = "rejected" if frames.rejected_lately and _nothing_comes_out(frames) else "active"
    return state, problems + _frame_problems(frames, limits)


def _worker_problems(condition: Condition, frames: Snapshot, limits: Limits) -> list[tuple[bytes, str]]:
    problems = []
    if not condition.worker_alive:
        problems.append((ERROR, "the worker thread died"))
    elif condition.busy_for > limits.stall_error:
        problems.append((ERROR, f"stalled: one frame has taken {condition.busy_for:.0f} s so far"))
    if frames.failed_lately:
        problems.append((ERROR, f"{frames.failed_lately} frames failed lately: {frames.last_failure}"))
    if frames.rejected_lately:
        problems.append(
            (
                ERROR if _nothing_comes_out(frames) else WARN,
                f"{frames.rejected_lately} frames rejected: {frames.last_rejection}",
            )
        )
    if condition.untrained:
        problems.append((WARN, "the network is untrained, its results mean nothing: set the parameter weights"))
    return problems


def _nothing_comes_out(frames: Snapshot) -> bool:
    return frames.published == 0 or not frames.stages["total"]


def _frame_problems(frames: Snapshot, limits: Limits) -> list[tuple[bytes, str]]:
    problems = []
    p95 = _percentile(frames.stages["total"], 95)
    if p95 is not None and p95 > limits.latency_warn:
        level = ERROR if p95 > limits.latency_error else WARN
        problems.append((level, f"latency p95 is {p95 * 1e3:.0f} ms"))
    return problems


def _values(frames: Snapshot) -> dict[str, Any]:
    values: dict[str, Any] = {
        "input rate (Hz)": frames.input_rate,
        "output rate (Hz)": frames.output_rate,
        "frames received": frames.received,
        "frames published": frames.published,
        "frames dropped (newest wins)": frames.dropped,
        "frames rejected": frames.rejected,
        "frames failed": frames.failed,
        "frames lost on their way here": frames.lost,
        "rate of loss (Hz)": frames.lost_rate,
        "last rejection": frames.last_rejection,
        "last failure": frames.last_failure,
        "age of newest frame (s)": frames.age,
        "stamp behind clock (s)": frames.stamp_offset,
        "time jumps": frames.time_jumps,
    }
    if frames.stamp_offset is not None and abs(frames.stamp_offset) > COMPARABLE:
        values["latency counted from"] = "arrival: stamps are not of this clock (use_sim_time?)"
    else:
        values["latency counted from"] = "stamp"
    for stage, durations in frames.stages.items():
        for percent in (50, 95):
            value = _percentile(durations, percent)
            values[f"{stage} p{percent} (ms)"] = None if value is None else value * 1e3
    return values


def _percentile(durations: list[float], percent: float) -> float | None:
    return float(np.percentile(durations, percent)) if durations else None


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
