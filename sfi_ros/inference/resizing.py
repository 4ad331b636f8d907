"""Antialiased bilinear resizing by NumPy, as PyTorch does it, whose results it equals but for rounding.

OpenCV has nothing that comes near: INTER_AREA averages over half as much of the image. Each new pixel is a weighted sum
of the old ones within a triangle around it, rows first, then columns. The sums of a few neighbouring rows are one small
matrix product, over the rows that any of them needs.
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
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    rows = _weighted_rows(image.reshape(height, -1), size[0])
    columns = _memory.take((width, size[0], 3), np.float32)
    cv2.transpose(rows.reshape(size[0], width, 3), dst=columns)
    resized = _weighted_rows(columns.reshape(width, -1), size[1])
    np.rint(resized, out=resized)
    return cv2.transpose(resized.astype(np.uint8).reshape(size[1], size[0], 3))


def _weighted_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """(n, m) of any type -> (count, m) float32."""
    if count == len(rows):
        return rows.astype(np.float32)
    length = rows.shape[1]
    sums = _memory.take((count, length), np.float32)
    for product in _products(len(rows), count):
        step = max(1, MOST_MULTIPLICATIONS // product.weights.size)
        for first in range(0, length, step):
            part = slice(first, first + step)
            needed = rows[product.begin : product.end, part].astype(np.float32)
            np.matmul(product.weights, needed, out=sums[product.first : product.first + len(product.weights), part])
    return sums


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
    scale = old / new
    reach = max(scale, 1.0)
    centers = (np.arange(new) + 0.5) * scale
    distance = np.abs(np.arange(old) + 0.5 - centers[:, None]) / reach
    weights = np.maximum(0.0, 1.0 - distance)
    weights /= weights.sum(axis=1, keepdims=True)
    products = []
    for first in range(0, new, ROWS_PER_PRODUCT):
        some = weights[first : first + ROWS_PER_PRODUCT]
        used = np.flatnonzero(some.any(axis=0))
        begin, end = int(used[0]), int(used[-1]) + 1
        products.append(_Product(first, begin, end, np.ascontiguousarray(some[:, begin:end], np.float32)))
    return products
