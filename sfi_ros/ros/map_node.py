"""The executable of the node in `ground_mapper`: the ground over time, from the layouts of `inpaint_node` and odometry.

    ros2 run sfi_ros map_node --ros-args -r odom:=/odometry/filtered
    python -m sfi_ros.ros.map_node --ros-args -r layout_cells:=/inpaint/layout_cells

What takes time to import is imported in `main`, when Ctrl-C already ends the process as it should.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from sfi_ros.ros.stopping import StopRequest, leave, missing_modules_named


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the node until it is asked to end."""
    stop = StopRequest()
    with missing_modules_named("map_node"):
        from sfi_ros.ros.ground_mapper import GroundMapper
        from sfi_ros.ros.spinning import run
    leave(run("map_node", GroundMapper, stop, arguments))


if __name__ == "__main__":
    main()
