"""Cityscapes as downloaded: photos below `leftImg8bit/<split>/<city>`, labels below `gtFine/<split>/<city>`, and the
paper authors' annotation of what is behind the foreground below `gt_manual/<split>/<city>`, where there is one.

The camera is 2:1. Every image is stretched to (height, 2·height) whatever the size of its file, so that
copies that were squeezed to a square (256x256, say) give the same geometry as the official 2048x1024 files,
only with less detail.
"""

from __future__ import annotations

from pathlib import Path

from training.data.datasets.photos import LabelledPhotos, require_files
from training.data.reading import DatasetError, known_id_table, list_photos, require_folder

CATEGORY_NAMES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    29: "caravan",
    30: "trailer",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""Foreground ids of the Cityscapes label definition and their names."""

# 255 is how 8-bit files store id -1 (license plate); void pixels of resampled copies carry it as well.
KNOWN_IDS = known_id_table([*range(34), 255])
WRONG_IDS_REMEDY = "Cityscapes label ids are 0-33; use the *_labelIds.png files"


class Cityscapes(LabelledPhotos):
    """One split of Cityscapes with fine labels, at (height, 2·height).

    Where `gt_manual/<split>` exists, the split is those of its images that have a `<name>_gt_manual.png` there (0 road,
    1 sidewalk, 2 other, 255, for the whole image), and that is their true background. Elsewhere nobody annotated what
    is behind the objects: the true background is None.
    """

    category_names = CATEGORY_NAMES
    known_ids, wrong_ids_remedy = KNOWN_IDS, WRONG_IDS_REMEDY
    has_splits = stretched = True

    def __init__(self, root: str | Path, split: str = "train", height: int = 256, *, manual: bool = True):
        """List the photos of a split and find the labels of each.

        Args:
            root: folder that contains `leftImg8bit` and `gtFine`.
            split: `train` or `val` (any folder of that name will do).
            height: image height in pixels; the width is twice that.
            manual: use `gt_manual/<split>` where it exists; else the whole split, without true background.

        Raises:
            DatasetError: a folder, all photos or a label file are missing, or no image has the manual annotation.
        """
        super().__init__(root, height)
        self.split = split
        remedy = "root must hold leftImg8bit/ and gtFine/, as unpacked from the Cityscapes downloads"
        require_folder(self.root, f"{remedy}; give the right --root")
        photo_folder = require_folder(self.root / "leftImg8bit", remedy)
        label_folder = require_folder(self.root / "gtFine", remedy)
        splits = sorted(path.name for path in photo_folder.iterdir() if path.is_dir())
        require_folder(photo_folder / split, f"choose a split that is there: {', '.join(splits) or 'none is'}")
        self.photos = list_photos(photo_folder / split, "*/*_leftImg8bit.*")
        if not self.photos:
            raise DatasetError(
                f"{photo_folder / split}: no <city>/*_leftImg8bit.png or .jpg: unpack leftImg8bit_trainvaltest.zip"
            )
        manual_folder = self.root / "gt_manual" / split
        if manual and manual_folder.is_dir():
            self._keep_annotated(manual_folder)
        self.labels = require_files(
            [
                label_folder / split / photo.parent.name / f"{_scene_name(photo)}_gtFine_labelIds.png"
                for photo in self.photos
            ],
            "unpack gtFine_trainvaltest.zip into the same root",
        )

    def name_of(self, photo: Path) -> str:
        """Return the split and the name of the scene."""
        return f"{self.split}/{_scene_name(photo)}"

    def _keep_annotated(self, folder: Path) -> None:
        present = set(folder.glob("*/*_gt_manual.png"))
        annotated = {
            photo: path
            for photo in self.photos
            if (path := folder / photo.parent.name / f"{_scene_name(photo)}_gt_manual.png") in present
        }
        if not annotated:
            raise DatasetError(
                f"{folder}: holds no <city>/<name>_gt_manual.png of a photo of this split: complete it, or take the "
                "folder away to go without"
            )
        self.photos, self.truths = list(annotated), list(annotated.values())


def _scene_name(photo: Path) -> str:
    return photo.stem.removesuffix("_leftImg8bit")
