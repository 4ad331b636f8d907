"""What a drive shows behind the objects of each of its frames: the class that other frames saw along the same ray.

A pixel's ray meets the ground somewhere. Frames that had no object in the way saw a class there. If that was road or
sidewalk, it is what the pixel would show; and if it was a wall's *other*, from wherever the wall was seen, the ray ends
at the wall, too. Where views disagree, as at the corner of a house, nothing is said. Above the horizon is no ground:
that is *other* without any frame.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from sfi_ros.classes import BACKGROUND_CLASSES, IGNORE
from sfi_ros.geometry.ground import GroundCamera, GroundGrid
from sfi_ros.geometry.ground_table import KERB_HEIGHT
from sfi_ros.geometry.motion import PlanarPose
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.geometry.tiles import Tiles

_ROAD: Final = BACKGROUND_CLASSES.index("road")
_OTHER: Final = BACKGROUND_CLASSES.index("other")
_UNDECIDED: Final = 1 / len(BACKGROUND_CLASSES)  # probability of a class up to which a pixel is no vote
_VOTES: Final = 1.5  # fewer, each of 0 to 1, decide nothing
_MAJORITY: Final = 0.8  # share of the votes for a class that decides
_BORDER: Final = 0.012  # of the image's height: so near to an object no pixel votes
_ABOVE: Final = 0.03  # radians over the horizon from which on there is no ground, also where the street climbs


class Sightings:
    """Votes for the class of each cell of the ground, cast by the frames of a drive that see it.

    Args:
        grid: which cells of the vehicle's frame each frame votes for and looks up again; its resolution is that of
            the votes.
        kerb_height: metres that everything but the road lies higher than the road.
    """

    def __init__(self, grid: GroundGrid, kerb_height: float = KERB_HEIGHT):
        self.grid, self._kerb_height = grid, kerb_height
        self._votes = Tiles(len(BACKGROUND_CLASSES), np.float32)

    def add(
        self,
        camera: GroundCamera,
        pose: PlanarPose,
        foreground: np.ndarray,
        background: np.ndarray,
        confidence: np.ndarray,
    ) -> None:
        """Let a frame vote.

        Args:
            camera: for images of the masks' size.
            pose: of the vehicle.
            foreground: (H, W) uint8, not zero on objects; pixels there, and close by, do not vote.
            background: (H, W) uint8 classes.
            confidence: (H, W) uint8, probability of that class, 255 = 1.
        """
        reach = max(1, round(_BORDER * foreground.shape[0]))
        near = cv2.dilate((foreground != 0).astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
        worth = np.clip((confidence / np.float32(255) - _UNDECIDED) / (1 - _UNDECIDED), 0, 1)
        votes = (near == 0) & (worth > 0) & (background != IGNORE)
        x, y = (values.ravel() for values in self.grid.centres())
        low = camera.pixel_indices(x, y)
        high = camera.pixel_indices(x, y, self._kerb_height)
        classes = background.reshape(-1)
        is_road = (low >= 0) & (classes.take(low) == _ROAD)
        pixels = np.where(is_road, low, high)
        cells = np.flatnonzero((pixels >= 0) & votes.reshape(-1).take(pixels))
        pixels = pixels[cells]
        self._votes.add(classes[pixels], *self._places(pose, x[cells], y[cells]), worth.reshape(-1)[pixels])

    def behind(self, camera: GroundCamera, pose: PlanarPose, foreground: np.ndarray) -> np.ndarray:
        """Return what lies behind the objects of a frame, (H, W) uint8: 255 where no frame showed it, or no object is.

        Args:
            camera, pose, foreground: see `add`.
        """
        hidden = np.flatnonzero(foreground.reshape(-1))
        rows, columns = np.divmod(hidden, foreground.shape[1])
        pixels = np.stack([columns, rows], axis=1)
        found = self._decided(camera, pose, pixels)
        raised = GroundCamera(camera.model, _lowered(camera.pose, self._kerb_height))
        higher = self._decided(raised, pose, pixels)
        result = np.full(foreground.size, IGNORE, np.uint8)
        # As for a layout: road where that is seen at the road's height, all else one kerb higher.
        result[hidden] = np.where(found == _ROAD, found, np.where(higher == _ROAD, IGNORE, higher))
        up = (camera.model.directions(pixels) @ camera.pose.rotation.T)[:, 2]
        result[hidden[up > _ABOVE]] = _OTHER
        return result.reshape(foreground.shape)

    def _decided(self, camera: GroundCamera, pose: PlanarPose, pixels: np.ndarray) -> np.ndarray:
        """Return the class that the frames agree on where pixels (N, 2) see the ground, (N,) uint8."""
        points = camera.ground(pixels)
        classes = np.full(len(pixels), IGNORE, np.uint8)
        near = np.flatnonzero(self.grid.cells(points[:, 0], points[:, 1]) >= 0)
        votes = self._votes.read(*self._places(pose, points[near, 0], points[near, 1]))
        total, best = votes.sum(axis=0), votes.max(axis=0)
        clear = (total >= _VOTES) & (best >= _MAJORITY * total)
        classes[near[clear]] = votes.argmax(axis=0)[clear]
        return classes

    def _places(self, pose: PlanarPose, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and columns of the cells that points of the vehicle's frame lie in."""
        along, across = pose.points(x, y)
        resolution = self.grid.resolution
        return np.floor(across / resolution).astype(np.int64), np.floor(along / resolution).astype(np.int64)


def _lowered(pose: CameraPose, by: float) -> CameraPose:
    """Return the pose over ground that lies higher."""
    return CameraPose(pose.height - by, pose.pitch, pose.roll, pose.yaw, pose.x, pose.y)
