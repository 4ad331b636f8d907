"""Settings of Fast DDS that large images need; an environment variable must name them before a process starts ROS."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# The second is the name that Fast DDS 3 (Kilted) reads, the first what Humble's reads.
VARIABLES: Final = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_TRANSPORTS: Final = "FASTDDS_BUILTIN_TRANSPORTS"  # LARGE_DATA, say; a profile would take its place
PROFILE: Final = Path(__file__).resolve().with_name("fastdds_large_images.xml")


def profile_environment() -> dict[str, str]:
    """Variables that switch the profile for large images on; empty if the user has chosen what to use."""
    return {} if chosen_profile() else dict.fromkeys(VARIABLES, str(PROFILE))


def chosen_profile() -> str:
    """Return what the user has chosen for Fast DDS instead of this package's profile, as NAME=value; "" for nothing."""
    for variable in (*VARIABLES, _TRANSPORTS):
        value = os.environ.get(variable, "")
        if value and not _is_ours(value):
            return f"{variable}={value}"
    return ""


def lost_images_remedy(rmw: str) -> str:
    """Say what to do about images that are lost between a camera and this process.

    Args:
        rmw: the middleware's name, as `rclpy.get_rmw_implementation_identifier` gives it.
    """
    if not rmw.startswith("rmw_fastrtps"):
        return f"see 'Large images' in docs/node.md for {rmw}"
    variable = VARIABLES[0 if os.environ.get("ROS_DISTRO", "jazzy") in ("humble", "iron", "jazzy") else 1]
    chosen = os.environ.get(variable, "")
    if chosen and not _is_ours(chosen):
        return f"give the camera's process a shared-memory segment larger than an image, as {PROFILE} does ({variable})"
    where = "the camera's process" if chosen else "the processes of the camera and of this node"
    return f"export {variable}={PROFILE} for {where} before it starts"


def _is_ours(path: str) -> bool:
    return Path(path).name == PROFILE.name  # an installed copy is as good
