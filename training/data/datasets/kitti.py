"""KITTI semantics (`training/image_2`, `training/semantic`) with the paper's manual truth (`gt_manual`).

`gt_manual` holds background classes 0, 1, 2 and 255 for the whole image, not only behind the objects: outside
the foreground it repeats the partial background of the semantic labels, behind the foreground it is a
person's judgement of what is there. It is therefore taken as it is for the true background. (On the 100
images of `kitti_dev` the two agree on every pixel outside the foreground that the semantic labels name;
31 222 pixels of unlabeled ids carry a manual class in addition.)
"""

from __future__ import annotations

from pathlib import Path

from training.data.datasets.cityscapes import CATEGORY_NAMES, KNOWN_IDS
from training.data.datasets.photos import LabelledPhotos, require_files
from training.data.reading import DatasetError, list_photos, require_folder


class Kitti(LabelledPhotos):
    """The labelled images of KITTI semantics at network height, aspect kept: widths differ by some pixels."""

    category_names = CATEGORY_NAMES
    known_ids, wrong_ids_remedy = KNOWN_IDS, "KITTI semantics uses the Cityscapes ids 0-33"

    def __init__(self, root: str | Path, height: int = 256):
        """List the photos and find the labels, and the manual truth, of each.

        Args:
            root: folder that contains `training/image_2` and `training/semantic`, and `gt_manual` if the true
                background is known. Without `gt_manual` the samples have none.
            height: image height in pixels.

        Raises:
            DatasetError: a folder, all photos, a label file or a file of an existing `gt_manual` are missing.
        """
        super().__init__(root, height)
        remedy = "root must hold training/image_2 and training/semantic, as unpacked from data_semantics.zip"
        require_folder(self.root, f"{remedy}; give the right --root")
        photo_folder = require_folder(self.root / "training" / "image_2", remedy)
        label_folder = require_folder(self.root / "training" / "semantic", remedy)
        self.photos = list_photos(photo_folder)
        if not self.photos:
            raise DatasetError(f"{photo_folder}: no .png or .jpg photos: unpack data_semantics.zip again")
        names = [f"{photo.stem}.png" for photo in self.photos]
        self.labels = require_files(
            [label_folder / name for name in names], "unpack data_semantics.zip into the same root"
        )
        manual_folder = self.root / "gt_manual"
        if manual_folder.is_dir():
            self.truths = require_files(
                [manual_folder / name for name in names], "complete gt_manual, or take the folder away to go without"
            )
