"""Decoded samples kept in memory: every image is read, resized and mapped once in a run, not once an epoch."""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset

from training.data.sample import Sample

_COLUMNS = 6  # of a sample's row: place + 1 (0: absent), height, width, length of its name, has true background, is HWC


class SampleMemory:
    """Memory for samples that all worker processes of a run share, with a hard limit.

    It is filled as samples come up; when it is full, the others go on being read from disk. It must be made before
    the workers are forked, which then share it. Being anonymous memory, it is not bounded by /dev/shm, and what is
    not used yet takes nothing.

    Args:
        limit: bytes.

    Raises:
        ValueError: the machine does not grant so much.
    """

    def __init__(self, limit: int):
        try:
            self._bytes = torch.frombuffer(mmap.mmap(-1, limit), dtype=torch.uint8)
        except (OSError, ValueError, OverflowError) as error:
            raise ValueError(f"{limit / 1e9:g} GB are more than this machine gives away ({error})") from error
        self._used = shared_numbers(1)
        self.lock = multiprocessing.get_context("fork").RLock()

    @property
    def used(self) -> int:
        """Bytes that are taken."""
        return int(self._used)

    def take(self, size: int) -> int | None:
        """Where `size` bytes begin that belong to the caller from now on; None if they are not left."""
        with self.lock:
            place = int(self._used)
            if place + size > len(self._bytes):
                return None
            self._used += size
            return place

    def read(self, place: int, size: int) -> Tensor:
        """(size,) uint8, a view."""
        return self._bytes[place : place + size]


def shared_numbers(*shape: int) -> Tensor:
    """Zeros, int64, that forked processes share."""
    count = torch.Size(shape).numel()
    return torch.frombuffer(mmap.mmap(-1, 8 * max(1, count)), dtype=torch.int64)[:count].view(shape)


class Remembered(Dataset[Sample]):
    """A dataset whose samples are made once; equal to it in every value.

    The tensors of its samples are views of the memory: they must not be written into.

    Args:
        dataset: makes the samples.
        memory: where they are kept.
    """

    def __init__(self, dataset: Dataset[Sample], memory: SampleMemory):
        self.dataset, self.memory = dataset, memory
        self._rows = shared_numbers(len(dataset), _COLUMNS)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        with self.memory.lock:
            row = self._rows[index].tolist()
        if row[0]:
            return self._recall(row)
        sample = self.dataset[index]
        self._keep(index, sample)
        return sample

    def _keep(self, index: int, sample: Sample) -> None:
        is_hwc = sample.image.permute(1, 2, 0).is_contiguous()  # decoders give this order, and resizing keeps it
        image = sample.image.permute(1, 2, 0) if is_hwc else sample.image
        name = torch.tensor(list(sample.name.encode()), dtype=torch.uint8)
        maps = [sample.foreground, sample.kinds, sample.partial_background, sample.categories]
        if sample.true_background is not None:
            maps.append(sample.true_background)
        parts = [name, *(tensor.reshape(-1) for tensor in (image, *maps))]
        with self.memory.lock:  # while copying, too: another worker may be about to keep the same sample
            if self._rows[index, 0]:
                return
            place = self.memory.take(sum(map(len, parts)))
            if place is None:
                return
            torch.cat(parts, out=self.memory.read(place, sum(map(len, parts))))
            height, width = sample.image.shape[-2:]
            row = (place + 1, height, width, len(name), len(maps) == 5, is_hwc)
            self._rows[index] = torch.tensor(row, dtype=torch.int64)

    def _recall(self, row: list[int]) -> Sample:
        place, height, width, name_length, has_truth, is_hwc = row
        pixels = height * width
        parts = self._split(place - 1, [name_length, 3 * pixels, *[pixels] * (5 if has_truth else 4)])
        name, image = bytes(next(parts).numpy()).decode(), next(parts)
        image = image.view(height, width, 3).permute(2, 0, 1) if is_hwc else image.view(3, height, width)
        foreground, kinds, partial, categories, *truth = (part.view(height, width) for part in parts)
        return Sample(image, foreground, kinds, partial, truth[0] if truth else None, categories, name)

    def _split(self, place: int, sizes: list[int]) -> Iterator[Tensor]:
        for size in sizes:
            yield self.memory.read(place, size)
            place += size
