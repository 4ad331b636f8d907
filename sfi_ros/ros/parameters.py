"""The parameters of `settings` on a node: declared, validated, and watched while they change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from sfi_ros.ros.settings import SETTINGS, Change, Setting


class Parameters:
    """Declares `SETTINGS` on a node and watches over their changes.

    Args:
        node: whose parameters they are.
        is_configured: whether parameters of `Change.UNCONFIGURED` are in use now.

    Raises:
        ValueError: a value given at start is not acceptable.
    """

    def __init__(self, node: Node, is_configured: Callable[[], bool]):
        self._node, self._is_configured = node, is_configured
        self._settings = {setting.name: setting for setting in SETTINGS}
        for setting in SETTINGS:
            node.declare_parameter(setting.name, setting.default, _descriptor(setting))
            if problem := setting.problem(self[setting.name]):
                raise ValueError(f"parameter {problem}")
        node.add_on_set_parameters_callback(self._accept)

    def __getitem__(self, name: str) -> Any:
        """Return the value now; safe from any thread."""
        return self._node.get_parameter(name).value

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
        low, high = setting.range
        if isinstance(setting.default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return descriptor
