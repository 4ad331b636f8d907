"""What datasets of photos have in common: for each photo a file of labels and, where it is known, of the background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from sfi_ros.network.image_format import network_size
from training.data.reading import (
    BACKGROUND_IDS,
    DatasetError,
    LabelMap,
    read_labelled_photo,
    read_labels,
    require_known_ids,
    require_same_size,
    resize_labels,
    resize_photo,
)
from training.data.sample import Sample


class LabelledPhotos(Dataset[Sample]):
    """Photos at network height, aspect kept, so that widths may differ.

    Subclasses find the files.

    Attributes:
        root: folder of the dataset.
        height: of the samples, pixels.
        photos, labels: files of one length.
        truths: files of the true background, 0 road, 1 sidewalk, 2 other, 255; None where it is not known.
        known_ids: bool (256,), ids that may occur in labels.
        wrong_ids_remedy, wrong_truth_remedy: what to do about others, there and in `truths`.
        label_map: what the ids mean.
        has_root, has_splits: whether `open_dataset` hands these to the class.
        stretched: every image is stretched to (height, 2·height) whatever the size of its file, so that all have one.
    """

    photos: list[Path]
    labels: list[Path]
    truths: list[Path] | None = None
    known_ids: Tensor
    wrong_ids_remedy: str
    wrong_truth_remedy = "gt_manual has 0 road, 1 sidewalk, 2 other and 255"
    label_map = LabelMap()
    has_root, has_splits, stretched = True, False, False

    def __init__(self, root: str | Path, height: int):
        self.root, self.height = Path(root), height

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Sample:
        path = self.photos[index]
        photo, labels = read_labelled_photo(path, self.labels[index], self.known_ids, self.wrong_ids_remedy)
        if self.stretched:
            size = (self.height, 2 * self.height)
        else:
            size = network_size(photo.shape[1], photo.shape[2], self.height)
        truth = None
        if self.truths is not None:
            truth = read_labels(self.truths[index])
            if not self.stretched:
                require_same_size(truth, self.truths[index], photo, path)
            require_known_ids(truth, self.truths[index], BACKGROUND_IDS, self.wrong_truth_remedy)
            truth = resize_labels(truth, size)
        return self.label_map.sample(
            resize_photo(photo, size), resize_labels(labels, size), self.name_of(path), true_background=truth
        )

    def name_of(self, photo: Path) -> str:
        """Return the name of the sample that is made from a photo."""
        return photo.stem


def require_files(paths: Sequence[Path], remedy: str) -> list[Path]:
    """Return the paths, or raise a `DatasetError` that names the first of them that does not exist."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DatasetError(f"{missing[0]} is missing ({len(missing)} of {len(paths)} are): {remedy}")
    return list(paths)
