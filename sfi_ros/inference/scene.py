"""The result of one image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Timing:
    """Seconds that one call of the engine took, by stage; for a list of images, of the whole list.

    Attributes:
        preprocess: upload, resizing, normalisation.
        network: the network's pass.
        postprocess: classes, resizing, download.
    """

    preprocess: float
    network: float
    postprocess: float

    @property
    def total(self) -> float:
        """Seconds from the image to the scene."""
        return self.preprocess + self.network + self.postprocess


@dataclass(frozen=True)
class Scene:
    """Where the movable objects are in one image, and what lies behind them.

    Attributes:
        foreground: (H, W) uint8, 1 = movable object.
        background: (H, W) uint8 index into `sfi_ros.classes.BACKGROUND_CLASSES`, also behind objects.
        confidence: (H, W) uint8, probability of that class, 255 = 1.
        foreground_probability: (H, W) uint8, probability of being a movable object, 255 = 1.
        timing: what the call took.
        kinds: (h, w) uint8, at the network's size or at that of the scene: what an object at this place would be, index
            into `sfi_ros.classes.FOREGROUND_CLASSES`; None where the weights tell no kinds of objects.
    """

    foreground: np.ndarray
    background: np.ndarray
    confidence: np.ndarray
    foreground_probability: np.ndarray
    timing: Timing
    kinds: np.ndarray | None = None

    @property
    def foreground_classes(self) -> np.ndarray | None:
        """(H, W) uint8: 1 + index of the kind of object, 0 where there is none; None if the weights tell no kinds."""
        if self.kinds is None:
            return None
        size = self.foreground.shape[::-1]
        kinds = cv2.resize(self.kinds, size, interpolation=cv2.INTER_NEAREST_EXACT)  # a look where it has that size
        return (kinds + np.uint8(1)) * self.foreground

    @property
    def foreground_share(self) -> float:
        """Share of the pixels that are foreground, 0 to 1."""
        return float(self.foreground.mean())
