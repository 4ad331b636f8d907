"""Cameras, poses and the ground: numpy only, without ROS and PyTorch."""
