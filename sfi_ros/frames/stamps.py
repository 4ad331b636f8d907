"""Stamps as numbers. `rclpy.time.Time` refuses those before 1970, which a camera with a broken clock sends."""

from __future__ import annotations

from typing import Any


def nanoseconds(stamp: Any) -> int:
    """Nanoseconds since 1970 of a builtin_interfaces/Time; negative before. rclpy's and rosbags' messages both fit."""
    return int(stamp.sec * 10**9 + stamp.nanosec)
