"""What the launch files decide before they start anything: for which cameras, and whether the arguments are acceptable.

`ros2 launch` leaves running processes behind when a later step of a launch file fails, so what can be wrong is looked
for first. Imports neither PyTorch nor OpenCV: `ros2` may run in another Python than the node.
"""

from __future__ import annotations

import copy
import difflib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from sfi_ros.errors import MissingFileError, OptionError, UnavailableError
from sfi_ros.ros.settings import SETTINGS

# Launch arguments that override the parameter of the same name; "" leaves it to the parameter file.
OVERRIDES: Final = ("weights", "device", "precision", "backend", "image_transport", "output_size", "lazy")
_SETTINGS: Final = {setting.name: setting for setting in SETTINGS}
_NAMES: Final = re.compile(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)
_TOGETHER: Final = "/inpaint/layout"  # topics of all cameras of a node
_BOOLEANS: Final = {"true": True, "false": False}


@dataclass(frozen=True)
class CameraNode:
    """A node for one camera, or the part that one camera has in a node for several: the topics are the same.

    Attributes:
        namespace: of the node or that part, without slashes around it; "" for none.
        image: topic of the camera, absolute or in `namespace`.
        camera_info: topic of its calibration; "" for the one beside the image.
    """

    namespace: str
    image: str
    camera_info: str = ""

    @property
    def name(self) -> str:
        """The node's full name, before the names of its results."""
        return f"/{self.namespace}/inpaint" if self.namespace else "/inpaint"

    def image_topic(self, transport: str) -> str:
        """Return the absolute name of the topic that the node subscribes to."""
        inside = f"/{self.namespace}/{self.image}" if self.namespace else f"/{self.image}"
        topic = self.image if self.image.startswith("/") else inside
        return f"{topic.removesuffix('/compressed')}/compressed" if transport == "compressed" else topic


def camera_nodes(*, namespace: str, cameras: str, image: str, camera_info: str) -> list[CameraNode]:
    """Return the nodes that these launch arguments ask for: one, or one for each name in `cameras`.

    Raises:
        OptionError: a name that ROS does not accept, or arguments that exclude each other.
    """
    namespace = namespace.strip("/")
    if namespace:
        _check_name("namespace", namespace)
    if not cameras:
        _check_name("image", image.removeprefix("/"))
        if camera_info:
            _check_name("camera_info", camera_info.removeprefix("/"))
        return [CameraNode(namespace, image, camera_info)]
    if camera_info:
        raise OptionError("camera_info is for one camera; with cameras:=… each has its own, <camera>/camera_info")
    inside = [f"{namespace}/{name}" if namespace else name for name in camera_names(cameras)]
    return [CameraNode(each, f"/{each}/image_raw") for each in inside]


def camera_names(cameras: str) -> list[str]:
    """Return the names in the launch argument `cameras`.

    Raises:
        OptionError: a name that ROS does not accept, or one that is there twice.
    """
    names = [name.strip().strip("/") for name in cameras.split(",")]
    for name in names:
        _check_name("cameras", name)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise OptionError(f"cameras names {', '.join(twice)} more than once")
    return names


def overriding_parameters(arguments: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters that launch arguments override.

    Args:
        arguments: values of `OVERRIDES`.

    Raises:
        OptionError: a value that the parameter does not accept.
    """
    parameters = {}
    for name in OVERRIDES:
        if text := arguments.get(name, ""):
            setting = _SETTINGS[name]
            value = _BOOLEANS.get(text.lower()) if isinstance(setting.default, bool) else text
            if value is None:
                raise OptionError(f"{name} is {text!r}; accepted are 'true' and 'false'")
            if problem := setting.problem(value):
                raise OptionError(problem)
            parameters[name] = value
    return parameters


def misspelt_arguments(given: Iterable[str], known: Collection[str]) -> list[str]:
    """Say which launch arguments look like others with a typing error; `ros2 launch` passes unknown ones by in silence.

    Names that resemble none are left alone: they belong to a launch file that includes ours.

    Args:
        given: all that are set where the launch file runs.
        known: those that it declares.
    """
    near = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.8) for name in given if name not in known}
    return [
        f"warning: {name} is no argument of this launch file, so its value has no effect; did you mean {match[0]}?"
        for name, match in sorted(near.items())
        if match
    ]


def number(name: str, text: str) -> float:
    """Return the value of a launch argument that is a number.

    Raises:
        OptionError: it is none.
    """
    try:
        return float(text)
    except ValueError as error:
        raise OptionError(f"{name} is {text!r}; it must be a number") from error


def check_parameter_file(path: str) -> None:
    """Refuse a parameter file that is not there: launch would only warn and start the node without it.

    Raises:
        MissingFileError
    """
    if not Path(path).is_file():
        raise MissingFileError(f"params_file {path} does not exist")


def check_rviz() -> None:
    """Refuse to start where RViz is not installed.

    Raises:
        UnavailableError
    """
    try:
        installed = os.access(Path(get_package_prefix("rviz2"), "lib", "rviz2", "rviz2"), os.X_OK)
    except PackageNotFoundError:
        installed = False
    if not installed:
        package = f"ros-{os.environ.get('ROS_DISTRO', '<distribution>')}-rviz2"
        raise UnavailableError(f"rviz:=true needs RViz, which is not installed: apt install {package}, or rviz:=false")


def rviz_config(
    template: str, nodes: list[CameraNode], transport: str, fixed_frame: str, one_node: CameraNode | None = None
) -> str:
    """RViz's configuration for these cameras.

    Args:
        template: a configuration (YAML) whose displays show /camera/image_raw and topics of /inpaint.
        nodes: one set of displays is made for each.
        transport: raw or compressed, of the cameras' images.
        fixed_frame: of RViz.
        one_node: that all cameras share; None where each has its own. What all see together is shown once then.
    """
    config = yaml.safe_load(template)
    manager = config["Visualization Manager"]
    manager["Global Options"]["Fixed Frame"] = fixed_frame
    template_displays, displays = manager["Displays"], []
    if one_node is not None:
        together = [display for display in template_displays if display["Topic"]["Value"].startswith(_TOGETHER)]
        template_displays = [display for display in template_displays if display not in together]
        for display in copy.deepcopy(together):
            display["Topic"]["Value"] = display["Topic"]["Value"].replace("/inpaint", one_node.name, 1)
            displays.append(display)
    for node in nodes:
        for display in copy.deepcopy(template_displays):
            topic = display["Topic"]["Value"]
            of_node = topic.startswith("/inpaint/")
            display["Topic"]["Value"] = (
                topic.replace("/inpaint", node.name, 1) if of_node else node.image_topic(transport)
            )
            if len(nodes) > 1:
                display["Name"] = f"{node.namespace}: {display['Name']}"
            displays.append(display)
    manager["Displays"] = displays
    return yaml.safe_dump(config, sort_keys=False)


def _check_name(argument: str, name: str) -> None:
    if not _NAMES.fullmatch(name):
        raise OptionError(
            f"{argument} has {name!r}, which is no name for ROS: letters, digits and _ between slashes, no digit first"
        )
