"""A procedural street camera that knows what is behind every object: pictures, label ids, foreground mask and
true background classes, deterministic by seed, from numpy and OpenCV alone.

Reading order: `layout` (what the street is), `light` (how it is lit and exposed), `camera` (where the camera is),
`canvas` (the two buffers everything is painted into), `backdrop`, `ground`, `pictures` and `scenery`, `vehicles`,
`people` and `shadows` (what is painted), `traffic` (who is where and when), `street` (one drive).
"""

from sfi_ros.synthetic.street import GroundTruth, SyntheticFrame, SyntheticStreet

__all__ = ["GroundTruth", "SyntheticFrame", "SyntheticStreet"]
