"""The stream of training examples: which samples make up the batch of step s, and how a sample is made.

Everything is a pure function of the run's seed and a sample's number in the run (step x batch size + place in
the batch): source, image, pasted objects, augmentation, fake masks. So a resumed run continues exactly,
whatever number of workers prepares the samples, and the shards that several processes train on together are
the very batch that one process would have trained on.

Workers read (or remember) and paste; they augment, too, unless a GPU does that (`data.augment_on`), a whole batch at
a time: `training.data.loaders` is where a batch reaches the device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sfi_ros.classes import IGNORE
from training.configuration import Configuration
from training.data.augmentation import Draw, Draws, augment_batch, augment_sample, draw
from training.data.cache import SampleMemory
from training.data.fake_masks import draw_silhouettes, fake_mask
from training.data.pasted_occluders import ObjectLibrary, PastedOccluders
from training.data.plain_walls import paint_walls
from training.data.sample import Sample, Tensors
from training.data.sources import training_source

_AUGMENTATION, _FAKE_MASK, _ORDER, _WALLS = range(4)
"""Independent streams of random numbers of one sample."""


@dataclass(frozen=True)
class TrainingExample(Tensors):
    """One sample of a training batch, or, with a leading dimension N, the batch itself.

    Attributes:
        image: (3, H, W) uint8 RGB.
        foreground: (H, W) uint8 0/1, 255 outside the source image.
        kinds: (H, W) uint8 target in {0, 1, 2, 255}, as in `Sample`.
        background: (H, W) uint8 target in {0, 1, 2, 255}.
        fake_foreground: (1, H, W) bool, or None when the run trains without fake masks.
        names: the samples' names.
        drawn: how image and targets have still to be augmented; None once they are.
    """

    image: Tensor
    foreground: Tensor
    kinds: Tensor
    background: Tensor
    fake_foreground: Tensor | None
    names: list[str]
    drawn: Draw | Draws | None = None

    def augmented(self) -> TrainingExample:
        """Return the sample or batch, augmented as drawn."""
        if self.drawn is None:
            return self
        labels = torch.stack([self.foreground, self.kinds, self.background], dim=-3)
        if isinstance(self.drawn, Draws):
            image, labels = augment_batch(self.image, labels, self.drawn)
        else:
            image, labels = augment_sample(self.image, labels, self.drawn)
        foreground, kinds, background = labels.unbind(-3)
        return replace(self, image=image, foreground=foreground, kinds=kinds, background=background, drawn=None)


def stack(examples: list[TrainingExample]) -> TrainingExample:
    """Join examples to a batch: of one size, or still to be augmented, which makes them so."""
    fakes = [example.fake_foreground for example in examples if example.fake_foreground is not None]
    draws = [example.drawn for example in examples if isinstance(example.drawn, Draw)]
    join = _stack_padded if draws else torch.stack
    return TrainingExample(
        image=join([example.image for example in examples]),
        foreground=join([example.foreground for example in examples]),
        kinds=join([example.kinds for example in examples]),
        background=join([example.background for example in examples]),
        fake_foreground=torch.stack(fakes) if fakes else None,
        names=[name for example in examples for name in example.names],
        drawn=Draws.of(draws) if draws else None,
    )


def _stack_padded(tensors: list[Tensor]) -> Tensor:
    """Stack tensors (..., H, W) of any size; what lies beyond a smaller one is not looked at."""
    size = [max(tensor.shape[axis] for tensor in tensors) for axis in (-2, -1)]
    batch = tensors[0].new_zeros(len(tensors), *tensors[0].shape[:-2], *size)
    for place, tensor in zip(batch, tensors, strict=True):
        place[..., : tensor.shape[-2], : tensor.shape[-1]] = tensor
    return batch


class TrainingSet(Dataset[TrainingExample]):
    """The endless stream of training examples of a run; `stream[number]` is the same on every call.

    Args:
        configuration: of the run.
        memory: for decoded samples; None reads them anew every time.

    Attributes:
        augments: whether examples are augmented; else they say how they have to be.
    """

    def __init__(self, configuration: Configuration, memory: SampleMemory | None = None):
        self.configuration = configuration
        self.augments = True
        self.sources = list(configuration.data.train.values())
        self.datasets = [training_source(configuration, source, memory) for source in self.sources]
        self.lengths = [len(dataset) for dataset in self.datasets]
        total = sum(source.share for source in self.sources)
        self.shares = [source.share / total for source in self.sources]
        largest = self.datasets[self.shares.index(max(self.shares))]
        self._objects = largest.library if isinstance(largest, PastedOccluders) else ObjectLibrary(largest)

    def __getitem__(self, number: int) -> TrainingExample:
        """Return the example with this number in the run."""
        configuration = self.configuration
        sample = self._sample(number)
        walls = self._generator(number, _WALLS)
        if walls.random() < configuration.augmentation.plain_walls:
            sample = paint_walls(sample, walls)
        target = sample.partial_background
        if configuration.data.true_background and sample.true_background is not None:
            known = sample.true_background != IGNORE
            target = torch.where(known, sample.true_background, target)
        size = (sample.image.shape[-2], sample.image.shape[-1])
        drawn = draw(size, configuration.augmentation, self._generator(number, _AUGMENTATION))
        fake = self._fake_mask(number, drawn)
        example = TrainingExample(
            sample.image, sample.foreground, sample.kinds, target, fake, [sample.name], drawn=drawn
        )
        return example.augmented() if self.augments else example

    def steps_per_epoch(self) -> int:
        """Return the steps in which the mixture has gone once through its largest source."""
        largest = max(range(len(self.lengths)), key=lambda source: self.lengths[source])
        samples = self.lengths[largest] / self.shares[largest]
        return max(1, int(samples / self.configuration.data.batch_size))

    def place(self, number: int) -> tuple[int, int]:
        """Return (source, how many samples of that source came before) of a sample.

        The first source takes its share of the stream evenly spread; what remains is divided likewise among
        the others.
        """
        remaining = 1.0
        for source, share in enumerate(self.shares[:-1]):
            part = share / remaining
            before = int(number * part)
            if int((number + 1) * part) > before:
                return source, before
            number -= before
            remaining -= share
        return len(self.shares) - 1, number

    def _sample(self, number: int) -> Sample:
        source, count = self.place(number)
        epoch, position = divmod(count, self.lengths[source])
        block = self._block(source)
        order = _shuffled(self.lengths[source], block, (self.configuration.seed, _ORDER, source, epoch))
        index = int(order[position])
        dataset = self.datasets[source]
        if isinstance(dataset, PastedOccluders):
            # Other objects every time an image comes up.
            return dataset.sample(index, np.random.default_rng((self.configuration.seed, number, index)))
        return dataset[index]

    def _fake_mask(self, number: int, drawn: Draw) -> Tensor | None:
        options, generator = self.configuration.fake_masks, self._generator(number, _FAKE_MASK)
        if options.count == 0:
            return None
        silhouettes = []
        if options.shape == "silhouettes":
            silhouettes = draw_silhouettes(self._objects, generator, options.count)
        return fake_mask(*drawn.size, generator, count=options.count, sizes=options.sizes, silhouettes=silhouettes)

    def _block(self, source: int) -> int:
        # Building a street of the synthetic camera costs as much as ten frames of it: a drive is used up at once.
        options = self.sources[source]
        return options.frames if options.dataset == "synthetic" and options.limit is None else 1

    def _generator(self, number: int, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.configuration.seed, stream, number))


@lru_cache(maxsize=8)
def _shuffled(length: int, block: int, seed: tuple[int, ...]) -> np.ndarray:
    """Return a permutation of `length` numbers that keeps blocks of consecutive ones together."""
    blocks = np.random.default_rng(seed).permutation(length // block)
    return (blocks[:, None] * block + np.arange(block)).ravel()
