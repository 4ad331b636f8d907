"""Semantic foreground inpainting for ROS 2: what moves, and what lies behind it."""

import os

# OpenMP threads that wait for each other burn their core while something else could have it; on cores that other
# processes use, too, that multiplies the time of a network. Five thousand rounds are enough to bridge the gaps between
# layers. Read when PyTorch is imported, so it is set before.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

__version__ = "0.1.0"
