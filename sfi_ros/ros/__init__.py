"""The only rooms that import rclpy."""
