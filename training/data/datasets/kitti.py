"""KITTI semantics (`training/image_2`, `training/semantic`) with the paper's manual truth (`gt_manual`).

`gt_manual` holds background classes 0, 1, 2 and 255 for the whole image, not only behind the objects: outside
the foreground it repeats the partial background of the semantic labels, behind the foreground it is a
person's judgement of what is there. It is therefore taken as it is for the true background. (On the 100
images of `kitti_dev` the two agree on every pixel outside the foreground that the semantic labels name;
31 222 pixels of unlabeled ids carry a manual class in addition.)
"""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import Dataset

from sfi_ros.network.image_format import network_size
from training.data.datasets.cityscapes import CATEGORY_NAMES, KNOWN_IDS
from training.data.reading import (
    MANUAL_IDS,
    MANUAL_REMEDY,
    DatasetError,
    LabelMap,
    list_photos,
    read_labelled_photo,
    read_labels,
    require_folder,
    require_known_ids,
    require_same_size,
    resize_labels,
    resize_photo,
)
from training.data.sample import Sample


class Kitti(Dataset[Sample]):
    """The labelled images of KITTI semantics at network height, aspect kept: widths differ by some pixels."""

    category_names = CATEGORY_NAMES

    def __init__(self, root: str | Path, height: int = 256):
        """List the photos and find the labels, and the manual truth, of each.

        Args:
            root: folder that contains `training/image_2` and `training/semantic`, and `gt_manual` if the true
                background is known. Without `gt_manual` the samples have none.
            height: image height in pixels.

        Raises:
            DatasetError: a folder, all photos, a label file or a file of an existing `gt_manual` are missing.
        """
        self.root, self.height = Path(root), height
        remedy = "root must hold training/image_2 and training/semantic, as unpacked from data_semantics.zip"
        require_folder(self.root, f"{remedy}; give the right --root")
        photo_folder = require_folder(self.root / "training" / "image_2", remedy)
        label_folder = require_folder(self.root / "training" / "semantic", remedy)
        self.photos = list_photos(photo_folder)
        if not self.photos:
            raise DatasetError(f"{photo_folder}: no .png or .jpg photos: unpack data_semantics.zip again")
        self.labels = _partners(self.photos, label_folder, "unpack data_semantics.zip into the same root")
        self.manual: list[Path] | None = None
        manual_folder = self.root / "gt_manual"
        if manual_folder.is_dir():
            self.manual = _partners(
                self.photos, manual_folder, "complete gt_manual, or take the folder away to go without"
            )
        self._map = LabelMap()

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Sample:
        photo_path, remedy = self.photos[index], "KITTI semantics uses the Cityscapes ids 0-33"
        photo, labels = read_labelled_photo(photo_path, self.labels[index], KNOWN_IDS, remedy)
        size = network_size(photo.shape[1], photo.shape[2], self.height)
        truth = None
        if self.manual is not None:
            truth = read_labels(self.manual[index])
            require_same_size(truth, self.manual[index], photo, photo_path)
            require_known_ids(truth, self.manual[index], MANUAL_IDS, MANUAL_REMEDY)
            truth = resize_labels(truth, size)
        return self._map.sample(
            resize_photo(photo, size), resize_labels(labels, size), photo_path.stem, true_background=truth
        )


def _partners(photos: list[Path], folder: Path, remedy: str) -> list[Path]:
    partners = [folder / f"{photo.stem}.png" for photo in photos]
    present = set(folder.glob("*.png"))
    missing = [path for path in partners if path not in present]
    if missing:
        raise DatasetError(f"{missing[0]} is missing ({len(missing)} of {len(partners)} are): {remedy}")
    return partners
