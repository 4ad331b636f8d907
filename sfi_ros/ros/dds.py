"""Settings of Fast DDS that large images need; an environment variable must name them before a process starts ROS."""

from __future__ import annotations

import os
from pathlib import Path

# The second is the name that Fast DDS 3 (Kilted) reads, the first what Humble's reads.
VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_NAME = Path("config", "fastdds_large_images.xml")


def profile_environment() -> dict[str, str]:
    """Variables that switch the profile for large images on; empty if a profile is set or ours is not installed."""
    if any(os.environ.get(variable) for variable in VARIABLES):
        return {}
    path = _find_profile()
    return {} if path is None else dict.fromkeys(VARIABLES, str(path))


def _find_profile() -> Path | None:
    checkout = Path(__file__).resolve().parents[2] / _NAME
    if checkout.is_file():
        return checkout
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
    except ImportError:
        return None
    try:
        installed = Path(get_package_share_directory("sfi_ros")) / _NAME
    except PackageNotFoundError:
        return None
    return installed if installed.is_file() else None
