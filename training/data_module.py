"""Which samples make up the batch of step s, and how a sample is made.

Everything is a pure function of the run's seed and a sample's number in the run (step x batch size + place in
the batch): source, image, pasted objects, augmentation, fake masks. So a resumed run continues exactly,
whatever number of workers prepares the samples, and the shards that several processes train on together are
the very batch that one process would have trained on.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from sfi_ros.classes import IGNORE
from training.augmentation import augment
from training.configuration import Configuration, ConfigurationError, SourceConfig
from training.datasets import open_dataset
from training.pasted_occluders import PastedOccluders
from training.sample import Sample, collate
from training.weak_supervision import LossOptions, fake_mask, supervision

_AUGMENTATION, _FAKE_MASK, _ORDER = range(3)
"""Independent streams of random numbers of one sample."""

_DATASETS_OF_MANY_SIZES: Final = ("kitti", "folder")


@dataclass
class TrainingExample:
    """One augmented sample of a training batch, or, with a leading dimension N, the batch itself.

    Attributes:
        image: (3, H, W) uint8 RGB.
        foreground: (H, W) uint8 0/1, 255 outside the source image.
        background: (H, W) uint8 target in {0, 1, 2, 255}.
        fake_foreground: (1, H, W) bool, or None when the run trains without fake masks.
        names: the samples' names.
        totals: (2,) float32, see `weak_supervision.losses`; None where the batch stands for itself.
    """

    image: Tensor
    foreground: Tensor
    background: Tensor
    fake_foreground: Tensor | None
    names: list[str]
    totals: Tensor | None = None

    def pin_memory(self) -> TrainingExample:
        """The batch in page-locked memory; the data loader calls this on a machine with a GPU."""
        fake = None if self.fake_foreground is None else self.fake_foreground.pin_memory()
        return TrainingExample(
            self.image.pin_memory(),
            self.foreground.pin_memory(),
            self.background.pin_memory(),
            fake,
            self.names,
        )


def stack(examples: list[TrainingExample]) -> TrainingExample:
    """Examples of equal size as a batch."""
    fakes = [example.fake_foreground for example in examples if example.fake_foreground is not None]
    return TrainingExample(
        image=torch.stack([example.image for example in examples]),
        foreground=torch.stack([example.foreground for example in examples]),
        background=torch.stack([example.background for example in examples]),
        fake_foreground=torch.stack(fakes) if fakes else None,
        names=[name for example in examples for name in example.names],
    )


class TrainingSet(Dataset[TrainingExample]):
    """The endless stream of training examples of a run; `stream[number]` is the same on every call."""

    def __init__(self, configuration: Configuration):
        self.configuration = configuration
        self.sources = list(configuration.data.train.values())
        self.datasets = [_training_source(configuration, source) for source in self.sources]
        self.lengths = [len(dataset) for dataset in self.datasets]
        total = sum(source.share for source in self.sources)
        self.shares = [source.share / total for source in self.sources]

    def __getitem__(self, number: int) -> TrainingExample:
        """The example with this number in the run."""
        configuration = self.configuration
        sample = self._sample(number)
        target = sample.partial_background
        if configuration.data.true_background and sample.true_background is not None:
            known = sample.true_background != IGNORE
            target = torch.where(known, sample.true_background, target)
        labels = torch.stack([sample.foreground, target])
        image, labels = augment(
            sample.image, labels, configuration.augmentation, self._generator(number, _AUGMENTATION)
        )
        foreground, background = labels
        fake = None
        if configuration.fake_masks.count > 0:
            fake = fake_mask(
                *foreground.shape,
                self._generator(number, _FAKE_MASK),
                count=configuration.fake_masks.count,
                sizes=configuration.fake_masks.sizes,
            )
        return TrainingExample(image, foreground, background, fake, [sample.name])

    def steps_per_epoch(self) -> int:
        """Steps in which the mixture has gone once through its largest source."""
        largest = max(range(len(self.lengths)), key=lambda source: self.lengths[source])
        samples = self.lengths[largest] / self.shares[largest]
        return max(1, int(samples / self.configuration.data.batch_size))

    def place(self, number: int) -> tuple[int, int]:
        """(source, how many samples of that source came before) of a sample.

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

    def _block(self, source: int) -> int:
        # Building a street of the synthetic camera costs as much as ten frames of it: a drive is used up at once.
        options = self.sources[source]
        return options.frames if options.dataset == "synthetic" and options.limit is None else 1

    def _generator(self, number: int, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.configuration.seed, stream, number))


@lru_cache(maxsize=8)
def _shuffled(length: int, block: int, seed: tuple[int, ...]) -> np.ndarray:
    """A permutation of `length` numbers that keeps blocks of consecutive ones together."""
    blocks = np.random.default_rng(seed).permutation(length // block)
    return (blocks[:, None] * block + np.arange(block)).ravel()


class StepBatches(Sampler[list[int]]):
    """The sample numbers of every batch of this process, from a step to the end of the run.

    Args:
        batch_size: of one optimizer step.
        processes: that share it.
        rank: of this process.
        first_step: the optimizer step to begin with.
        steps: optimizer steps of the whole run.
    """

    def __init__(
        self,
        batch_size: int,
        *,
        processes: int,
        rank: int,
        first_step: int,
        steps: int,
    ):
        self.part, self.rank = batch_size // processes, rank
        self.batch_size, self.first_step, self.steps = batch_size, first_step, steps

    def __len__(self) -> int:
        return self.steps - self.first_step

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.steps):
            start = step * self.batch_size + self.rank * self.part
            yield list(range(start, start + self.part))


