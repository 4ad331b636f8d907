"""Which samples make up the batch of step s, and how a sample is made.

Everything is a pure function of the run's seed and a sample's number in the run (step x batch size + place in
the batch): source, image, pasted objects, augmentation, fake masks. So a resumed run continues exactly,
whatever number of workers prepares the samples, and the shards that several processes train on together are
the very batch that one process would have trained on.

Workers read (or remember) and paste; they augment, too, unless a GPU does that (`data.augment_on`), a whole batch at
a time. `DeviceBatches` is where a batch reaches the device.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from sfi_ros.classes import IGNORE
from training.configuration import Configuration, ConfigurationError, SourceConfig
from training.data.augmentation import AugmentationOptions, Draw, Draws, augment_batch, augment_sample, draw
from training.data.cache import Remembered, SampleMemory
from training.data.datasets import open_dataset
from training.data.pasted_occluders import PastedOccluders
from training.data.sample import Batch, Sample, collate
from training.learning.losses import LossOptions, fake_mask, supervision

_AUGMENTATION, _FAKE_MASK, _ORDER = range(3)
"""Independent streams of random numbers of one sample."""

_DATASETS_OF_MANY_SIZES: Final = ("kitti", "folder")


@dataclass(frozen=True)
class TrainingExample:
    """One sample of a training batch, or, with a leading dimension N, the batch itself.

    Attributes:
        image: (3, H, W) uint8 RGB.
        foreground: (H, W) uint8 0/1, 255 outside the source image.
        background: (H, W) uint8 target in {0, 1, 2, 255}.
        fake_foreground: (1, H, W) bool, or None when the run trains without fake masks.
        names: the samples' names.
        totals: (2,) float32, see `weak_supervision.losses`; None where the batch stands for itself.
        drawn: how image, foreground and background have still to be augmented; None once they are.
    """

    image: Tensor
    foreground: Tensor
    background: Tensor
    fake_foreground: Tensor | None
    names: list[str]
    totals: Tensor | None = None
    drawn: Draw | Draws | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> TrainingExample:
        """A batch with every tensor replaced by `function` of it."""
        return replace(
            self,
            image=function(self.image),
            foreground=function(self.foreground),
            background=function(self.background),
            fake_foreground=None if self.fake_foreground is None else function(self.fake_foreground),
            totals=None if self.totals is None else function(self.totals),
            drawn=self.drawn.map(function) if isinstance(self.drawn, Draws) else self.drawn,
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TrainingExample:
        """The batch on `device`."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> TrainingExample:
        """The batch in page-locked memory; the data loader calls this for a GPU."""
        return self.map(Tensor.pin_memory)

    def augmented(self) -> TrainingExample:
        """The sample or batch, augmented as drawn."""
        if self.drawn is None:
            return self
        labels = torch.stack([self.foreground, self.background], dim=-3)
        if isinstance(self.drawn, Draws):
            image, labels = augment_batch(self.image, labels, self.drawn)
        else:
            image, labels = augment_sample(self.image, labels, self.drawn)
        foreground, background = labels.unbind(-3)
        return replace(self, image=image, foreground=foreground, background=background, drawn=None)


def stack(examples: list[TrainingExample]) -> TrainingExample:
    """Examples as a batch: of one size, or still to be augmented, which makes them so."""
    fakes = [example.fake_foreground for example in examples if example.fake_foreground is not None]
    draws = [example.drawn for example in examples if isinstance(example.drawn, Draw)]
    join = _stack_padded if draws else torch.stack
    return TrainingExample(
        image=join([example.image for example in examples]),
        foreground=join([example.foreground for example in examples]),
        background=join([example.background for example in examples]),
        fake_foreground=torch.stack(fakes) if fakes else None,
        names=[name for example in examples for name in example.names],
        drawn=Draws.of(draws) if draws else None,
    )


def _stack_padded(tensors: list[Tensor]) -> Tensor:
    """Tensors (..., H, W) as one of the greatest height and width; what is beyond a smaller one is not looked at."""
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
        self.datasets = [_training_source(configuration, source, memory) for source in self.sources]
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
        size = (sample.image.shape[-2], sample.image.shape[-1])
        drawn = draw(size, configuration.augmentation, self._generator(number, _AUGMENTATION))
        fake = None
        if configuration.fake_masks.count > 0:
            fake = fake_mask(
                *drawn.size,
                self._generator(number, _FAKE_MASK),
                count=configuration.fake_masks.count,
                sizes=configuration.fake_masks.sizes,
            )
        example = TrainingExample(sample.image, sample.foreground, target, fake, [sample.name], drawn=drawn)
        return example.augmented() if self.augments else example

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


class DeviceBatches:
    """The batches of a loader on the training device, augmented, each in several equal parts, one after the other.

    Every part knows the pixel weights of the whole, so that gradients accumulated over the parts are exactly
    those of the undivided batch, wherever its few sidewalk pixels are.

    Args:
        loader: gives batches.
        device: where they are wanted. A GPU is not waited for.
        parts: into which each batch is divided.
        options: of the losses, for the pixel weights.
    """

    def __init__(self, loader: DataLoader, device: torch.device, parts: int, options: LossOptions):
        self.loader, self.device, self.parts, self.options = loader, device, parts, options

    def __len__(self) -> int:
        return len(self.loader) * self.parts

    def __iter__(self) -> Iterator[TrainingExample]:
        for batch in self.loader:
            batch = batch.to(self.device, non_blocking=True).augmented()
            if self.parts == 1:
                yield batch
                continue
            truth = supervision(batch.foreground, batch.background, batch.fake_foreground, self.options)
            size = len(batch.names) // self.parts
            for start in range(0, len(batch.names), size):
                rows = slice(start, start + size)
                part = batch.map(lambda tensor, rows=rows: tensor[rows])
                yield replace(part, names=batch.names[rows], totals=truth.totals() / self.parts)


