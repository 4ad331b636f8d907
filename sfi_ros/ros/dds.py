"""Settings of Fast DDS that large images need; an environment variable must name them before a process starts ROS."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# The second is the name that Fast DDS 3 (Kilted) reads, the first what Humble's reads.
VARIABLES: Final = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
PROFILE: Final = Path(__file__).resolve().with_name("fastdds_large_images.xml")


def profile_environment() -> dict[str, str]:
    """Variables that switch the profile for large images on; empty if the user has chosen a profile."""
    if any(os.environ.get(variable) for variable in VARIABLES):
        return {}
    return dict.fromkeys(VARIABLES, str(PROFILE))
