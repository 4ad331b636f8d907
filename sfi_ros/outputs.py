"""What can be made of a scene, in one table: the node's topics, the bags' topics and the recorder's folders.

A new output is one entry here. Everything that publishes, writes or shows outputs reads `OUTPUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import cv2
import numpy as np

from sfi_ros.classes import BACKGROUND_CLASSES, FOREGROUND_CLASSES
from sfi_ros.errors import OptionError
from sfi_ros.inference.scene import Scene, Timing
from sfi_ros.network.metadata import Metadata
from sfi_ros.visualization import colorize, overlay

EVIDENCE_CLASSES: Final = (
    *(f"{name}, seen" for name in BACKGROUND_CLASSES),
    *(f"{name}, inferred" for name in BACKGROUND_CLASSES),
)
"""Meaning of the values of `background_evidence`; the index is the value."""

OBJECT_CLASSES: Final = ("no object", *FOREGROUND_CLASSES)
"""Meaning of the values of `foreground_classes`; the index is the value."""


@dataclass(frozen=True)
class SceneView:
    """A scene and what its pictures are made from.

    Attributes:
        scene: what the engine made of the image.
        image: (H, W, 3) uint8 RGB, as it came; it may have another size than the scene.
        overlay_alpha: share of the class colour in the overlay, 0 to 1.
    """

    scene: Scene
    image: np.ndarray
    overlay_alpha: float = 0.5

    @cached_property
    def resized_image(self) -> np.ndarray:
        """The image at the scene's size."""
        height, width = self.scene.foreground.shape
        if self.image.shape[:2] == (height, width):
            return self.image
        return cv2.resize(self.image, (width, height), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class Output:
    """An image that can be made of a scene.

    Attributes:
        name: of the topic below `~/` and in bags.
        encoding: of the image message: mono8 (H, W) or rgb8 (H, W, 3), uint8.
        make: makes the pixels.
        classes: what the values mean, by index, where they are classes; published as vision_msgs/LabelInfo.
        label_info: topic of that message below `~/`.
        needs_kinds: whether only weights that tell kinds of objects give it.
    """

    name: str
    encoding: Literal["mono8", "rgb8"]
    make: Callable[[SceneView], np.ndarray]
    classes: tuple[str, ...] = ()
    label_info: str = ""
    needs_kinds: bool = False

    @property
    def channels(self) -> int:
        """Bytes of a pixel."""
        return 1 if self.encoding == "mono8" else 3


def _foreground_mask(view: SceneView) -> np.ndarray:
    return view.scene.foreground * np.uint8(255)


def _foreground_classes(view: SceneView) -> np.ndarray:
    classes = view.scene.foreground_classes
    if classes is None:
        raise ValueError("a scene of weights that tell no kinds of objects has no foreground classes")
    return classes


def _evidence(view: SceneView) -> np.ndarray:
    return view.scene.background + view.scene.foreground * np.uint8(len(BACKGROUND_CLASSES))


def _overlay(view: SceneView) -> np.ndarray:
    return overlay(view.resized_image, view.scene.foreground, view.scene.background, view.overlay_alpha)


FOREGROUND_MASK: Final = Output("foreground_mask", "mono8", _foreground_mask)
"""255 = movable object."""
BACKGROUND: Final = Output(
    "background", "mono8", lambda view: view.scene.background, BACKGROUND_CLASSES, label_info="label_info"
)
"""Class index, also behind objects."""
BACKGROUND_CONFIDENCE: Final = Output("background_confidence", "mono8", lambda view: view.scene.confidence)
"""Probability of that class, 255 = 1."""
FOREGROUND_PROBABILITY: Final = Output(
    "foreground_probability", "mono8", lambda view: view.scene.foreground_probability
)
"""Probability of being a movable object, 255 = 1."""
BACKGROUND_EVIDENCE: Final = Output(
    "background_evidence", "mono8", _evidence, EVIDENCE_CLASSES, label_info="background_evidence_label_info"
)
"""Class index where the background is seen, 3 + class index where it is inferred behind an object."""
FOREGROUND_CLASSES_OUTPUT: Final = Output(
    "foreground_classes",
    "mono8",
    _foreground_classes,
    OBJECT_CLASSES,
    label_info="foreground_classes_label_info",
    needs_kinds=True,
)
"""Kind of object, 0 where there is none."""
BACKGROUND_COLOR: Final = Output("background_color", "rgb8", lambda view: colorize(view.scene.background))
OVERLAY: Final = Output("overlay", "rgb8", _overlay)

OUTPUTS: Final = (
    FOREGROUND_MASK,
    BACKGROUND,
    BACKGROUND_CONFIDENCE,
    FOREGROUND_PROBABILITY,
    BACKGROUND_EVIDENCE,
    FOREGROUND_CLASSES_OUTPUT,
    BACKGROUND_COLOR,
    OVERLAY,
)
"""All outputs."""

SCENE_OUTPUTS: Final = (FOREGROUND_MASK, BACKGROUND, BACKGROUND_CONFIDENCE, FOREGROUND_PROBABILITY)
"""Those that hold all of a scene; see `scene_of`."""


def scene_of(pixels: Mapping[str, np.ndarray], timing: Timing) -> Scene:
    """Return the scene that `SCENE_OUTPUTS` were made from: name -> (H, W) uint8."""
    return Scene(
        (pixels[FOREGROUND_MASK.name] > 0).astype(np.uint8),
        pixels[BACKGROUND.name],
        pixels[BACKGROUND_CONFIDENCE.name],
        pixels[FOREGROUND_PROBABILITY.name],
        timing,
    )


def outputs_of(weights: Metadata) -> tuple[Output, ...]:
    """Return the outputs that weights give."""
    return tuple(output for output in OUTPUTS if weights.tells_kinds or not output.needs_kinds)


def require_given(outputs: Iterable[Output], weights: Metadata, weights_name: str) -> None:
    """Refuse outputs that weights do not give.

    Raises:
        OptionError: one of them is such.
    """
    for output in outputs:
        if output not in outputs_of(weights):
            raise OptionError(
                f"output {output.name}: {weights_name} tells no kinds of objects: leave it out, or take weights that "
                "were trained with network.foreground_classes=3"
            )


def output_named(name: str) -> Output:
    """Return the output of that name.

    Raises:
        ValueError: there is none.
    """
    for output in OUTPUTS:
        if output.name == name:
            return output
    raise ValueError(f"unknown output {name!r}; outputs are {', '.join(output.name for output in OUTPUTS)}")
