"""Starts the node for one camera or for several.

ros2 launch sfi_ros inpaint.launch.py image:=/camera/image_raw
ros2 launch sfi_ros inpaint.launch.py cameras:=front,rear          # /front/image_raw, /rear/image_raw
ros2 launch sfi_ros inpaint.launch.py --show-args
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

SHARE = Path(get_package_share_directory("sfi_ros"))
BOOLEAN = ("true", "false")
# Launch argument -> type of the parameter of the same name; "" leaves it to the parameter file.
OVERRIDES = {
    "weights": str,
    "device": str,
    "precision": str,
    "backend": str,
    "image_transport": str,
    "output_size": str,
    "lazy": bool,
}

ARGUMENTS = [
    DeclareLaunchArgument("image", default_value="/camera/image_raw", description="image topic of the camera"),
    DeclareLaunchArgument(
        "camera_info", default_value="", description="its camera_info topic; empty for camera_info beside the image"
    ),
    DeclareLaunchArgument(
        "cameras",
        default_value="",
        description="names of several cameras, with commas: each gets a node in its namespace that listens to "
        "<namespace>/<camera>/image_raw; replaces `image`",
    ),
    DeclareLaunchArgument("namespace", default_value="", description="namespace of the node"),
    DeclareLaunchArgument(
        "params_file", default_value=str(SHARE / "config" / "inpaint.yaml"), description="parameter file"
    ),
    DeclareLaunchArgument("weights", default_value="", description="checkpoint; empty for that of params_file"),
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
    DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
    DeclareLaunchArgument(
        "respawn", default_value="true", choices=BOOLEAN, description="start the node anew if it dies"
    ),
    DeclareLaunchArgument("rviz", default_value="false", choices=BOOLEAN, description="show the results in RViz"),
    DeclareLaunchArgument(
        "dds_profile",
        default_value="true",
        choices=BOOLEAN,
        description="use config/fastdds_large_images.xml, without which Fast DDS loses large images",
    ),
]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    profile = str(SHARE / "config" / "fastdds_large_images.xml")
    wanted = IfCondition(LaunchConfiguration("dds_profile"))
    return LaunchDescription(
        [
            *ARGUMENTS,
            SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile, condition=wanted),
            SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", profile, condition=wanted),
            OpaqueFunction(function=_nodes),
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", str(SHARE / "config" / "inpaint.rviz")],
                parameters=[{"use_sim_time": _boolean("use_sim_time")}],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )


def _nodes(context: LaunchContext) -> list[Node]:
    """One node, or one per camera, now that the arguments have values."""
    namespace = _value(context, "namespace").strip("/")
    cameras = [camera.strip(" /") for camera in _value(context, "cameras").split(",") if camera.strip(" /")]
    if not cameras:
        return [_node(context, namespace, _value(context, "image"), _value(context, "camera_info"))]
    nodes = []
    for camera in cameras:
        inside = f"{namespace}/{camera}" if namespace else camera
        nodes.append(_node(context, inside, f"/{inside}/image_raw", ""))
    return nodes


def _node(context: LaunchContext, namespace: str, image: str, camera_info: str) -> Node:
    parameters = {"autostart": _boolean("autostart"), "use_sim_time": _boolean("use_sim_time")}
    for name, kind in OVERRIDES.items():
        if _value(context, name):
            parameters[name] = ParameterValue(LaunchConfiguration(name), value_type=kind)
    return Node(
        package="sfi_ros",
        executable="inpaint_node",
        name="inpaint",
        namespace=namespace,
        output="screen",
        respawn=LaunchConfiguration("respawn"),
        respawn_delay=2.0,
        parameters=[LaunchConfiguration("params_file"), parameters],
        remappings=[("image", image), ("camera_info", camera_info or f"{image.rsplit('/', 1)[0]}/camera_info")],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
    )


def _value(context: LaunchContext, name: str) -> str:
    return LaunchConfiguration(name).perform(context)


def _boolean(name: str) -> ParameterValue:
    return ParameterValue(LaunchConfiguration(name), value_type=bool)
