"""Reading photos and label images, and turning raw label ids into the targets of a `Sample`.

Everything that touches an image file of a dataset does it here, so that every dataset reports a damaged or
unsuitable file in the same words. Photos shrink with an antialiased bilinear filter, labels are
nearest-sampled: a label between two classes does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sfi_ros.classes import BACKGROUND_CLASSES, BACKGROUND_LOOKUP, FOREGROUND_LOOKUP, IGNORE, KIND_LOOKUP
from sfi_ros.errors import ImageError, SfiError
from sfi_ros.frames.decoding import NotLabelsError, decode_labels, decode_photo
from sfi_ros.frames.limits import FILE_MEGAPIXELS
from sfi_ros.frames.names import printable
from sfi_ros.network.preprocessing import resize_images
from training.data.sample import Sample

PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg")


class DatasetError(SfiError, ValueError):
    """A dataset on disk is not what its class expects; the message names the file and the remedy."""


def require_folder(folder: Path, remedy: str) -> Path:
    """Return `folder`, or raise a `DatasetError` that names it and says what to do."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DatasetError(f"{printable(folder)} {what}: {remedy}")
    return folder


def list_photos(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the .png, .jpg and .jpeg files of `folder` that match `pattern`, sorted by name.

    Hidden files are left out: macOS puts a `._0001.png`, which is no image, beside each `0001.png` on foreign disks.
    """
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() in PHOTO_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.is_dir()
    )


def read_photo(path: Path) -> Tensor:
    """Read a photo as (3, H, W) uint8 RGB, as `sfi run` and the node decode it.

    16-bit photos keep their upper eight bits; the photo is turned upright if its EXIF tag says so.

    Raises:
        DatasetError: the file cannot be decoded.
    """
    try:
        return torch.from_numpy(decode_photo(path.read_bytes(), FILE_MEGAPIXELS)).permute(2, 0, 1)
    except (ImageError, OSError) as error:
        raise DatasetError(
            f"{printable(path)}: cannot read this photo ({error}): copy it again from its source"
        ) from error


def read_labels(path: Path) -> Tensor:
    """Read a label image as (H, W) uint8 ids.

    Raises:
        DatasetError: the file cannot be decoded, or is not a single-channel 8-bit image.
    """
    try:
        return torch.from_numpy(decode_labels(path.read_bytes(), FILE_MEGAPIXELS))
    except NotLabelsError as error:
        raise DatasetError(f"{printable(path)}: {error}") from error
    except (ImageError, OSError) as error:
        raise DatasetError(
            f"{printable(path)}: cannot read this label image ({error}): copy it again from its source"
        ) from error


def require_same_size(labels: Tensor, labels_path: Path, photo: Tensor, photo_path: Path) -> None:
    """Raise a `DatasetError` unless labels (H, W) and photo (3, H, W) have the same size."""
    if labels.shape != photo.shape[-2:]:
        raise DatasetError(
            f"{printable(labels_path)}: labels are {labels.shape[1]}x{labels.shape[0]} (width x height) but their "
            f"photo {printable(photo_path.name)} is {photo.shape[2]}x{photo.shape[1]}: export both at the same size"
        )


def require_known_ids(labels: Tensor, path: Path, known: Tensor, remedy: str) -> None:
    """Raise a `DatasetError` naming the ids in `labels` (H, W) that are not in `known`, bool (256,)."""
    present = torch.bincount(labels.flatten().int(), minlength=256) > 0
    unknown = (present & ~known).nonzero().flatten().tolist()
    if unknown:
        listed = ", ".join(map(str, unknown[:8])) + (", …" if len(unknown) > 8 else "")
        raise DatasetError(f"{printable(path)}: unknown label id{'s' if len(unknown) > 1 else ''} {listed}: {remedy}")


def known_id_table(ids: Iterable[int]) -> Tensor:
    """Return bool (256,): True for the given ids."""
    table = torch.zeros(256, dtype=torch.bool)
    table[list(ids)] = True
    return table


def read_labelled_photo(photo_path: Path, labels_path: Path, known: Tensor, remedy: str) -> tuple[Tensor, Tensor]:
    """Read a photo (3, H, W) uint8 RGB and its labels (H, W) uint8.

    Args:
        photo_path, labels_path: the two files.
        known: (256,) bool, the ids that may occur.
        remedy: what to do about others.

    Raises:
        DatasetError: a file cannot be decoded, the sizes differ, or an id is not known.
    """
    photo, labels = read_photo(photo_path), read_labels(labels_path)
    require_same_size(labels, labels_path, photo, photo_path)
    require_known_ids(labels, labels_path, known, remedy)
    return photo, labels


BACKGROUND_IDS = known_id_table([*range(len(BACKGROUND_CLASSES)), IGNORE])
"""Values of files of the true background."""


def resize_photo(photo: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (3, H, W) uint8 to `size` = (height, width) with the network's own preprocessing."""
    if tuple(photo.shape[-2:]) == tuple(size):
        return photo
    return resize_images(photo[None], (int(size[0]), int(size[1])))[0]


def resize_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest-sample (H, W) uint8 to `size` = (height, width), on the grid of the resized photo.

    PyTorch's "nearest" takes the pixel at the upper left of what a target pixel covers, half a target pixel beside its
    centre; "nearest-exact" takes the one at its centre.
    """
    if tuple(labels.shape) == tuple(size):
        return labels
    return functional.interpolate(labels[None, None], size=tuple(size), mode="nearest-exact")[0, 0]


class LabelMap:
    """Label ids -> foreground mask, kinds of objects and partial background, as tables of 256 entries."""

    def __init__(
        self,
        foreground: np.ndarray = FOREGROUND_LOOKUP,
        background: np.ndarray = BACKGROUND_LOOKUP,
        kinds: np.ndarray = KIND_LOOKUP,
    ):
        """Args are uint8 (256,): id -> 0/1, background class or 255, kind or 255. Default: Cityscapes ids."""
        self.foreground, self.background, self.kinds = (
            torch.from_numpy(table.copy()) for table in (foreground, background, kinds)
        )

    def sample(self, image: Tensor, labels: Tensor, name: str, true_background: Tensor | None = None) -> Sample:
        """Build a `Sample` from an image (3, H, W) and raw ids (H, W) of the same size."""
        index = labels.flatten().int()
        return Sample(
            image=image,
            foreground=self.foreground.index_select(0, index).view_as(labels),
            kinds=self.kinds.index_select(0, index).view_as(labels),
            partial_background=self.background.index_select(0, index).view_as(labels),
            true_background=true_background,
            categories=labels,
            name=name,
        )
