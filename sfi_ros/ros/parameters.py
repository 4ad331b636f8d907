"""The parameters of `settings` on a node: declared, validated, and watched while they change."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from sfi_ros.ros.settings import CAMERA_SETTINGS, SETTINGS, Change, Setting


class Parameters:
    """Declares `SETTINGS` on a node and watches over their changes.

    For each of several cameras it also declares `CAMERA_SETTINGS` and, without a value, what a camera may have of its
    own: `front.max_rate` beside `max_rate`.

    Args:
        node: whose parameters they are.
        is_configured: whether parameters of `Change.UNCONFIGURED` are in use now.

    Attributes:
        cameras: names of the cameras; one without a name, "", unless they are named.

    Raises:
        ValueError: a value given at start is not acceptable.
    """

    def __init__(self, node: Node, is_configured: Callable[[], bool]):
        self._node, self._is_configured = node, is_configured
        self._settings: dict[str, Setting] = {}
        for setting in SETTINGS:
            self._declare(setting, setting.default)
        named = [name for name in self["cameras"] if name]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"parameter cameras names {', '.join(twice)} more than once")
        self.cameras: tuple[str, ...] = tuple(named) or ("",)
        for camera in named:
            for setting in CAMERA_SETTINGS:
                self._declare(_of_camera(setting, camera), setting.default)
            for setting in SETTINGS:
                if setting.per_camera:
                    own = _of_camera(setting, camera)
                    self._declare(own, Parameter.Type.from_parameter_value(own.default))
        node.add_on_set_parameters_callback(self._accept)

    def __getitem__(self, name: str) -> Any:
        """Return the value now, None if it has none; safe from any thread."""
        return self._node.get_parameter_or(name).value

    def of(self, camera: str) -> CameraParameters:
        """Return those of one of the cameras."""
        return CameraParameters(self, camera)

    def _declare(self, setting: Setting, default: Any) -> None:
        self._settings[setting.name] = setting
        self._node.declare_parameter(setting.name, default, _descriptor(setting))
        value = self[setting.name]
        if value is not None and (problem := setting.problem(value)):
            raise ValueError(f"parameter {problem}")

    def _accept(self, changes: list[Parameter]) -> SetParametersResult:
        for change in changes:
            setting = self._settings.get(change.name)
            if setting is None:  # use_sim_time, qos_overrides: rclpy's own
                continue
            if setting.change is Change.UNCONFIGURED and self._is_configured() and change.value != self[change.name]:
                reason = f"{change.name} is in use; clean the node up (lifecycle transition `cleanup`) to change it"
                return SetParametersResult(successful=False, reason=reason)
            if problem := setting.problem(change.value):
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)


class CameraParameters:
    """The parameters of one camera: its own where it has one, else that of all cameras.

    Args:
        parameters: of the node.
        camera: its name; "" for the only one.
    """

    def __init__(self, parameters: Parameters, camera: str):
        self._parameters, self._prefix = parameters, f"{camera}." if camera else ""

    def __getitem__(self, name: str) -> Any:
        """Return the value now; safe from any thread."""
        if self._prefix:
            own = self._parameters[self._prefix + name]
            if own is not None:
                return own
        return self._parameters[name]


def declare_number(
    node: Node, name: str, default: float, description: str, low: float, high: float, *, read_only: bool = True
) -> Any:
    """Declare a parameter within a range, an integer if the default is one; return its value."""
    descriptor = ParameterDescriptor(description=description, read_only=read_only)
    _limit(descriptor, default, low, high)
    return node.declare_parameter(name, default, descriptor).value


def warn_of_unknown(node: Node) -> None:
    """Log the names of parameters that were given at start and that the node does not have.

    ROS passes them by in silence, so a name with a typing error would leave the default in place.

    Args:
        node: has declared all of its parameters.
    """
    # rclpy offers them in no other way; what is below qos_overrides is declared with its topic.
    given: Collection[str] = getattr(node, "_parameter_overrides", ())
    for name in sorted(given):
        if not node.has_parameter(name) and not name.startswith("qos_overrides."):
            near = difflib.get_close_matches(name, node.get_parameters_by_prefix(""), n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            node.get_logger().warning(f"there is no parameter {name}, so its value has no effect{meant}")


def _of_camera(setting: Setting, camera: str) -> Setting:
    """Return a setting as the camera's own."""
    return replace(setting, name=f"{camera}.{setting.name}", description=f"of camera {camera}: {setting.description}")


def _descriptor(setting: Setting) -> ParameterDescriptor:
    """Return what `ros2 param describe` shows."""
    descriptor = ParameterDescriptor(
        description=setting.description,
        read_only=setting.change is Change.NEVER,
        additional_constraints=f"can be changed {setting.change.value}",
    )
    if setting.choices:
        descriptor.additional_constraints += f"; one of {', '.join(map(repr, setting.choices))}"
    if setting.range is not None:
        _limit(descriptor, setting.default, *setting.range)
    return descriptor


def _limit(descriptor: ParameterDescriptor, default: float, low: float, high: float) -> None:
    """Let ROS refuse values beyond a range."""
    if isinstance(default, int):
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    else:
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
