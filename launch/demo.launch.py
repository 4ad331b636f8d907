"""Plays a source as a camera, runs the node on it and shows the results.

ros2 launch sfi_ros demo.launch.py
ros2 launch sfi_ros demo.launch.py source:=drive.mp4 rviz:=false
"""

from __future__ import annotations

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, LogInfo, OpaqueFunction
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from sfi_ros.ros import launching
from sfi_ros.ros.stopping import LAUNCH_PID

SHARE = Path(get_package_share_directory("sfi_ros"))
IMAGE = "/camera/image_raw"

ARGUMENTS = [
    DeclareLaunchArgument(
        "source", default_value="synthetic", description="image folder, video, rosbag2 folder, or 'synthetic'"
    ),
    DeclareLaunchArgument("rate", default_value="0.0", description="frames per second; 0.0 for the source's own"),
    DeclareLaunchArgument(
        "loop", default_value="true", choices=("true", "false"), description="start the source again at its end"
    ),
    DeclareLaunchArgument("image_transport", default_value="raw", description="raw or compressed"),
    DeclareLaunchArgument("weights", default_value="", description="file, or name of one that ships; empty: default"),
    DeclareLaunchArgument("device", default_value="auto", description="auto, cpu, cuda or cuda:N"),
    DeclareLaunchArgument(
        "rviz", default_value="true", choices=("true", "false"), description="show the results in RViz"
    ),
]


def generate_launch_description() -> LaunchDescription:
    """Return what `ros2 launch` asks for."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=_start)])


def _start(context: LaunchContext) -> list[Action]:
    """Return what to do, now that the arguments have values; what can be refused is checked before."""
    values = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    rate = launching.number("rate", values["rate"])
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / "launch" / "inpaint.launch.py")),
        launch_arguments={
            "image": IMAGE,
            **{name: values[name] for name in ("image_transport", "weights", "device", "rviz")},
        }.items(),
    )
    player = Node(
        package="sfi_ros",
        executable="camera_player",
        output="screen",
        on_exit=_end_if_nothing_plays,
        additional_env={LAUNCH_PID: str(os.getpid())},
        parameters=[
            {
                "source": ParameterValue(values["source"], value_type=str),  # which launch would make 1234 of "1234"
                "rate": rate,
                "loop": values["loop"] == "true",
                "image_transport": ParameterValue(values["image_transport"], value_type=str),
            }
        ],
        remappings=[("image", IMAGE)],
    )
    # The node's launch file checks its arguments before anything is started, and sets the DDS profile for what is
    # started after it, the player among it.
    misspelt = launching.misspelt_arguments(context.launch_configurations, ("source", "rate", "loop"))
    return [*(LogInfo(msg=text) for text in misspelt), node, player]


def _end_if_nothing_plays(event: ProcessExited, _: LaunchContext) -> None:
    if event.returncode:
        raise RuntimeError(f"{event.process_name} cannot play the source; its last message says why")
