"""Semantic foreground inpainting for ROS 2: what moves, and what lies behind it."""

__version__ = "0.1.0"
