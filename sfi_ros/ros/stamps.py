"""Stamps as numbers. `rclpy.time.Time` refuses those before 1970, which a camera with a broken clock sends."""

from __future__ import annotations

from builtin_interfaces.msg import Time


def nanoseconds(stamp: Time) -> int:
    """Nanoseconds since 1970; negative before."""
    return stamp.sec * 10**9 + stamp.nanosec
