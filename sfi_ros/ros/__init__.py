"""The node, the player and the demo: the only package that imports rclpy."""
