"""The executable of the node in `player`: plays a folder, a video, a rosbag2 or the synthetic street as a camera.

    ros2 run sfi_ros camera_player --ros-args -p source:=synthetic
    python -m sfi_ros.ros.camera_player --ros-args -p source:=drive.mp4 -p loop:=true -r image:=/camera/image_raw

What takes time to import is imported in `main`, when Ctrl-C already ends the process as it should.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from sfi_ros.ros.stopping import StopRequest, leave, missing_modules_named


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Play until the source or the limit is reached."""
    stop = StopRequest()
    with missing_modules_named("camera_player"):
        from sfi_ros.ros.player import CameraPlayer
        from sfi_ros.ros.spinning import run
    status = run(
        "camera_player",
        CameraPlayer,
        stop,
        arguments,
        until=lambda player: player.finished,
        at_end=CameraPlayer.exit_status,
    )
    leave(status)


if __name__ == "__main__":
    main()
