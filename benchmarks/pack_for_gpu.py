"""Pack training data, initial weights and a configuration into one small folder, for a GPU machine without network.

    .venv/bin/python benchmarks/pack_for_gpu.py out/pack
    .venv/bin/python benchmarks/pack_for_gpu.py out/pack --weights sfi_ros/weights/default.safetensors \
        --train cityscapes=../shared/data/cityscapes_256:0.7 aachen=../shared/data/cityscapes_512_aachen:0.1 \
        idd=../shared/data/idd_lite/train:0.2
    python training/train.py --config out/pack/train.yaml schedule.minutes=6 output=out/run      # on the GPU machine

Photos are copied as they are. Labels become small: ids that mean the same to training (all of "other", all unlabeled
ones) become one id, and the file is compressed as far as PNG goes. Each set is thinned out evenly to its share of the
limit; the manually annotated validation images come first and whole. Datasets keep the layout that they are read in,
so nothing else has to know of packs. What is packed stays under the licence that it came under.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import yaml
from safetensors import safe_open
from safetensors.torch import save

from sfi_ros.classes import BACKGROUND_IDS, FOREGROUND_IDS
from training.data.datasets import Cityscapes, Folder
from training.data.reading import read_labels

MEBIBYTE = 1 << 20
LIMIT_MIB = 45
CONFIGURATION = Path(__file__).resolve().parents[1] / "config" / "training" / "default.yaml"
DEFAULT_SETS = (
    "cityscapes=../shared/data/cityscapes_256:0.7",
    "aachen=../shared/data/cityscapes_512_aachen:0.12",
    "idd=../shared/data/idd_lite/train:0.18",
)
VALIDATION = "../shared/data/cityscapes_256"


@dataclass(frozen=True)
class Item:
    """One image of a set: files to copy as they are, and label files to copy small, each with its place in the pack."""

    copies: dict[Path, Path]
    labels: dict[Path, Path]


@dataclass(frozen=True)
class PackedSet:
    """A training set as the command line names it: `name=ROOT:SHARE`."""

    name: str
    root: Path
    share: float

    @classmethod
    def parse(cls, text: str) -> PackedSet:
        """Read `name=ROOT:SHARE`; without a share it is 1."""
        name, equals, rest = text.partition("=")
        root, colon, share = rest.rpartition(":")
        if not equals or not name or not rest:
            raise argparse.ArgumentTypeError(f"must be name=ROOT:SHARE, such as {DEFAULT_SETS[0]}, not {text}")
        try:
            return cls(name, Path(root), float(share)) if colon else cls(name, Path(rest), 1.0)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text}: the share after the colon is no number") from error

    @property
    def is_cityscapes(self) -> bool:
        """Whether it is laid out as Cityscapes; else as a folder with `classes.yaml`."""
        return (self.root / "leftImg8bit").is_dir()

    def items(self) -> list[Item]:
        """Its images, in the dataset's own order."""
        if self.is_cityscapes:
            return cityscapes_items(Cityscapes(self.root, "train", manual=False), Path(self.name))
        dataset = Folder(self.root)
        classes = Path("classes.yaml")
        shared = {self.root / classes: self.name / classes}
        return [
            Item(
                {photo: self.name / photo.relative_to(self.root), **shared},
                {labels: self.name / labels.relative_to(self.root)},
            )
            for photo, labels in zip(dataset.photos, dataset.labels, strict=True)
        ]

    def source(self) -> dict[str, object]:
        """Its entry in the configuration."""
        kind = {"dataset": "cityscapes", "split": "train"} if self.is_cityscapes else {"dataset": "folder"}
        return {**kind, "root": self.name, "share": self.share, "pasted": 0.5 if self.is_cityscapes else 0.3}


def cityscapes_items(dataset: Cityscapes, name: Path) -> list[Item]:
    """Return the images of a Cityscapes split, with the manual truth where the dataset has it."""
    manual = dataset.truths or [None] * len(dataset)
    items = []
    for photo, labels, truth in zip(dataset.photos, dataset.labels, manual, strict=True):
        copies = {photo: name / photo.relative_to(dataset.root)}
        if truth is not None:
            copies[truth] = name / truth.relative_to(dataset.root)
        items.append(Item(copies, {labels: name / labels.relative_to(dataset.root)}))
    return items


def small_label_file(path: Path, *, cityscapes_ids: bool) -> bytes:
    """Return a label file that trains the same and takes less room, as PNG.

    Args:
        path: a label image.
        cityscapes_ids: whether its ids are those of Cityscapes, of which many mean the same.

    Raises:
        DatasetError: the file is no label image.
    """
    labels = read_labels(path).numpy()
    if cityscapes_ids:
        labels = _same_meaning()[labels]
    settings = (cv2.IMWRITE_PNG_COMPRESSION, 9, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT)
    packed, original = cv2.imencode(".png", labels, settings)[1].tobytes(), path.read_bytes()
    return packed if cityscapes_ids or len(packed) < len(original) else original


def _same_meaning() -> np.ndarray:
    """uint8 (256,): id -> the lowest id of the same background class or, for foreground, itself; 0 for the rest."""
    table = np.zeros(256, np.uint8)
    lowest = {background: label_id for label_id, background in sorted(BACKGROUND_IDS.items(), reverse=True)}
    for label_id, background in BACKGROUND_IDS.items():
        table[label_id] = lowest[background]
    table[list(FOREGROUND_IDS)] = FOREGROUND_IDS
    return table


