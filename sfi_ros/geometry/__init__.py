"""Cameras, poses and the ground: numpy and OpenCV, without ROS and PyTorch.

Reading order: `calibration` (what a camera is), `camera_model` (pixels and directions), `pose` (where it is over the
ground), `ground` (pixels and points of the ground, the grid), `ground_table` (all of it worked out once for a camera),
`layout` (the ground of one frame), `occupancy` (what it costs to drive there).
"""
