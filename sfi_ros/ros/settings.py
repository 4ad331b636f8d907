"""The node's parameters: one table from which they are declared, validated and documented.

Launch files read it, too, in a Python that may have neither PyTorch nor OpenCV.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from sfi_ros.frames.limits import MAX_SIGNIFICANT_BITS
from sfi_ros.options import BACKENDS, DEVICE_PATTERN, OUTPUT_SIZES, PRECISIONS


class Change(Enum):
    """When a parameter may be changed."""

    NEVER = "at start only"
    UNCONFIGURED = "while unconfigured"
    ALWAYS = "at any time"


@dataclass(frozen=True)
class Setting:
    """One parameter.

    Attributes:
        name, default: of the parameter; the default gives the type.
        description: for people, with the unit.
        change: when it may be changed.
        range: smallest and largest value of a number.
        choices: accepted values of a string.
        pattern: what a string, or each of several, must match as a whole; `description` says it in words.
        per_camera: whether each of several cameras may have its own value, in the parameter `<camera>.<name>`.
    """

    name: str
    default: Any
    description: str
    change: Change = Change.ALWAYS
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    per_camera: bool = False

    def problem(self, value: Any) -> str | None:
        """Why `value` is not acceptable, or None."""
        if self.choices and value not in self.choices:
            return f"{self.name} is {value!r}; accepted are {', '.join(map(repr, self.choices))}"
        texts = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if self.pattern and not all(re.fullmatch(self.pattern, text) for text in texts):
            return f"{self.name} is {value!r}; it is {self.description}"
        if self.range is not None:
            low, high = self.range
            if not math.isfinite(value) or not low <= value <= high:
                return f"{self.name} is {value}; accepted is {low:g} to {high:g}"
        return None


_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*"

SETTINGS: Final = (
    Setting(
        "weights",
        "",
        "checkpoint (.safetensors) or exported network (.onnx) to run, or the name of one that ships (see `sfi "
        "weights`); empty for the default one",
        Change.UNCONFIGURED,
    ),
    Setting(
        "device",
        "auto",
        "where the network runs: auto, cpu, cuda or cuda:N",
        Change.UNCONFIGURED,
        pattern=DEVICE_PATTERN,
    ),
    Setting(
        "precision",
        "auto",
        "numbers the network computes with",
        Change.UNCONFIGURED,
        choices=PRECISIONS,
    ),
    Setting(
        "backend",
        "auto",
        "what computes the network; compile and a GPU's first image take their time",
        Change.UNCONFIGURED,
        choices=BACKENDS,
    ),
    Setting(
        "input_height",
        0,
        "height in pixels at which the network runs; 0 for the height it was trained for",
        Change.UNCONFIGURED,
        range=(0, 4096),
    ),
    Setting(
        "cpu_threads",
        4,
        "most CPU threads to compute with, of the cores that there are; 0 for all of them",
        Change.UNCONFIGURED,
        range=(0, 256),
    ),
    Setting(
        "cameras",
        [""],
        "names of several cameras of one process, which share its network: letters, digits and _ between slashes, no "
        'digit first; [""] for one camera without a name',
        Change.NEVER,
        pattern=f"({_NAME})?",
    ),
    Setting(
        "batch_window",
        0.01,
        "seconds that an image of one camera waits for those of others that are due, to share a pass of the network",
        range=(0.0, 1.0),
    ),
    Setting(
        "image_transport",
        "raw",
        "raw subscribes to `image` (sensor_msgs/Image), compressed to `image/compressed` (sensor_msgs/CompressedImage)",
        Change.UNCONFIGURED,
        choices=("raw", "compressed"),
        per_camera=True,
    ),
    Setting(
        "output_size",
        "input",
        "size of the published images: that of the camera's image or that of the network",
        choices=OUTPUT_SIZES,
        per_camera=True,
    ),
    Setting(
        "foreground_threshold", 0.5, "probability above which a pixel is foreground", range=(0.0, 1.0), per_camera=True
    ),
    Setting(
        "temporal",
        False,
        "whether what a camera saw before steadies its results (on a CPU 3 to 5 ms a frame)",
        per_camera=True,
    ),
    Setting("overlay_alpha", 0.5, "share of the class colour in ~/overlay", range=(0.0, 1.0), per_camera=True),
    Setting("max_rate", 0.0, "most frames per second to infer; 0 for no limit", range=(0.0, 1000.0), per_camera=True),
    Setting(
        "lazy", True, "subscribe to the camera and infer only while somebody subscribes to a result", per_camera=True
    ),
    Setting(
        "significant_bits",
        MAX_SIGNIFICANT_BITS,
        "bits that the values of 16-bit images really have, counted from the low end: 12 for a 12-bit camera that does "
        "not shift its values up; the upper eight of them are used",
        range=(8, MAX_SIGNIFICANT_BITS),
        per_camera=True,
    ),
    Setting("max_megapixels", 24.0, "larger images are rejected", range=(0.01, 268.0), per_camera=True),
    Setting(
        "pose.height",
        0.0,
        "metres of the camera above the ground; 0 to take its whole pose from TF, at the stamp of the image",
        Change.UNCONFIGURED,
        range=(0.0, 100.0),
        per_camera=True,
    ),
    Setting("pose.pitch", 0.0, "radians, positive when it looks down", range=(-1.6, 1.6), per_camera=True),
    Setting("pose.roll", 0.0, "radians, positive when its right side is lower", range=(-3.2, 3.2), per_camera=True),
    Setting("pose.yaw", 0.0, "radians, positive when it looks left", range=(-3.2, 3.2), per_camera=True),
    Setting("pose.x", 0.0, "metres forward of the origin of layout.frame", range=(-100.0, 100.0), per_camera=True),
    Setting("pose.y", 0.0, "metres left of the origin of layout.frame", range=(-100.0, 100.0), per_camera=True),
    Setting(
        "pose.imu",
        "",
        "topic of a sensor_msgs/Imu in the vehicle's axes whose pitch is added to the camera's; empty for none",
        Change.UNCONFIGURED,
        pattern=f"(/?{_NAME})?",
        per_camera=True,
    ),
    Setting(
        "pose.imu_mean_over",
        10.0,
        "seconds over which that pitch is averaged, since a slope tilts the road, too: what differs from the average "
        "is added; 0 to add all of it",
        range=(0.0, 3600.0),
        per_camera=True,
    ),
    Setting(
        "pose.tolerance",
        0.1,
        "seconds that the newest transform or the nearest message of the IMU may be away from the image",
        range=(0.0, 60.0),
        per_camera=True,
    ),
    Setting(
        "layout.frame",
        "base_footprint",
        "frame of the layout: the vehicle's, on the ground, x forward, y left",
        Change.UNCONFIGURED,
        pattern=r"[^/\s][^\s]*",
    ),
    Setting("layout.x_min", 0.0, "metres, where the layout begins", Change.UNCONFIGURED, range=(-500.0, 500.0)),
    Setting("layout.x_max", 40.0, "metres, where it ends ahead", Change.UNCONFIGURED, range=(-500.0, 500.0)),
    Setting("layout.y_min", -15.0, "metres, its right side", Change.UNCONFIGURED, range=(-500.0, 500.0)),
    Setting("layout.y_max", 15.0, "metres, its left side", Change.UNCONFIGURED, range=(-500.0, 500.0)),
    Setting("layout.resolution", 0.1, "metres, side of a cell", Change.UNCONFIGURED, range=(0.01, 10.0)),
    Setting(
        "layout.kerb_height",
        0.1,
        "metres that everything but the road lies higher than the road; 0 for a plane",
        Change.UNCONFIGURED,
        range=(0.0, 1.0),
    ),
    Setting(
        "layout.rectified",
        False,
        "the images are rectified (image_rect), so that P of camera_info holds, without distortion",
        Change.UNCONFIGURED,
        per_camera=True,
    ),
    Setting(
        "layout.own_vehicle",
        "",
        "where the camera sees its own vehicle: path of an image that is not black there, or corners in pixels as "
        "'0,719 640,650 1279,719'",
        Change.UNCONFIGURED,
        per_camera=True,
    ),
    Setting("layout.cost_road", 0, "of road in ~/layout: 0 free, 100 occupied, -1 unknown", range=(-1, 100)),
    Setting("layout.cost_sidewalk", 50, "of sidewalk in ~/layout, see layout.cost_road", range=(-1, 100)),
    Setting("layout.cost_other", 100, "of all other ground in ~/layout, see layout.cost_road", range=(-1, 100)),
    Setting(
        "layout.cost_inferred",
        20,
        "added to that where the class is inferred behind an object; -1 leaves these cells unknown",
        range=(-1, 100),
    ),
    Setting(
        "layout.max_age",
        0.3,
        "seconds that the layout of one camera may be older than the newest one to be fused with it",
        range=(0.0, 60.0),
    ),
    Setting("autostart", True, "configure and activate without a lifecycle manager", Change.NEVER),
    Setting(
        "autostart_retry",
        5.0,
        "seconds after which a failed autostart is tried again; 0 for never",
        Change.NEVER,
        range=(0.0, 3600.0),
    ),
    Setting(
        "diagnostics.stale_warn", 1.0, "seconds without a frame until a warning", range=(0.0, 3600.0), per_camera=True
    ),
    Setting(
        "diagnostics.stale_error", 5.0, "seconds without a frame until an error", range=(0.0, 3600.0), per_camera=True
    ),
    Setting(
        "diagnostics.latency_warn",
        0.3,
        "95th percentile of the latency in seconds: warning",
        range=(0.0, 3600.0),
        per_camera=True,
    ),
    Setting(
        "diagnostics.latency_error",
        2.0,
        "95th percentile of the latency in seconds: error",
        range=(0.0, 3600.0),
        per_camera=True,
    ),
    Setting(
        "diagnostics.stall_error",
        10.0,
        "seconds that one frame may take until the worker counts as stalled",
        range=(0.1, 3600.0),
    ),
)

CAMERA_SETTINGS: Final = (
    Setting(
        "image",
        "",
        "topic of the camera's images, in the node's namespace unless it begins with /; empty for <camera>/image_raw",
        Change.UNCONFIGURED,
        pattern=f"(/?{_NAME})?",
    ),
    Setting(
        "camera_info",
        "",
        "topic of its calibration; empty for the one beside the images",
        Change.UNCONFIGURED,
        pattern=f"(/?{_NAME})?",
    ),
)
"""Of each of several cameras, in parameters `<camera>.<name>`, beside those of `SETTINGS` that are `per_camera`."""