class StreetData(lightning.LightningDataModule):
    """Training stream and validation sets of a configuration.

    Opening the datasets happens here, in the constructor, so that a wrong folder shows before anything else.
    """

    def __init__(self, configuration: Configuration):
        super().__init__()
        self.configuration, data = configuration, configuration.data
        self.memory = SampleMemory(int(data.cache_gigabytes * 1e9)) if data.cache == "ram" else None
        self.training_set = TrainingSet(configuration, self.memory)
        self.validation_sets = {
            name: _validation_set(configuration, source, self.memory) for name, source in data.validation.items()
        }

    def train_dataloader(self) -> DeviceBatches:
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
        device = trainer.strategy.root_device
        self.training_set.augments = not augments_on_device(self.configuration, device)
        loader = self._loader(self.training_set, batch_sampler=sampler, collate_fn=stack)
        return DeviceBatches(loader, device, data.accumulate, self.configuration.losses)

    def val_dataloader(self) -> list[DataLoader]:
        """One loader of `training.data.sample.Batch` per validation set; processes share each set."""
        loaders = []
        for name, dataset in self.validation_sets.items():
            if len(dataset) < self.trainer.world_size:
                raise ConfigurationError(
                    f"data.validation.{name} has {len(dataset)} images for {self.trainer.world_size} processes, which "
                    "would wait for each other forever: give it as many, or start fewer"
                )
            many_sizes = self.configuration.data.validation[name].dataset in _DATASETS_OF_MANY_SIZES
            shard = Subset(dataset, range(self.trainer.global_rank, len(dataset), self.trainer.world_size))
            size = 1 if many_sizes else self.configuration.data.validation_batch_size
            loaders.append(self._loader(shard, batch_size=size, collate_fn=collate))
        return loaders

    def transfer_batch_to_device(
        self, batch: Batch | TrainingExample, device: torch.device, dataloader_idx: int
    ) -> Batch | TrainingExample:
        """Without waiting, as Lightning would for anything that is not a tensor."""
        return batch.to(device, non_blocking=True)

    def _loader(self, dataset: Dataset, **options) -> DataLoader:
        workers = self.configuration.data.workers
        if workers is None:
            workers = automatic_workers(self.trainer.num_devices)
        return DataLoader(
            dataset,
            num_workers=workers,
            worker_init_fn=_quiet_worker,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
            multiprocessing_context="fork" if workers > 0 and self.memory is not None else None,
            generator=torch.Generator(),  # keeps the loader's hands off the global generator
            **options,
        )


def augments_on_device(configuration: Configuration, device: torch.device) -> bool:
    """Whether batches are augmented on the training device, not sample by sample in the loader's workers."""
    choice = configuration.data.augment_on
    if choice == "auto":
        return device.type == "cuda" and configuration.augmentation != AugmentationOptions()
    return choice == "device"


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


def open_source(configuration: Configuration, source: SourceConfig, *, manual: bool = False) -> Dataset[Sample]:
    """The whole dataset of a source, as it lies on disk: nothing pasted, nothing left out.

    Args:
        configuration: of the run.
        source: which dataset.
        manual: take the manually annotated images of Cityscapes only, where the set has such. They are for
            measuring: nothing may be trained on them.
    """
    height = configuration.network.input_height
    if source.dataset == "synthetic":
        options = {"drives": source.drives, "frames": source.frames, "seed": source.seed}
        return open_dataset("synthetic", split=source.split, height=height, **options)
    root = source.root or configuration.data.roots.get(source.dataset, "")
    if source.dataset == "cityscapes":
        return open_dataset("cityscapes", Path(root), split=source.split, height=height, manual=manual)
    return open_dataset(source.dataset, Path(root), height=height)


def _training_source(
    configuration: Configuration, source: SourceConfig, memory: SampleMemory | None
) -> Dataset[Sample]:
    dataset = _remembered(open_source(configuration, source), memory)
    if source.limit is not None:
        dataset = _evenly(dataset, source.limit)
    if source.pasted > 0:
        dataset = PastedOccluders(dataset, seed=configuration.seed, probability=source.pasted)
    return dataset


def _validation_set(configuration: Configuration, source: SourceConfig, memory: SampleMemory | None) -> Dataset[Sample]:
    dataset = _remembered(open_source(configuration, source, manual=source.pasted == 0), memory)
    # Pasted before it is thinned out, and always from the same seed: every run is validated on the same images.
    if source.pasted > 0:
        dataset = PastedOccluders(dataset, seed=0)
    return dataset if source.limit is None else _evenly(dataset, source.limit)


def _remembered(dataset: Dataset[Sample], memory: SampleMemory | None) -> Dataset[Sample]:
    return dataset if memory is None else Remembered(dataset, memory)


def _evenly(dataset: Dataset[Sample], limit: int) -> Dataset[Sample]:
    length = len(dataset)
    count = min(limit, length)
    return Subset(dataset, [index * length // count for index in range(count)])


def _quiet_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C reaches every process of the terminal; only the main one decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
