"""The data of a run: datasets opened, batches of the training stream, loaders of the validation sets."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator

import torch
from lightning.fabric import Fabric
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from training.configuration import Configuration, ConfigurationError
from training.data.cache import SampleMemory
from training.data.datasets import DATASETS
from training.data.sample import collate
from training.data.sources import validation_set
from training.data.stream import TrainingExample, TrainingSet, stack


class TrainingData:
    """Training stream and validation sets of a configuration.

    Opening the datasets happens here, in the constructor, so that a wrong folder shows before anything else.

    Attributes:
        training_set: the stream of training examples.
        validation_sets: by name; the first one chooses the best checkpoint.
        memory: where decoded samples are kept; None without a cache.
    """

    def __init__(self, configuration: Configuration):
        self.configuration, data = configuration, configuration.data
        self.memory = SampleMemory(int(data.cache_gigabytes * 1e9)) if data.cache == "ram" else None
        self.training_set = TrainingSet(configuration, self.memory)
        self.validation_sets = {
            name: validation_set(configuration, source, self.memory) for name, source in data.validation.items()
        }

    def training_batches(self, fabric: Fabric, first_step: int, last_step: int | None) -> Iterator[TrainingExample]:
        """Yield this process's share of every step's batch, on its device and augmented; a GPU is not waited for.

        Args:
            fabric: says which process this is.
            first_step: how many steps have been made.
            last_step: of the run; None where nobody knows it yet.

        Raises:
            ConfigurationError: the batch cannot be divided among the processes.
        """
        data, processes = self.configuration.data, fabric.world_size
        if data.batch_size % (data.accumulate * processes):
            raise ConfigurationError(
                f"data.batch_size={data.batch_size} cannot be shared by {processes} processes "
                f"x data.accumulate={data.accumulate}: make it a multiple of {data.accumulate * processes}"
            )
        sampler = StepBatches(
            data.batch_size,
            processes=processes,
            rank=fabric.global_rank,
            first_step=first_step,
            last_step=last_step,
        )
        self.training_set.augments = data.augment_on == "cpu"
        loader = self._loader(fabric, self.training_set, batch_sampler=sampler, collate_fn=stack)
        return (batch.to(fabric.device, non_blocking=True).augmented() for batch in loader)

    def validation_loaders(self, fabric: Fabric) -> dict[str, DataLoader]:
        """Return a loader of `training.data.sample.Batch` per validation set; processes share each set.

        Raises:
            ConfigurationError: a set has fewer images than there are processes.
        """
        loaders = {}
        for name, dataset in self.validation_sets.items():
            if len(dataset) < fabric.world_size:
                raise ConfigurationError(
                    f"data.validation.{name} has {len(dataset)} images for {fabric.world_size} processes, which "
                    "would wait for each other forever: give it as many, or start fewer"
                )
            one_size = DATASETS[self.configuration.data.validation[name].dataset].stretched
            shard = Subset(dataset, range(fabric.global_rank, len(dataset), fabric.world_size))
            size = self.configuration.data.validation_batch_size if one_size else 1
            loaders[name] = self._loader(fabric, shard, batch_size=size, collate_fn=collate)
        return loaders

    def _loader(self, fabric: Fabric, dataset: Dataset, **options) -> DataLoader:
        workers = self.configuration.data.workers
        if workers is None:
            here = int(os.environ.get("LOCAL_WORLD_SIZE", fabric.world_size // self.configuration.run.nodes))
            workers = automatic_workers(here)
        return DataLoader(
            dataset,
            num_workers=workers,
            worker_init_fn=_quiet_worker,
            pin_memory=fabric.device.type == "cuda",
            multiprocessing_context="fork" if workers > 0 and self.memory is not None else None,
            generator=torch.Generator(),  # keeps the loader's hands off the global generator
            **options,
        )


class StepBatches(Sampler[list[int]]):
    """The sample numbers of every batch of this process, from a step on.

    Args:
        batch_size: of one optimizer step.
        processes: that share it.
        rank: of this process.
        first_step: the optimizer step to begin with.
        last_step: where the run ends; None never ends.
    """

    def __init__(self, batch_size: int, *, processes: int, rank: int, first_step: int, last_step: int | None):
        self.part, self.rank, self.batch_size = batch_size // processes, rank, batch_size
        self.first_step, self.last_step = first_step, last_step

    def __iter__(self) -> Iterator[list[int]]:
        steps = itertools.count(self.first_step) if self.last_step is None else range(self.first_step, self.last_step)
        for step in steps:
            start = step * self.batch_size + self.rank * self.part
            yield list(range(start, start + self.part))


def automatic_workers(processes: int) -> int:
    """Loader processes per training process of this machine: all cores but one, shared, at most 12."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return max(1, min(12, (cores - 1) // max(1, processes)))


def _quiet_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C reaches every process of the terminal; only the main one decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
