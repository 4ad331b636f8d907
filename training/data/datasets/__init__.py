"""Labelled street images, each dataset read as it was downloaded; `open_dataset` finds one by its name."""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import Dataset

from training.data.datasets.cityscapes import Cityscapes
from training.data.datasets.folder import Folder
from training.data.datasets.kitti import Kitti
from training.data.datasets.synthetic import Synthetic
from training.data.reading import DatasetError
from training.data.sample import Sample

DATASETS = {"cityscapes": Cityscapes, "kitti": Kitti, "folder": Folder, "synthetic": Synthetic}
DATASET_NAMES = tuple(DATASETS)

__all__ = ["DATASETS", "DATASET_NAMES", "Cityscapes", "DatasetError", "Folder", "Kitti", "Synthetic", "open_dataset"]


def open_dataset(
    name: str,
    root: str | Path | None = None,
    split: str | None = None,
    height: int = 256,
    **options: int | bool | str | Path,
) -> Dataset[Sample]:
    """Open a dataset by name.

    Args:
        name: one of `DATASET_NAMES`.
        root: the folder it lies in; not used by `synthetic`.
        split: `train`, `val` … for cityscapes and synthetic (default `val`); kitti and folder have none.
        height: image height in pixels.
        options: further arguments of the dataset's class (`manual` of cityscapes; `drives`, `frames`, `seed`, `step`
            of synthetic).

    Raises:
        DatasetError: an unknown name, a split that the dataset does not have, a missing root, or whatever the
            dataset finds wrong with its files.
    """
    kind = DATASETS.get(name)
    if kind is None:
        raise DatasetError(f"unknown dataset '{name}': choose one of {', '.join(DATASET_NAMES)}")
    if kind.has_root:
        if root is None:
            raise DatasetError(f"dataset '{name}' needs a root: give the folder that it lies in")
        options["root"] = root
    if kind.has_splits:
        options["split"] = split or "val"
    elif split is not None:
        raise DatasetError(f"dataset '{name}' has no splits: leave the split '{split}' out")
    return kind(height=height, **options)
