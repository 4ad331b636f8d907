"""The executable of the lifecycle node in `node`.

    ros2 run sfi_ros inpaint_node --ros-args -r image:=/camera/image_raw
    python -m sfi_ros.ros.inpaint_node --ros-args -r image:=/camera/image_raw

What takes time to import is imported in `main`, when Ctrl-C already ends the process as it should.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from sfi_ros.ros.stopping import StopRequest, leave, missing_modules_named


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the node until it is asked to end."""
    stop = StopRequest()
    with missing_modules_named("inpaint_node"):
        from sfi_ros.ros.node import InpaintNode
        from sfi_ros.ros.spinning import run
    status = run("inpaint_node", InpaintNode, stop, arguments, at_end=InpaintNode.halt)
    leave(status)


if __name__ == "__main__":
    main()
