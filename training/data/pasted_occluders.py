"""Pasted occluders: true background behind objects on any labelled street set.

Nobody annotates what is behind a parked car. But a car cut out of one image and pasted onto another at its
own place hides road, sidewalk or wall whose class the second image's labels tell. `PastedOccluders` wraps a
dataset and does that: the network sees an ordinary street with more objects in it, and the true background is
known behind all that were added.

What is pasted where is drawn from (seed, index) alone, so a sample is the same in whichever order, worker or
process it is made.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from sfi_ros.classes import IGNORE
from training.data.sample import Sample


@dataclass(frozen=True)
class Occluder:
    """An object cut out of an image: its box there (top, left), pixels, shape and label ids.

    Attributes:
        top, left: place of the box in pixels, in the image that it was cut from.
        image: (3, h, w) uint8.
        mask: (h, w) bool, True on the object.
        kinds: (h, w) uint8, as in `Sample`.
        categories: (h, w) uint8 raw label ids.
    """

    top: int
    left: int
    image: Tensor
    mask: Tensor
    kinds: Tensor
    categories: Tensor


class ObjectLibrary:
    """The objects of a dataset, a list for each of its images, cut out when they are asked for; see `cut_out`.

    Args:
        dataset: the images that objects are cut from.
        min_area, max_area: bounds of an object's area, as shares of the image it is cut from.
        cache: number of images whose objects are kept in memory by each worker; the objects of an image take about
            50 kB at 256x512. Cutting anew costs as much as reading the image.
    """

    def __init__(self, dataset: Dataset[Sample], *, min_area: float = 0.0005, max_area: float = 0.2, cache: int = 1024):
        self.dataset, self.min_area, self.max_area = dataset, min_area, max_area
        self._cache: OrderedDict[int, list[Occluder]] = OrderedDict()
        self._cache_size = cache

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> list[Occluder]:
        if index in self._cache:
            self._cache.move_to_end(index)
        else:
            self._cache[index] = cut_out(self.dataset[index], self.min_area, self.max_area)
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return self._cache[index]


class PastedOccluders(Dataset[Sample]):
    """A dataset whose images carry additional objects, cut from its other images, with truth behind them."""

    def __init__(
        self,
        dataset: Dataset[Sample],
        seed: int = 0,
        *,
        most: int = 5,
        probability: float = 1.0,
        min_area: float = 0.0005,
        max_area: float = 0.2,
        cache: int = 1024,
    ):
        """Wrap a dataset.

        An object is a connected component of an image's foreground. It is used if its area is in bounds and
        it does not touch the image's upper border; and pasted onto an image that it does not stick out of, if
        at least half of it hides background of known class, not foreground. Of several objects, one that
        reaches further down stands nearer and is pasted later.

        Args:
            dataset: the images that receive objects and that objects are cut from; two at least. An image
                never receives its own.
            seed: every seed gives other objects.
            most: greatest number of objects in one image; the number wished for is uniform in 1..most.
            probability: share of the images that receive objects; the others come unchanged but for
                `true_background`, which is then what is known without pasting.
            min_area, max_area: bounds of an object's area, as shares of the image it is cut from.
            cache: of `library`, the objects of the dataset.

        Raises:
            ValueError: arguments out of range, or fewer than two images.
        """
        if most < 1 or cache < 1 or not 0 <= probability <= 1 or not 0 <= min_area < max_area:
            raise ValueError(
                f"most and cache must be 1 or more, probability in 0..1, min_area below max_area; got "
                f"{most}, {cache}, {probability}, {min_area}, {max_area}"
            )
        if len(dataset) < 2:
            raise ValueError("pasting needs another image to cut objects from: give a set of two or more")
        self.dataset, self.seed = dataset, seed
        self.most, self.probability = most, probability
        self.library = ObjectLibrary(dataset, min_area=min_area, max_area=max_area, cache=cache)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside the {len(self)} images of this dataset")
        return self.sample(index, np.random.default_rng([self.seed, 0, index]))

    def sample(self, index: int, generator: np.random.Generator) -> Sample:
        """Return an image with objects drawn from `generator`; training asks for others every time."""
        sample = self.dataset[index]
        occluders = []
        if generator.random() < self.probability:
            truth = sample.partial_background if sample.true_background is None else sample.true_background
            visible = (sample.foreground == 0) & (truth != IGNORE)
            occluders = self._choose(index, visible, generator)
        return paste(sample, occluders)

    def _choose(self, index: int, visible: Tensor, generator: np.random.Generator) -> list[Occluder]:
        wished = int(generator.integers(1, self.most + 1))
        chosen: list[Occluder] = []
        # Two donors give enough objects as a rule; an empty street gets two more chances.
        for attempt in range(4):
            if len(chosen) >= wished or (attempt >= 2 and chosen):
                break
            donor = int(generator.integers(len(self.dataset) - 1))
            objects = self.library[donor + (donor >= index)]
            for place in generator.permutation(len(objects)):
                if len(chosen) < wished and _fits(objects[place], visible):
                    chosen.append(objects[place])
        return sorted(chosen, key=lambda occluder: occluder.top + len(occluder.mask))


def cut_out(sample: Sample, min_area: float, max_area: float) -> list[Occluder]:
    """Cut out a sample's objects: components of its foreground of fitting area, clear of the upper border.

    Args:
        sample: the donor.
        min_area, max_area: bounds of the area as shares of the image.
    """
    _, components, boxes, _ = cv2.connectedComponentsWithStats(sample.foreground.numpy(), connectivity=8)
    labels = torch.from_numpy(components)
    objects = []
    for number, (left, top, width, height, area) in enumerate(boxes.tolist()):
        if number == 0 or not min_area <= area / labels.numel() <= max_area or top == 0:
            continue  # 0 is what is not foreground
        window = (slice(top, top + height), slice(left, left + width))
        objects.append(
            Occluder(
                top,
                left,
                sample.image[(slice(None), *window)].clone(),
                labels[window] == number,
                sample.kinds[window].clone(),
                sample.categories[window].clone(),
            )
        )
    return objects


def paste(sample: Sample, occluders: list[Occluder]) -> Sample:
    """Return `sample` with objects pasted in order at their own place; the given sample is left as it is.

    Foreground, kinds and label ids gain exactly the objects' pixels, the partial background becomes 255 there. The
    true background is the given sample's (its partial background if it has no true one), also under the
    objects. Each object's outermost ring of pixels is blended with what is behind, within the object's mask:
    no pixel outside changes.
    """
    image, foreground = sample.image.clone(), sample.foreground.clone()
    partial, kinds, categories = sample.partial_background.clone(), sample.kinds.clone(), sample.categories.clone()
    truth = sample.partial_background if sample.true_background is None else sample.true_background
    for occluder in occluders:
        height, width = occluder.mask.shape
        rows, columns = (
            slice(occluder.top, occluder.top + height),
            slice(occluder.left, occluder.left + width),
        )
        weight = _opacity(occluder.mask)
        behind = image[:, rows, columns].float()
        image[:, rows, columns] = (behind + weight * (occluder.image - behind)).round_().to(torch.uint8)
        foreground[rows, columns].masked_fill_(occluder.mask, 1)
        partial[rows, columns].masked_fill_(occluder.mask, IGNORE)
        for whole, part in ((kinds, occluder.kinds), (categories, occluder.categories)):
            seen = whole[rows, columns]
            seen.copy_(torch.where(occluder.mask, part, seen))
    return Sample(image, foreground, kinds, partial, truth.clone(), categories, sample.name)


def _opacity(mask: Tensor) -> Tensor:
    # Share of set pixels in the 3x3 neighbourhood, on the mask; pixels beyond the box count as unset.
    inside = mask.float()[None]
    return functional.avg_pool2d(inside, 3, stride=1, padding=1)[0] * inside[0]


def _fits(occluder: Occluder, visible: Tensor) -> bool:
    height, width = occluder.mask.shape
    bottom, right = occluder.top + height, occluder.left + width
    if bottom > visible.shape[0] or right > visible.shape[1]:
        return False
    hidden = visible[occluder.top : bottom, occluder.left : right] & occluder.mask
    return bool(hidden.sum() * 2 >= occluder.mask.sum())
