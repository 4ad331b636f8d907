"""Which pixel each cell of a grid reads, and in which order cells lie along rays: worked out once for a camera.

A ray runs over the ground, away from the point below the camera. In a picture it is a line (a curve, where the lens
distorts), along which the ground is seen until something stands in the way. Rays are as close as the cells are wide at
the grid's far end. Samples along them lie as close as cells, or as pixels where these are farther apart on the ground.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import cv2
import numpy as np

from sfi_ros.errors import OptionError
from sfi_ros.geometry.ground import GroundCamera, GroundGrid

KERB_HEIGHT: Final = 0.1
"""Metres; kerbs of streets have 0.06 to 0.16."""

_MOST_RAYS: Final = 8192
_SAMPLES_PER_PIXEL: Final = 1.3


class GroundTable:
    """The table of one camera pose, grid and image size.

    Args:
        camera: see `GroundCamera.of`; its image size is that of the masks.
        grid: of the layout.
        own_vehicle: (H, W), not zero where the image shows the own vehicle: no cell reads there; see
            `own_vehicle_mask`.
        kerb_height: metres that everything but the road lies higher than the road; 0 for a plane.

    Attributes:
        camera, grid: as given.
        cells: (V,) intp, flat indices of the cells in view, in the order of the pixels that they read.
        pixels: (V,) intp, flat index of the pixel that each reads: the one that its centre falls into.
        raised_pixels: (V,) intp, the same if the cell lies one kerb higher.
        ranges: (V,) float32, metres on the ground from the point below the camera.
        cell_rays, cell_steps: (V,) intp and int16, the sample that is nearest to each cell.
        bearings: (A,) float64, radians from the vehicle's x axis, of the rays.
        steps: (S,) float32, metres from the point below the camera, of the samples along each ray.
        cell_samples: (V,) intp, flat index of the same.
        samples: (A, S) intp, flat index of the pixel that each sample falls into; 0 where it is not in view.
        sampled: (A, S) bool, whether the sample is in view.
        sample_cells: (A, S) intp, flat index of the cell that each sample lies in; -1 outside of the grid.
    """

    def __init__(
        self,
        camera: GroundCamera,
        grid: GroundGrid,
        own_vehicle: np.ndarray | None = None,
        kerb_height: float = KERB_HEIGHT,
    ):
        self.camera, self.grid = camera, grid
        width, height = camera.model.size
        if not 0 <= kerb_height < camera.pose.height:
            raise OptionError(f"the kerbs' height must be from 0 to below the camera's, not {kerb_height} m")
        if own_vehicle is not None and own_vehicle.shape != (height, width):
            raise OptionError(
                f"the mask of the own vehicle has {own_vehicle.shape[1]}x{own_vehicle.shape[0]} pixels, the image "
                f"{width}x{height}: see own_vehicle_mask"
            )
        self._own = None if own_vehicle is None else own_vehicle.ravel() != 0
        x, y = grid.centres()
        pixels = self._seen(x.ravel(), y.ravel())
        seen = np.flatnonzero(pixels >= 0)
        self.cells = seen[np.argsort(pixels[seen], kind="stable")]  # masks are large: they are read from front to back
        self.pixels = pixels[self.cells]
        x, y = x.ravel()[self.cells], y.ravel()[self.cells]
        raised = self._seen(x, y, kerb_height)
        self.raised_pixels = np.where(raised < 0, self.pixels, raised)
        dx, dy = x - camera.pose.x, y - camera.pose.y
        ranges = np.hypot(dx, dy)
        self.ranges = ranges.astype(np.float32)
        bearings = _turned(np.arctan2(dy, dx) - camera.pose.yaw)
        self._make_rays(bearings, ranges)
        self._make_samples()

    @cached_property
    def log_spread(self) -> np.ndarray:
        """(V,) float32: logarithm of the square metres of ground in a square milliradian of view, at each cell."""
        height = self.camera.pose.height
        return np.log(np.hypot(self.ranges, height) ** 3 / height * 1e-6).astype(np.float32)

    def _seen(self, x: np.ndarray, y: np.ndarray, z: float = 0.0) -> np.ndarray:
        pixels = self.camera.pixel_indices(x, y, z)
        if self._own is not None:
            pixels[(pixels >= 0) & self._own[pixels]] = -1
        return pixels

    def _make_rays(self, bearings: np.ndarray, ranges: np.ndarray) -> None:
        farthest = float(ranges.max(initial=0.0))
        first, last = (float(bearings.min()), float(bearings.max())) if len(bearings) else (0.0, 0.0)
        count = min(_MOST_RAYS, 1 + int(np.ceil((last - first) * farthest / self.grid.resolution)))
        between = (last - first) / (count - 1) if count > 1 else 1.0
        self.bearings = first + between * np.arange(count) + self.camera.pose.yaw
        self.cell_rays = np.rint((bearings - first) / between).astype(np.intp)
        self.steps = self._step_ranges(farthest).astype(np.float32)
        steps = self.steps.astype(np.float64)
        self.cell_steps = np.searchsorted(0.5 * (steps[1:] + steps[:-1]), ranges).astype(np.int16)

    def _step_ranges(self, farthest: float) -> np.ndarray:
        """Return the ranges of the samples, float64, one behind `farthest` among them."""
        height, focal = self.camera.pose.height, float(self.camera.model.matrix[[0, 1], [0, 1]].max())
        ranges = [0.5 * self.grid.resolution]
        while ranges[-1] < farthest:
            pixel = (ranges[-1] ** 2 + height**2) / (height * focal)
            ranges.append(ranges[-1] + max(self.grid.resolution, pixel / _SAMPLES_PER_PIXEL))
        return np.array(ranges)

    def _make_samples(self) -> None:
        pose = self.camera.pose
        x = pose.x + np.cos(self.bearings)[:, None] * self.steps
        y = pose.y + np.sin(self.bearings)[:, None] * self.steps
        pixels = self._seen(x.ravel(), y.ravel()).reshape(x.shape)
        # Nothing is seen right below most cameras: samples that no ray has are left out.
        first = int(np.argmax((pixels >= 0).any(axis=0))) if pixels.size else 0
        self.steps = self.steps[first:]
        self.cell_steps = np.maximum(self.cell_steps - np.int16(first), 0)
        pixels = np.ascontiguousarray(pixels[:, first:])
        self.sampled = pixels >= 0
        self.samples = np.maximum(pixels, 0)
        self.sample_cells = np.ascontiguousarray(self.grid.cells(x, y)[:, first:])
        self.cell_samples = self.cell_rays * len(self.steps) + self.cell_steps


def own_vehicle_mask(
    own_vehicle: np.ndarray, image_size: tuple[int, int], size: tuple[int, int] | None = None
) -> np.ndarray:
    """Return the mask of the own vehicle (the bonnet, mirrors) for masks of a size.

    Args:
        own_vehicle: (N, 2) corners of a polygon in pixels of the camera's images, or a (h, w) image of any size that is
            not zero there; of two columns or two rows, an array is taken for corners.
        image_size: (width, height) of the camera's images.
        size: (width, height) of the masks; default: that of the images.

    Returns:
        (H, W) uint8, 0 or 1.

    Raises:
        OptionError: neither a polygon nor an image.
    """
    size = size or image_size
    own_vehicle = np.asarray(own_vehicle)
    if own_vehicle.ndim == 2 and own_vehicle.shape[1] == 2 and len(own_vehicle) >= 3:
        scale = np.array(size) / np.array(image_size)
        corners = (own_vehicle + 0.5) * scale - 0.5
        mask = np.zeros((size[1], size[0]), np.uint8)
        cv2.fillPoly(mask, [np.rint(corners * 16).astype(np.int32)], (1,), cv2.LINE_8, 4)
        return mask
    if own_vehicle.ndim == 2 and own_vehicle.size:
        mask = (own_vehicle != 0).astype(np.uint8)
        return cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    raise OptionError("the own vehicle must be a polygon of three or more corners (N, 2), or an image (h, w)")


def _turned(angles: np.ndarray) -> np.ndarray:
    """Return angles in -pi to pi."""
    return np.arctan2(np.sin(angles), np.cos(angles))
