"""Starts the node for one camera or for several.

ros2 launch sfi_ros inpaint.launch.py image:=/camera/image_raw
ros2 launch sfi_ros inpaint.launch.py cameras:=front,rear          # /front/image_raw, /rear/image_raw
ros2 launch sfi_ros inpaint.launch.py --show-args
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import launch.logging
from ament_index_python.packages import get_package_share_directory
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from sfi_ros.ros import launching
from sfi_ros.ros.dds import chosen_profile, profile_environment
from sfi_ros.ros.stopping import LAUNCH_PID, REFUSED

SHARE = Path(get_package_share_directory("sfi_ros"))
BOOLEAN = ("true", "false")

ARGUMENTS = [
    DeclareLaunchArgument("image", default_value="/camera/image_raw", description="image topic of the camera"),
    DeclareLaunchArgument(
        "camera_info", default_value="", description="its camera_info topic; empty for camera_info beside the image"
    ),
    DeclareLaunchArgument(
        "cameras",
        default_value="",
        description="names of several cameras, with commas: each is listened to on <namespace>/<camera>/image_raw and "
        "has its results in <namespace>/<camera>/inpaint; replaces `image`",
    ),
    DeclareLaunchArgument(
        "one_process",
        default_value="true",
        choices=BOOLEAN,
        description="run one node for all `cameras`, which share its network; false: a node for each, in its namespace",
    ),
    DeclareLaunchArgument("namespace", default_value="", description="namespace of the node"),
    DeclareLaunchArgument(
        "params_file", default_value=str(SHARE / "config" / "inpaint.yaml"), description="parameter file"
    ),
    DeclareLaunchArgument(
        "weights",
        default_value="",
        description="checkpoint, or the name of one that ships; empty for that of params_file",
    ),
    DeclareLaunchArgument("device", default_value="", description="auto, cpu, cuda or cuda:N; empty: params_file"),
    DeclareLaunchArgument(
        "precision", default_value="", description="auto, float32, float16 or bfloat16; empty: params_file"
    ),
    DeclareLaunchArgument(
        "backend", default_value="", description="auto, pytorch, compile, onnxruntime or tensorrt; empty: params_file"
    ),
    DeclareLaunchArgument("image_transport", default_value="", description="raw or compressed; empty: params_file"),
    DeclareLaunchArgument("output_size", default_value="", description="input or network; empty: params_file"),
    DeclareLaunchArgument("lazy", default_value="", description="infer only while subscribed; empty: params_file"),
    DeclareLaunchArgument(
        "autostart", default_value="true", choices=BOOLEAN, description="false where a lifecycle manager starts nodes"
    ),
    DeclareLaunchArgument(
        "use_sim_time", default_value="false", choices=BOOLEAN, description="take the time from /clock"
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=("debug", "info", "warn", "error", "fatal"),
        description="least severe messages to log",
    ),
    DeclareLaunchArgument(
        "respawn", default_value="true", choices=BOOLEAN, description="start the node anew if it dies"
    ),
    DeclareLaunchArgument("rviz", default_value="false", choices=BOOLEAN, description="show the results in RViz"),
    DeclareLaunchArgument(
        "fixed_frame", default_value="camera", description="fixed frame of RViz: any frame that your robot has"
    ),
    DeclareLaunchArgument(
        "dds_profile",
        default_value="true",
        choices=BOOLEAN,
        description="use config/fastdds_large_images.xml, without which Fast DDS loses large images, unless another "
        "profile is set",
    ),
]


def generate_launch_description() -> LaunchDescription:
    """Return what `ros2 launch` asks for."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=_start)])


def _start(context: LaunchContext) -> list[Action]:
    """Return what to do, now that the arguments have values; everything that can be refused is checked before."""
    values = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    cameras = launching.camera_nodes(
        namespace=values["namespace"],
        cameras=values["cameras"],
        image=values["image"],
        camera_info=values["camera_info"],
    )
    parameters = launching.overriding_parameters(values)
    launching.check_parameter_file(values["params_file"])
    if _is_true(values, "rviz"):
        launching.check_rviz()
    parameters |= {name: _is_true(values, name) for name in ("autostart", "use_sim_time")}
    misspelt = launching.misspelt_arguments(context.launch_configurations, values)
    actions: list[Action] = [LogInfo(msg=text) for text in misspelt]
    actions += _dds_profile() if _is_true(values, "dds_profile") else []
    one_node = None
    if values["cameras"] and _is_true(values, "one_process"):
        parameters["cameras"] = launching.camera_names(values["cameras"])
        one_node = launching.CameraNode(values["namespace"].strip("/"), "image")
    actions += [_node(camera, values, parameters) for camera in ([one_node] if one_node else cameras)]
    if _is_true(values, "rviz"):
        actions.append(_rviz(cameras, one_node, values))
    return actions


def _node(camera: launching.CameraNode, values: dict[str, str], parameters: dict[str, Any]) -> Node:
    calibration = [("camera_info", camera.camera_info)] if camera.camera_info else []
    return Node(
        package="sfi_ros",
        executable="inpaint_node",
        name="inpaint",
        namespace=camera.namespace,
        output="screen",
        respawn=_is_true(values, "respawn"),
        respawn_delay=2.0,
        on_exit=_end_if_refused,
        additional_env={LAUNCH_PID: str(os.getpid())},
        parameters=[values["params_file"], {name: _typed(value) for name, value in parameters.items()}],
        remappings=[("image", camera.image), *calibration],
        arguments=["--ros-args", "--log-level", values["log_level"]],
    )


def _end_if_refused(event: ProcessExited, _: LaunchContext) -> None:
    """End everything where the node refuses to run, because of a parameter, say: it would do so again and again."""
    if event.returncode == REFUSED:
        raise RuntimeError(f"{event.process_name} refuses to run; its last message says why")


def _rviz(cameras: list[launching.CameraNode], one_node: launching.CameraNode | None, values: dict[str, str]) -> Node:
    template = (SHARE / "config" / "inpaint.rviz").read_text(encoding="utf-8")
    config = Path(launch.logging.launch_config.log_dir, "inpaint.rviz")  # beside the logs of this launch
    config.write_text(
        launching.rviz_config(template, cameras, values["image_transport"], values["fixed_frame"], one_node),
        encoding="utf-8",
    )
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(config)],
        parameters=[{"use_sim_time": _is_true(values, "use_sim_time")}],
    )


def _dds_profile() -> list[Action]:
    if chosen := chosen_profile():
        return [LogInfo(msg=f"{chosen} is set and left alone; large images need what sfi_ros's profile has")]
    return [SetEnvironmentVariable(name, value) for name, value in profile_environment().items()]


def _typed(value: str | bool | list[str]) -> ParameterValue | list[str]:
    """Return a value that launch does not guess the type of: weights may be called 1234."""
    return value if isinstance(value, list) else ParameterValue(value, value_type=type(value))


def _is_true(values: dict[str, str], name: str) -> bool:
    return values[name] == "true"