def evenly(items: Sequence[Item]) -> Iterator[Item]:
    """All items, in an order of which every beginning is spread over the whole: by the golden ratio."""
    order = np.argsort((np.arange(len(items)) * 0.6180339887498949) % 1)
    position = np.empty(len(items), int)
    position[order] = np.arange(len(items))
    return (items[index] for index in position)


class Pack:
    """A folder that grows up to a limit.

    Args:
        folder: made anew.
        limit: bytes.

    Attributes:
        size: bytes written.
    """

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit, self.size = folder, limit, 0
        if folder.exists():
            if not (folder / "train.yaml").is_file() and any(folder.iterdir()):
                raise SystemExit(f"{folder} holds other files than a pack: name another folder")
            shutil.rmtree(folder)
        folder.mkdir(parents=True)

    def add(self, place: Path, content: bytes) -> None:
        """Write a file, unless it is there."""
        path = self.folder / place
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            self.size += len(content)

    def add_items(self, items: Iterator[Item], room: float, *, cityscapes_ids: bool) -> int:
        """Write items until so many bytes are used; returns how many items."""
        end, count = min(self.size + room, self.limit), 0
        for item in items:
            contents = {place: path.read_bytes() for path, place in item.copies.items()}
            contents |= {
                place: small_label_file(path, cityscapes_ids=cityscapes_ids) for path, place in item.labels.items()
            }
            if self.size + sum(map(len, contents.values())) > end:
                break
            for place, content in contents.items():
                self.add(place, content)
            count += 1
        return count


def half_weights(path: Path) -> bytes:
    """Return a .safetensors file with its floating point in float16 and the same metadata."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return save({name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}, metadata)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a pack."""
    options = _parser().parse_args(arguments)
    pack = Pack(options.output, round(options.max_mib * MEBIBYTE))
    pack.add(Path("train.yaml"), yaml.safe_dump(configuration(options), sort_keys=False).encode())
    for package in options.packages:
        add_package(pack, package)
    pack.add(Path("weights") / options.weights.name, half_weights(options.weights))
    validation = cityscapes_items(Cityscapes(options.validation, "val"), Path("validation"))
    count = pack.add_items(iter(validation), pack.limit, cityscapes_ids=True)
    print(f"validation: {count} of {len(validation)} images")
    room, shares = pack.limit - pack.size, sum(entry.share for entry in options.train)
    for entry in options.train:
        items = entry.items()
        count = pack.add_items(evenly(items), room * entry.share / shares, cityscapes_ids=entry.is_cityscapes)
        print(f"{entry.name}: {count} of {len(items)} images")
    print(f"{pack.folder}: {pack.size / MEBIBYTE:.1f} MiB")


def configuration(options: argparse.Namespace) -> dict[str, object]:
    """Return the default recipe on the packed data; paths are relative to the folder in which training is started."""
    tree = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))
    folder = str(options.output)
    sources = {entry.name: entry.source() for entry in options.train}
    for source in sources.values():
        source["root"] = f"{folder}/{source['root']}"
    sources["synthetic"] = tree["data"]["train"]["synthetic"]
    tree["data"] |= {
        "roots": {},
        "train": sources,
        "validation": {"manual": {"dataset": "cityscapes", "root": f"{folder}/validation", "split": "val"}},
        "cache": "ram",
    }
    key = "start_from" if options.continues else "pretrained"
    tree["network"] |= {"pretrained": None, key: f"{folder}/weights/{options.weights.name}"}
    # A run that ends by itself, with one validation at its end; on_gpu.sh says when.
    tree["schedule"] |= {"steps": None, "validate_every": None, "minutes": 7.0}
    return tree


def add_package(pack: Pack, name: str) -> None:
    """Copy a pure Python package of this environment into the pack's `site` folder.

    Raises:
        SystemExit: it is not installed, or not pure Python.
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{name} is not installed here, so it cannot travel")
    if not spec.submodule_search_locations:
        pack.add(Path("site") / Path(spec.origin).name, Path(spec.origin).read_bytes())
        return
    root = Path(spec.origin).parent
    for path in sorted(root.rglob("*")):
        if path.suffix in (".so", ".pyd"):
            raise SystemExit(f"{name} holds compiled code ({path.name}): it cannot travel as a folder")
        if path.is_file() and "__pycache__" not in path.parts:
            pack.add(Path("site") / root.name / path.relative_to(root), path.read_bytes())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="FOLDER", help="to write; a pack that is there is replaced")
    parser.add_argument(
        "--train",
        type=PackedSet.parse,
        nargs="+",
        metavar="NAME=ROOT:SHARE",
        default=[PackedSet.parse(text) for text in DEFAULT_SETS],
        help=f"training sets and their shares of room and batches (default: {' '.join(DEFAULT_SETS)})",
    )
    parser.add_argument(
        "--validation",
        type=Path,
        default=Path(VALIDATION),
        metavar="ROOT",
        help="Cityscapes whose val is measured (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        default=Path("sfi_ros/weights/default.safetensors"),
        help="to start from (default: %(default)s)",
    )
    parser.add_argument(
        "--pretrained",
        dest="continues",
        action="store_false",
        help="the weights are an encoder's, such as from ImageNet, not a checkpoint of ours",
    )
    parser.add_argument("--packages", nargs="*", default=[], help="pure Python packages that the machine lacks")
    parser.add_argument(
        "--max-mib", type=float, default=LIMIT_MIB, metavar="MIB", help="of the whole pack (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    main()
