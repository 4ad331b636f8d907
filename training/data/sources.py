"""The datasets that a configuration names: opened, kept in memory, pasted onto, thinned out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch.utils.data import Dataset, Subset

from training.configuration import Configuration, SourceConfig
from training.data.cache import Remembered, SampleMemory
from training.data.datasets import open_dataset
from training.data.pasted_occluders import PastedOccluders
from training.data.sample import Sample


class WithoutTruth(Dataset[Sample]):
    """A dataset whose samples do not tell what lies behind their objects."""

    def __init__(self, dataset: Dataset[Sample]):
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        return replace(self._dataset[index], true_background=None)


def open_source(configuration: Configuration, source: SourceConfig, *, manual: bool = False) -> Dataset[Sample]:
    """Open the whole dataset of a source, as it lies on disk: nothing pasted, nothing left out.

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


def training_source(configuration: Configuration, source: SourceConfig, memory: SampleMemory | None) -> Dataset[Sample]:
    """Open a training source, objects pasted as it says."""
    dataset = _remembered(open_source(configuration, source), memory)
    if not source.true_background:
        dataset = WithoutTruth(dataset)
    if source.limit is not None:
        dataset = evenly(dataset, source.limit)
    if source.pasted > 0:
        dataset = PastedOccluders(dataset, seed=configuration.seed, probability=source.pasted)
    return dataset


def validation_set(configuration: Configuration, source: SourceConfig, memory: SampleMemory | None) -> Dataset[Sample]:
    """Open a validation set, the same in every run."""
    dataset = _remembered(open_source(configuration, source, manual=source.pasted == 0), memory)
    # Pasted before it is thinned out, and always from the same seed: every run is validated on the same images.
    if source.pasted > 0:
        dataset = PastedOccluders(dataset, seed=0)
    return dataset if source.limit is None else evenly(dataset, source.limit)


def _remembered(dataset: Dataset[Sample], memory: SampleMemory | None) -> Dataset[Sample]:
    return dataset if memory is None else Remembered(dataset, memory)


def evenly(dataset: Dataset[Sample], limit: int) -> Dataset[Sample]:
    """Return some of a dataset, spread over it: the first images of a set are often all of one street."""
    length = len(dataset)
    count = min(limit, length)
    return Subset(dataset, [index * length // count for index in range(count)])
