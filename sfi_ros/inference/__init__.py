"""Images in, scenes out: the trained network as an engine, without ROS."""

from sfi_ros.inference.engine import InferenceEngine
from sfi_ros.inference.scene import Scene, Timing
from sfi_ros.network.shipped_weights import DEFAULT_WEIGHTS, DefaultWeightsMissing

__all__ = ["DEFAULT_WEIGHTS", "DefaultWeightsMissing", "InferenceEngine", "Scene", "Timing"]
