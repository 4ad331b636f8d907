"""One's own robot: a folder with `images/`, `labels/` and `classes.yaml`, a map from label ids to classes.

    images/0001.jpg      any size, .png or .jpg
    labels/0001.png      same name and size, one channel of 8-bit ids
    background/0001.png  optional: what lies behind the objects, 0 road, 1 sidewalk, 2 other, 255 where nobody knows
    classes.yaml

`classes.yaml` names every id that occurs in the labels; an id that it does not name is an error, because a
forgotten class would otherwise train as "unknown" without anybody noticing:

    background:
      road: [1]
      sidewalk: [2, 3]
      other: [4, 5, 6]
    foreground: [10, 11]
    ignore: [0, 255]            # optional
    names: {10: pedestrian, 11: forklift}    # optional, for scores by object category
    kinds: {person: [10], vehicle: [11]}     # optional, of foreground ids: person, two-wheeler, vehicle

Foreground ids that `kinds` leaves out train and score the mask, and not what kind of object it is.

`background/` is what `sfi map --labels` writes: true background from the drives of one's own robot, without an
annotator. Where it is 255, what the labels say of visible pixels stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sfi_ros.classes import BACKGROUND_CLASSES, FOREGROUND_CLASSES, IGNORE, class_lookup
from training import yaml_text
from training.data.datasets.photos import LabelledPhotos, require_files
from training.data.reading import DatasetError, LabelMap, known_id_table, list_photos, require_folder
from training.data.sample import Sample


@dataclass(frozen=True)
class ClassMap:
    """What `classes.yaml` says: class of background ids, foreground ids, ignored ids, names, kind of foreground ids."""

    background: dict[int, int]
    foreground: tuple[int, ...]
    ignore: tuple[int, ...]
    names: dict[int, str]
    kinds: dict[int, int]

    @classmethod
    def read(cls, path: Path) -> ClassMap:
        """Read and check a class map.

        Raises:
            DatasetError: the file is missing or not as this module's docstring says.
        """
        if not path.is_file():
            raise DatasetError(f"{path} is missing: write one with background, foreground and ignore lists of ids")
        try:
            content = yaml_text.parse(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise DatasetError(f"{path}: not valid YAML: {error}") from error
        if not isinstance(content, Mapping):
            raise DatasetError(f"{path}: expected a mapping with the keys background, foreground and ignore")
        if unexpected := sorted(map(str, set(content) - {"background", "foreground", "ignore", "names", "kinds"})):
            raise DatasetError(
                f"{path}: unknown key {', '.join(unexpected)}: use background, foreground, ignore, names and kinds"
            )
        groups = content.get("background")
        if not isinstance(groups, Mapping) or set(groups) != set(BACKGROUND_CLASSES):
            raise DatasetError(
                f"{path}: 'background' must map exactly {', '.join(BACKGROUND_CLASSES)} to lists of ids "
                "(an empty list is allowed)"
            )
        background = _classes(groups, BACKGROUND_CLASSES, path, "background")
        foreground = _ids(content.get("foreground"), path, "foreground")
        ignore = _ids(content.get("ignore") or [], path, "ignore")
        every = [i for name in BACKGROUND_CLASSES for i in groups[name]] + [*foreground, *ignore]
        if twice := sorted({label_id for label_id in every if every.count(label_id) > 1}):
            raise DatasetError(f"{path}: id {twice[0]} is listed twice: give every id one class")
        names = content.get("names") or {}
        if not isinstance(names, Mapping) or not set(names) <= set(every):
            raise DatasetError(f"{path}: 'names' must map listed ids to names, e.g. {{10: person}}")
        groups = content.get("kinds") or {}
        if not isinstance(groups, Mapping) or not set(groups) <= set(FOREGROUND_CLASSES):
            raise DatasetError(f"{path}: 'kinds' must map some of {', '.join(FOREGROUND_CLASSES)} to lists of ids")
        kinds = _classes(groups, FOREGROUND_CLASSES, path, "kinds")
        if len(kinds) < sum(map(len, groups.values())) or not set(kinds) <= set(foreground):
            raise DatasetError(f"{path}: 'kinds' must give ids of 'foreground' one kind each")
        return cls(background, foreground, ignore, {int(k): str(v) for k, v in names.items()}, kinds)

    def label_map(self) -> LabelMap:
        """Return the lookup tables of this class map."""
        foreground = np.zeros(256, dtype=np.uint8)
        foreground[list(self.foreground)] = 1
        return LabelMap(foreground, class_lookup(self.background), class_lookup(self.kinds))


class Folder(LabelledPhotos):
    """Photos and label images of any source at network height, aspect kept.

    The true background is that of `background/`; None where there is no such folder.
    """

    wrong_truth_remedy = "it has 0 road, 1 sidewalk, 2 other and 255"

    def __init__(self, root: str | Path, height: int = 256):
        """Read the class map, list the photos and find the labels of each.

        Args:
            root: folder with `images/`, `labels/` and `classes.yaml`, and maybe `background/`.
            height: image height in pixels.

        Raises:
            DatasetError: a folder, all photos, a label file or the class map are missing or wrong.
        """
        super().__init__(root, height)
        remedy = "root must hold images/, labels/ and classes.yaml"
        require_folder(self.root, f"{remedy}; give the right --root")
        photo_folder = require_folder(self.root / "images", remedy)
        label_folder = require_folder(self.root / "labels", remedy)
        self.class_map = ClassMap.read(self.root / "classes.yaml")
        self.photos = list_photos(photo_folder)
        if not self.photos:
            raise DatasetError(f"{photo_folder}: no .png or .jpg photos: put the camera's images there")
        names = [f"{photo.stem}.png" for photo in self.photos]
        self.labels = require_files(
            [label_folder / name for name in names], "add it, or take the photo of that name away"
        )
        if (folder := self.root / "background").is_dir():
            self.truths = require_files(
                [folder / name for name in names], "add it, or take the folder away to go without"
            )
        ids = {*self.class_map.background, *self.class_map.foreground, *self.class_map.ignore}
        self.known_ids = known_id_table(ids)
        self.wrong_ids_remedy = f"add it to a class or to ignore in {self.root / 'classes.yaml'}"
        self.label_map = self.class_map.label_map()
        self.category_names = {i: self.class_map.names.get(i, f"id {i}") for i in self.class_map.foreground}

    def __getitem__(self, index: int) -> Sample:
        """Read a photo with its labels; what `background/` does not know is known where it is seen."""
        sample = super().__getitem__(index)
        if (truth := sample.true_background) is not None:
            sample.true_background = torch.where(truth == IGNORE, sample.partial_background, truth)
        return sample


def _classes(groups: Mapping[str, Any], names: Sequence[str], path: Path, key: str) -> dict[int, int]:
    """Return id -> index of its name, of lists of ids by name."""
    return {
        label_id: index
        for index, name in enumerate(names)
        for label_id in _ids(groups.get(name, []), path, f"{key}: {name}")
    }


def _ids(value: Any, path: Path, key: str) -> tuple[int, ...]:
    good = isinstance(value, list) and all(type(i) is int and 0 <= i <= 255 for i in value)
    if not good:
        raise DatasetError(f"{path}: '{key}' must be a list of ids between 0 and 255, got {value!r}")
    return tuple(value)
