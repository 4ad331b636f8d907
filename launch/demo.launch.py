"""Plays a source as a camera, runs the node on it and shows the results.

ros2 launch sfi_ros demo.launch.py
ros2 launch sfi_ros demo.launch.py source:=drive.mp4 rviz:=true
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

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
    DeclareLaunchArgument("weights", default_value="", description="checkpoint; empty for the one that ships"),
    DeclareLaunchArgument("device", default_value="auto", description="auto, cpu, cuda or cuda:N"),
    DeclareLaunchArgument(
        "rviz", default_value="true", choices=("true", "false"), description="show the results in RViz"
    ),
]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / "launch" / "inpaint.launch.py")),
        launch_arguments={
            "image": IMAGE,
            **{name: LaunchConfiguration(name) for name in ("image_transport", "weights", "device", "rviz")},
        }.items(),
    )
    player = Node(
        package="sfi_ros",
        executable="camera_player",
        output="screen",
        parameters=[
            {
                "source": ParameterValue(LaunchConfiguration("source"), value_type=str),
                "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                "loop": ParameterValue(LaunchConfiguration("loop"), value_type=bool),
                "image_transport": ParameterValue(LaunchConfiguration("image_transport"), value_type=str),
            }
        ],
        remappings=[("image", IMAGE), ("camera_info", "/camera/camera_info")],
    )
    # The node's launch file sets the DDS profile for what is started after it, the player among it.
    return LaunchDescription([*ARGUMENTS, node, player])
