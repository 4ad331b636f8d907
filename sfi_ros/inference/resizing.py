"""Antialiased bilinear resizing of bytes by NumPy, as PyTorch does it on a CPU.

OpenCV has nothing that comes near: INTER_AREA averages over half as much of the image. Each new pixel is a weighted sum
of the old ones within a triangle around it: first along rows, then, of what was rounded to bytes, along columns. The
weights are PyTorch's, whole numbers over a power of two, so that all but one pixel in thousands get its very value;
when one in ten was off by one, one class in 500 changed.

The sums of a few neighbours are one small matrix product, over the rows that any of them needs; for the sums along
rows the image is transposed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from sfi_ros.memory import Recycled

ROWS_PER_PRODUCT: Final = 4
"""New rows that are one product; of more, most weights would be zero."""

_memory: Final = Recycled()

MOST_MULTIPLICATIONS: Final = 1 << 18
"""In one product: OpenBLAS starts threads for more, which then spin for a while on cores that the network needs."""


def resize_by_numpy(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """See `cpu_pipeline.Resize`."""
    height, width = size
    if image.shape[1] != width:
        columns = _memory.take((image.shape[1], image.shape[0], 3))
        cv2.transpose(image, dst=columns)
        image = cv2.transpose(_resized_rows(columns, width), dst=_memory.take((image.shape[0], width, 3)))
    return image if image.shape[0] == height else _resized_rows(image, height)


def _resized_rows(image: np.ndarray, count: int) -> np.ndarray:
    """(n, m, 3) uint8 -> (count, m, 3) uint8."""
    rows = image.reshape(len(image), -1)
    sums = _memory.take((count, rows.shape[1]), np.float32)
    for product in _products(len(rows), count):
        step = max(1, MOST_MULTIPLICATIONS // product.weights.size)
        for first in range(0, rows.shape[1], step):
            part = slice(first, first + step)
            needed = rows[product.begin : product.end, part].astype(np.float32)
            np.matmul(product.weights, needed, out=sums[product.first : product.first + len(product.weights), part])
    sums += 0.5
    resized = _memory.take((count, *image.shape[1:]))
    np.copyto(resized.reshape(sums.shape), sums, casting="unsafe")
    return resized


@dataclass(frozen=True)
class _Product:
    """The new rows from `first` on are `weights` times the old ones from `begin` to `end`."""

    first: int
    begin: int
    end: int
    weights: np.ndarray


@functools.lru_cache(maxsize=32)
def _products(old: int, new: int) -> list[_Product]:
    """Return what makes `new` rows of `old` ones."""
    weights = _weights(old, new)
    products = []
    for first in range(0, new, ROWS_PER_PRODUCT):
        some = weights[first : first + ROWS_PER_PRODUCT]
        used = np.flatnonzero(some.any(axis=0))
        begin, end = int(used[0]), int(used[-1]) + 1
        products.append(_Product(first, begin, end, np.ascontiguousarray(some[:, begin:end], np.float32)))
    return products


def _weights(old: int, new: int) -> np.ndarray:
    """Return what each new row has of each old one, (new, old) float64: 15-bit numbers over a power of two."""
    scale = old / new
    reach = max(scale, 1.0)
    centers = (np.arange(new) + 0.5) * scale
    distance = np.abs(np.arange(old) + 0.5 - centers[:, None]) / reach
    weights = np.maximum(0.0, 1.0 - distance)
    weights /= weights.sum(axis=1, keepdims=True)
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    return np.floor(weights * (1 << bits) + 0.5) / (1 << bits)
