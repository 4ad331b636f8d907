"""Colours as of another image: brightness, contrast and tint matched to it, as other cameras and other light give.

Reinhard's colour transfer: mean and standard deviation along luma and two opponent colours become those of the other
image. In a space that is linear in RGB that is one 3x4 matrix, which a worker or a device applies in a pass, and of the
other image no pixel has to be there. Swapping amplitudes of low frequencies (Fourier domain adaptation) needs the other
image and three Fourier transforms, and what it changes most, the lowest frequency, is the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from training.data.augmentation import TO_YIQ
from training.data.sample import Sample

_GAINS = (0.5, 2.0)
"""Bounds of how much contrast may change: a foggy image stays one."""


class Styles:
    """The colour statistics of the images of some datasets; each is read once, when it is asked for.

    Args:
        datasets: the images that give their colours.
    """

    def __init__(self, datasets: Sequence[Dataset[Sample]]):
        self.datasets = datasets
        self._known: dict[tuple[int, int], np.ndarray] = {}

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """Draw an image, from each dataset equally often, and return its `statistics`."""
        number = int(generator.integers(len(self.datasets)))
        index = int(generator.integers(len(self.datasets[number])))
        if (number, index) not in self._known:
            self._known[number, index] = statistics(self.datasets[number][index].image)
        return self._known[number, index]


def statistics(image: Tensor) -> np.ndarray:
    """Return (2, 3) float64: means and standard deviations of luma and two opponent colours, from one pixel of 16.

    Args:
        image: (3, H, W) uint8 RGB.
    """
    colors = TO_YIQ @ image[:, ::4, ::4].flatten(1).numpy()
    return np.stack([colors.mean(1), colors.std(1)])


def color_map(own: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return (12,) float32, a 3x3 matrix of RGB and three offsets, that gives an image other `statistics`.

    Args:
        own: of the image.
        wanted: of the other one.
    """
    gains = np.clip(wanted[1] / np.maximum(own[1], 1e-6), *_GAINS)
    back = np.linalg.inv(TO_YIQ)
    matrix, offset = back @ np.diag(gains) @ TO_YIQ, back @ (wanted[0] - gains * own[0])
    return np.concatenate([matrix.ravel(), offset]).astype(np.float32)
