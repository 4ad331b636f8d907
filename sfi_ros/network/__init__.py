"""The networks: pure PyTorch, no ROS, no OpenCV, no files but checkpoints."""