class Parts:
    """The batches of a loader, each in several equal parts, one after the other.

    Every part knows the pixel weights of the whole, so that gradients accumulated over the parts are exactly
    those of the undivided batch, wherever its few sidewalk pixels are.
    """

    def __init__(self, loader: DataLoader, parts: int, options: LossOptions):
        self.loader, self.parts, self.options = loader, parts, options

    def __len__(self) -> int:
        return len(self.loader) * self.parts

    def __iter__(self) -> Iterator[TrainingExample]:
        for batch in self.loader:
            truth = supervision(batch.foreground, batch.background, batch.fake_foreground, self.options)
            totals = truth.totals() / self.parts
            size = len(batch.names) // self.parts
            for start in range(0, len(batch.names), size):
                rows = slice(start, start + size)
                yield TrainingExample(
                    batch.image[rows],
                    batch.foreground[rows],
                    batch.background[rows],
                    None if batch.fake_foreground is None else batch.fake_foreground[rows],
                    batch.names[rows],
                    totals,
                )


class StreetData(lightning.LightningDataModule):
    """Training stream and validation sets of a configuration.

    Opening the datasets happens here, in the constructor, so that a wrong folder shows before anything else.
    """

    def __init__(self, configuration: Configuration):
        super().__init__()
        self.configuration = configuration
        self.training_set = TrainingSet(configuration)
        self.validation_sets = {
            name: _validation_set(configuration, source) for name, source in configuration.data.validation.items()
        }

    def train_dataloader(self) -> DataLoader | Parts:
        """Batches of `TrainingExample`, from the trainer's current step on."""
        data, trainer = self.configuration.data, self.trainer
        if data.batch_size % (data.accumulate * trainer.world_size):
            raise ConfigurationError(
                f"data.batch_size={data.batch_size} cannot be shared by {trainer.world_size} processes "
                f"x data.accumulate={data.accumulate}: make it a multiple of {data.accumulate * trainer.world_size}"
            )
        steps, _ = plan(self.configuration, self.training_set)
        sampler = StepBatches(
            data.batch_size,
            processes=trainer.world_size,
            rank=trainer.global_rank,
            first_step=trainer.global_step,
            steps=steps,
        )
        loader = self._loader(self.training_set, batch_sampler=sampler, collate_fn=stack)
        return loader if data.accumulate == 1 else Parts(loader, data.accumulate, self.configuration.losses)

    def val_dataloader(self) -> list[DataLoader]:
        """One loader of `training.sample.Batch` per validation set; processes share each set."""
        loaders = []
        for name, dataset in self.validation_sets.items():
            many_sizes = self.configuration.data.validation[name].dataset in _DATASETS_OF_MANY_SIZES
            shard = Subset(dataset, range(self.trainer.global_rank, len(dataset), self.trainer.world_size))
            size = 1 if many_sizes else self.configuration.data.validation_batch_size
            loaders.append(self._loader(shard, batch_size=size, collate_fn=collate))
        return loaders

    def _loader(self, dataset: Dataset, **options) -> DataLoader:
        workers = self.configuration.data.workers
        if workers is None:
            workers = automatic_workers(self.trainer.num_devices)
        return DataLoader(
            dataset,
            num_workers=workers,
            worker_init_fn=_quiet_worker,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # keeps the loader's hands off the global generator
            **options,
        )


def plan(configuration: Configuration, training_set: TrainingSet) -> tuple[int, int]:
    """(steps of the whole run, steps between validations).

    Raises:
        ValueError: the run does not end with a validation.
    """
    schedule, epoch = configuration.schedule, training_set.steps_per_epoch()
    steps = schedule.steps or (schedule.epochs or 0) * epoch
    every = min(schedule.validate_every or epoch, steps)
    if steps < 1:
        raise ValueError("schedule.steps and schedule.epochs must be positive")
    if steps % every:
        raise ValueError(
            f"the run of {steps} steps must end with a validation, but one comes every {every} steps: "
            f"set schedule.steps to {steps - steps % every or every} or schedule.validate_every to a divisor of {steps}"
        )
    return steps, every


def automatic_workers(devices: int) -> int:
    """Loader processes per device: all cores but one shared by the devices, at most 12."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return max(1, min(12, (cores - 1) // max(1, devices)))


def open_source(configuration: Configuration, source: SourceConfig) -> Dataset[Sample]:
    """The whole dataset of a source, as it lies on disk: nothing pasted, nothing left out."""
    height = configuration.network.input_height
    if source.dataset == "synthetic":
        options = {"drives": source.drives, "frames": source.frames, "seed": source.seed}
        return open_dataset("synthetic", split=source.split, height=height, **options)
    root = source.root or configuration.data.roots.get(source.dataset, "")
    split = source.split if source.dataset == "cityscapes" else None
    return open_dataset(source.dataset, Path(root), split=split, height=height)


def _training_source(configuration: Configuration, source: SourceConfig) -> Dataset[Sample]:
    dataset = open_source(configuration, source)
    if source.limit is not None:
        dataset = _evenly(dataset, source.limit)
    if source.pasted > 0:
        dataset = PastedOccluders(dataset, seed=configuration.seed, probability=source.pasted)
    return dataset


def _validation_set(configuration: Configuration, source: SourceConfig) -> Dataset[Sample]:
    dataset = open_source(configuration, source)
    # Pasted before it is thinned out, and always from the same seed: every run is validated on the same images.
    if source.pasted > 0:
        dataset = PastedOccluders(dataset, seed=0)
    return dataset if source.limit is None else _evenly(dataset, source.limit)


def _evenly(dataset: Dataset[Sample], limit: int) -> Dataset[Sample]:
    length = len(dataset)
    count = min(limit, length)
    return Subset(dataset, [index * length // count for index in range(count)])


def _quiet_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C reaches every process of the terminal; only the main one decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
