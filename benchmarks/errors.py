r"""Where a network is wrong: sidewalk by distance and size, what it is taken for, and the mask by kind and size.

    .venv/bin/python benchmarks/errors.py --cityscapes ../shared/data/cityscapes_256 --kitti ../shared/data/kitti_dev \
        --folder ../shared/data/idd_lite/train

"Hidden" pixels lie behind a true object, "seen" ones do not. Metres are those of a flat ground at the pixel's row, by
the `calibration.yaml` of the set. Sizes are shares of the image, of one connected piece of sidewalk or one object.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import tables
from sfi_ros.classes import BACKGROUND_CLASSES, FOREGROUND_THRESHOLD
from sfi_ros.frames.decoding import decode_photo
from sfi_ros.inference import DEFAULT_WEIGHTS
from sfi_ros.network import checkpoint
from sfi_ros.scores import confusion_matrix
from training.data.datasets import Cityscapes, Folder, Kitti
from training.data.sample import Sample, collate
from training.measuring.evaluation import PRECISIONS, Runner
from training.measuring.metrics import object_area

ROAD, SIDEWALK, OTHER = (BACKGROUND_CLASSES.index(name) for name in ("road", "sidewalk", "other"))
METRES = (0, 8, 15, 30, np.inf)
PIECES = (0.0, 0.001, 0.01, 1.1)  # of sidewalk
OBJECTS = (0.0, 0.0004, 0.002, 0.016, 1.1)

LABELS = (
    *("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road"),
    *("sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole"),
    *("pole group", "traffic light", "traffic sign", "vegetation", "terrain", "sky"),
)
"""Names of the label ids of Cityscapes and KITTI that are no objects, from 0."""

SIDEWALKS = (
    tables.Column("set", "set", identity=True),
    tables.Column("region", "sidewalk", identity=True),
    tables.Column("where", "where", identity=True),
    tables.Column("iou", "IoU", ".3f"),
    tables.Column("recall", "found", ".0%"),
    tables.Column("as_road", "called road", ".0%"),
    tables.Column("as_other", "called other", ".0%"),
    tables.Column("precision", "right where it is said", ".0%"),
    tables.Column("of_road", "is road", ".0%"),
    tables.Column("of_other", "is other", ".0%"),
    tables.Column("share", "of all sidewalk", ".0%"),
)
LABELLED = (
    tables.Column("set", "set", identity=True),
    tables.Column("label", "label", identity=True),
    tables.Column("said", "called sidewalk", ".1%"),
    tables.Column("share", "of all that is called sidewalk", ".1%"),
)
MASKS = (
    tables.Column("set", "set", identity=True),
    tables.Column("category", "kind", identity=True),
    tables.Column("size", "size", identity=True),
    tables.Column("recall", "of its pixels found", ".0%"),
    tables.Column("share", "of all that is missed", ".0%"),
)
FALSE_MASKS = (
    tables.Column("set", "set", identity=True),
    tables.Column("label", "label", identity=True),
    tables.Column("share", "of all pixels of the mask that are wrong", ".1%"),
)


@dataclass
class Errors:
    """What was counted on one set.

    Attributes:
        confusions: (region, where) -> (3, 3) pixels, truth in rows.
        labels: label id -> pixels seen, and those of them that are called sidewalk.
        objects: (category, size) -> pixels, and those of them in the mask.
        false_masks: label id -> pixels of the mask.
    """

    confusions: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    labels: dict[int, np.ndarray] = field(default_factory=dict)
    objects: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    false_masks: Counter[int] = field(default_factory=Counter)

    def add_background(self, sample: Sample, predicted: np.ndarray, metres: np.ndarray) -> None:
        """Count classes; `metres` (H,) of the ground at each row, infinite above the horizon."""
        assert sample.true_background is not None
        truth, hidden = sample.true_background.numpy(), sample.foreground.numpy() == 1
        piece = object_area(torch.from_numpy((truth == SIDEWALK)[None]))[0].numpy() / truth.size
        distance = np.broadcast_to(metres[:, None], truth.shape)
        for region, where in (("hidden", hidden), ("seen", ~hidden)):
            places = {"all": where}
            places |= {
                f"{low:g}-{high:g} m": where & (distance >= low) & (distance < high) for low, high in pairwise(METRES)
            }
            for low, high in pairwise(PIECES):  # of what is no sidewalk nobody can say how large it is
                places[f"{_percent(low, high)} of the image"] = (
                    where & (truth == SIDEWALK) & (piece > low) & (piece <= high)
                )
            for name, pixels in places.items():
                counted = confusion_matrix(truth[pixels], predicted[pixels])
                self.confusions[region, name] = self.confusions.get((region, name), 0) + counted
        labels = sample.categories.numpy()[~hidden]
        said = predicted[~hidden] == SIDEWALK
        for label in np.unique(labels):
            here = labels == label
            self.labels[int(label)] = self.labels.get(int(label), 0) + np.array([here.sum(), (here & said).sum()])

    def add_mask(self, sample: Sample, mask: np.ndarray, names: Mapping[int, str]) -> None:
        """Count objects that are missed, and what is taken for one."""
        labels = sample.categories.numpy()
        for label, name in names.items():
            pixels = labels == label
            if not pixels.any():
                continue
            size = object_area(torch.from_numpy(pixels[None]))[0].numpy() / pixels.size
            for low, high in pairwise(OBJECTS):
                here = pixels & (size > low) & (size <= high)
                key = name, _percent(low, high)
                self.objects[key] = self.objects.get(key, 0) + np.array([here.sum(), (here & mask).sum()])
        self.false_masks.update(labels[mask & (sample.foreground.numpy() == 0)].tolist())

    def sidewalk_rows(self, name: str) -> Iterator[tables.Row]:
        """Yield the rows of `SIDEWALKS`."""
        for (region, where), counts in self.confusions.items():
            true, said, both = counts[SIDEWALK].sum(), counts[:, SIDEWALK].sum(), counts[SIDEWALK, SIDEWALK]
            row = {
                "set": name,
                "region": region,
                "where": where,
                "recall": _share(both, true),
                "as_road": _share(counts[SIDEWALK, ROAD], true),
                "as_other": _share(counts[SIDEWALK, OTHER], true),
                "share": _share(true, sum(self.confusions[one, "all"][SIDEWALK].sum() for one in ("hidden", "seen"))),
            }
            if "image" not in where:
                row |= {
                    "iou": _share(both, true + said - both),
                    "precision": _share(both, said),
                    "of_road": _share(counts[ROAD, SIDEWALK], said),
                    "of_other": _share(counts[OTHER, SIDEWALK], said),
                }
            yield row

    def label_rows(self, name: str, names: Mapping[int, str]) -> Iterator[tables.Row]:
        """Yield the rows of `LABELLED`: what is called sidewalk most."""
        said = sum(counts[1] for counts in self.labels.values())
        for label, (pixels, called) in sorted(self.labels.items(), key=lambda item: -item[1][1])[:8]:
            label_name = names.get(label, f"id {label}")
            yield {"set": name, "label": label_name, "said": _share(called, pixels), "share": _share(called, said)}

    def object_rows(self, name: str) -> Iterator[tables.Row]:
        """Yield the rows of `MASKS`."""
        missed = sum(pixels - found for pixels, found in self.objects.values())
        for (category, size), (pixels, found) in self.objects.items():
            if pixels:
                recall, share = _share(found, pixels), _share(pixels - found, missed)
                yield {"set": name, "category": category, "size": size, "recall": recall, "share": share}

    def false_rows(self, name: str, names: Mapping[int, str]) -> Iterator[tables.Row]:
        """Yield the rows of `FALSE_MASKS`: what is taken for an object most."""
        by_name: Counter[str] = Counter()
        for label, pixels in self.false_masks.items():
            by_name[names.get(label, f"id {label}")] += pixels
        for label_name, pixels in by_name.most_common(6):
            yield {"set": name, "label": label_name, "share": _share(pixels, by_name.total())}


def ground_metres(height: int, fy: float, cy: float, camera_height: float, pitch: float) -> np.ndarray:
    """Return how far ahead the flat ground is at each row of an image, (height,) metres, infinite above the horizon.

    Args:
        height: of the image, in pixels.
        fy, cy: of the camera, in these pixels.
        camera_height: over the ground, metres.
        pitch: radians, positive when the camera looks down.
    """
    down = np.tan(np.arctan((np.arange(height) + 0.5 - cy) / fy) + pitch)
    return np.divide(camera_height, down, out=np.full(height, np.inf), where=down > 0)


def cityscapes_metres(dataset: Cityscapes, height: int) -> Callable[[int], np.ndarray]:
    """Return a function from the number of a sample to `ground_metres`."""
    facts = yaml.safe_load((dataset.root / "calibration.yaml").read_text(encoding="utf-8"))
    camera, scale = facts["intrinsics"], height / facts["intrinsics"]["height"]
    pose = facts["extrinsics"]
    metres = ground_metres(height, camera["fy"] * scale, camera["cy"] * scale, pose["z"], pose["pitch"])
    return lambda _: metres


def kitti_metres(dataset: Kitti, height: int) -> Callable[[int], np.ndarray]:
    """Return the same for KITTI, whose cameras are told by the width of the photo."""
    facts = yaml.safe_load((dataset.root / "calibration.yaml").read_text(encoding="utf-8"))

    def metres(number: int) -> np.ndarray:
        photo_height, width, _ = decode_photo(dataset.photos[number].read_bytes()).shape
        _, fy, _, cy = facts["intrinsics"][width]
        scale = height / photo_height
        return ground_metres(height, fy * scale, cy * scale, facts["height_over_ground"], facts["pitch"])

    return metres


def _percent(low: float, high: float) -> str:
    return f"over {100 * low:g} %" if high > 1 else f"{100 * low:g}-{100 * high:g} %"


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def label_names(dataset: Cityscapes | Kitti | Folder) -> dict[int, str]:
    """Return what the label ids are called that are no objects."""
    if not isinstance(dataset, Folder):
        return dict(enumerate(LABELS))
    ids = dataset.class_map
    names = {label: BACKGROUND_CLASSES[number] for label, number in ids.background.items()}
    return {**dict.fromkeys(ids.ignore, "ignored"), **names, **ids.names}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS)
    parser.add_argument("--cityscapes", type=Path, metavar="ROOT", help="Cityscapes with gt_manual of val")
    parser.add_argument("--kitti", type=Path, metavar="ROOT", help="KITTI semantics with gt_manual")
    parser.add_argument("--folder", type=Path, metavar="ROOT", help="images, labels and classes.yaml: the mask only")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--limit", type=int, help="images of each set, evenly spread")
    tables.add_options(parser)
    options = parser.parse_args(arguments)
    if not (options.cityscapes or options.kitti or options.folder):
        parser.error("give a set to look at: --cityscapes, --kitti or --folder")
    loaded = checkpoint.load(options.weights)
    height, runner = loaded.metadata.input_height, Runner(loaded.network, options.device, options.precision)
    name = options.weights.name
    sidewalks = tables.Table("sidewalk", f"Sidewalk, {name}", SIDEWALKS)
    labels = tables.Table("labels", f"What is called sidewalk, of what is seen, {name}", LABELLED)
    masks = tables.Table("mask", f"Objects, {name}", MASKS)
    false_masks = tables.Table("false mask", f"What is taken for an object, {name}", FALSE_MASKS)
    sets: list[tuple[str, Cityscapes | Kitti | Folder, Callable[[int], np.ndarray] | None]] = []
    if options.cityscapes:
        streets = Cityscapes(options.cityscapes, "val", height)
        sets.append(("Cityscapes first 100", streets, cityscapes_metres(streets, height)))
    if options.kitti:
        roads = Kitti(options.kitti, height)
        sets.append(("KITTI dev", roads, kitti_metres(roads, height)))
    if options.folder:
        sets.append((options.folder.name, Folder(options.folder, height), None))
    for title, dataset, metres in sets:
        errors = Errors()
        count = min(options.limit or len(dataset), len(dataset))
        for index in track(range(count), description=title, transient=True):
            number = index * len(dataset) // count
            sample = dataset[number]
            foreground, background, *_ = runner(collate([sample]).to(runner.device))
            errors.add_mask(sample, (foreground[0, 0] > FOREGROUND_THRESHOLD).cpu().numpy(), dataset.category_names)
            if metres is not None:
                errors.add_background(sample, background[0].argmax(0).cpu().numpy(), metres(number))
        names = label_names(dataset)
        if metres is not None:
            sidewalks.rows += errors.sidewalk_rows(title)
            labels.rows += errors.label_rows(title, names)
        masks.rows += errors.object_rows(title)
        false_masks.rows += errors.false_rows(title, names)
    tables.report(options, sidewalks, labels, masks, false_masks)


if __name__ == "__main__":
    main()
