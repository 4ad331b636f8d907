"""Steady results: what a camera's earlier frames said of the same places, carried along the optical flow.

A network that sees one image at a time changes its mind at borders and in doubtful places from frame to frame. Here
each place keeps a share of what it was before, where the flow from the frame before explains what is seen now, and
nothing where it does not: at the image's border, where something was uncovered, after a cut.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

KEPT_BACKGROUND: Final = 0.8
KEPT_FOREGROUND: Final = 0.7  # objects move by themselves: more would smear them (benchmarks/steadiness.py)
"""Share of the probabilities before in those after, where the flow explains the image."""

_KEPT: Final = (KEPT_FOREGROUND, KEPT_BACKGROUND, KEPT_FOREGROUND)
"""Of objects, background and kinds of objects."""

UNEXPLAINED: Final = 30
"""Difference of grey values from which on the flow explains nothing; the kept share falls to 0 until there."""

LONGEST_GAP: Final = 0.5
"""Seconds between two frames; over more time the flow of a moving camera cannot be found."""

_EXPLAINED: Final = np.clip(1 - np.arange(256, dtype=np.float32) / UNEXPLAINED, 0, 1)  # by the difference of greys
_PATCH: Final = (5, 5)  # pixels over which differences are averaged: single ones are noise


class TemporalFilter:
    """The memory of one camera, for one image after the other.

    Example:
        >>> memory = TemporalFilter()
        >>> for stamp, image in camera:
        ...     memory.follow(stamp)
        ...     scene = engine(image, memory)
    """

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._before: tuple[np.ndarray, list[np.ndarray]] | None = None
        self._stamp: float | None = None

    def reset(self) -> None:
        """Forget what was: the next image is the first."""
        self._before = self._stamp = None

    def follow(self, stamp: float) -> None:
        """Say when the next image was taken, in seconds; forget what was if that is not shortly after the last one."""
        if self._stamp is not None and not 0 < stamp - self._stamp <= LONGEST_GAP:
            self.reset()
        self._stamp = stamp

    def __call__(self, grey: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Steady the probabilities of the next image.

        Args:
            grey: (h, w) uint8, the image at the network's size.
            probabilities: (4 or 7, h, w) uint8, 255 = 1: of foreground, road, sidewalk and other, and maybe of kinds of
                objects.

        Returns:
            The same, of which a share is kept from the frames before. An image of another size and
            planes of another number begin anew.
        """
        threes = (cv2.merge(list(probabilities[first : first + 3])) for first in range(1, len(probabilities), 3))
        parts = [probabilities[0], *threes]  # objects, background, maybe kinds of objects
        before, parts_before = self._before or (None, [])
        if before is not None and before.shape == grey.shape and len(parts_before) == len(parts):
            places = self._places_before(grey, before)
            inside = cv2.inRange(places, (0, 0), (grey.shape[1] - 1, grey.shape[0] - 1))
            at = cv2.convertMaps(places, np.empty(0), cv2.CV_16SC2)  # which remap reads much faster
            doubt = cv2.blur(cv2.absdiff(_at(at, before), grey), _PATCH)
            doubt = np.maximum(doubt, 255 - inside)
            parts = [
                _blended(part, _at(at, part_before), doubt, kept)
                for part, part_before, kept in zip(parts, parts_before, _KEPT, strict=False)
            ]
        self._before = grey, parts
        return np.stack([plane for part in parts for plane in cv2.split(part)])

    def _places_before(self, grey: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Return where each pixel was in the image before: (h, w, 2) float32, x and y."""
        flow: np.ndarray = np.asarray(self._flow.calc(grey, before, np.empty(0)), np.float32)
        height, width = grey.shape
        flow[..., 0] += np.arange(width, dtype=np.float32)
        flow[..., 1] += np.arange(height, dtype=np.float32)[:, None]
        return flow


def _at(places: tuple[np.ndarray, np.ndarray], image: np.ndarray) -> np.ndarray:
    """Return what an image has at some places, which `cv2.convertMaps` made."""
    return cv2.remap(image, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _blended(now: np.ndarray, before: np.ndarray, doubt: np.ndarray, kept: float) -> np.ndarray:
    """Return `now` with a share of `before`, which falls from `kept` to 0 as doubt, (h, w) uint8, grows."""
    share = cv2.LUT(doubt, kept * _EXPLAINED)
    return cv2.blendLinear(before, now, share, 1 - share)
