"""Tells what a path is, and opens it as a source of frames."""

from __future__ import annotations

from pathlib import Path

from sfi_ros.frames.bag_storage import METADATA, ROS1_SUFFIX, STORAGE_SUFFIXES, is_bag, storage_files
from sfi_ros.frames.bags import BagSource
from sfi_ros.frames.frame import Frame, Source, SourceError, Unreadable
from sfi_ros.frames.images import IMAGE_SUFFIXES, ImageSource, images_in
from sfi_ros.frames.limits import MAX_SIGNIFICANT_BITS
from sfi_ros.frames.names import printable
from sfi_ros.frames.synthetic_street import SYNTHETIC, UNSEEN_SEED, SyntheticSource
from sfi_ros.frames.videos import VIDEO_SUFFIXES, VideoSource

__all__ = ["SYNTHETIC", "UNSEEN_SEED", "BagSource", "Frame", "ImageSource", "Source", "SourceError", "SyntheticSource"]
__all__ += ["Unreadable", "VideoSource", "open_source"]

_KINDS = f"a source is an image, a folder, a video or '{SYNTHETIC}', or a rosbag2 or ROS 1 bag"


def open_source(
    source: str | Path,
    *,
    topic: str | None = None,
    seed: int = UNSEEN_SEED,
    significant_bits: int = MAX_SIGNIFICANT_BITS,
) -> Source:
    """Open an image, a folder of images, a video, a recording or, for "synthetic", the synthetic street.

    Args:
        source: path, or "synthetic". A recording is the folder of a rosbag2, with or without its metadata.yaml, one of
            its .mcap or .db3 files, or a ROS 1 .bag.
        topic: of the images of a recording; None if it has only one.
        seed: of the synthetic street.
        significant_bits: of the values of 16-bit images; see `decoding.upper_eight_bits`.

    Raises:
        SourceError: nothing there, or nothing in it that can be read as images.
    """
    if str(source) == SYNTHETIC:
        return SyntheticSource(seed)
    path = Path(source)
    if path.is_dir():
        return _open_folder(path, topic, significant_bits)
    if not path.exists():
        link = (
            f"a link to {printable(path.readlink())}, which does not exist" if path.is_symlink() else "does not exist"
        )
        raise SourceError(f"{printable(path)} {'is ' * path.is_symlink()}{link}; {_KINDS}")
    if not path.is_file():
        raise SourceError(f"{printable(path)} is neither a file nor a folder; {_KINDS}")
    if is_bag(path):
        return BagSource(path, topic, significant_bits=significant_bits)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource([path], significant_bits=significant_bits)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(path)
    raise SourceError(
        f"{printable(path)} is neither an image ({' '.join(sorted(IMAGE_SUFFIXES))}) nor a video "
        f"({' '.join(sorted(VIDEO_SUFFIXES))}) nor a recording ({ROS1_SUFFIX} {' '.join(STORAGE_SUFFIXES)})"
    )


def _open_folder(folder: Path, topic: str | None, significant_bits: int) -> Source:
    images = images_in(folder)
    storage = storage_files(folder)
    if images and storage and not (folder / METADATA).is_file():
        raise SourceError(
            f"{printable(folder)} holds images as well as a recording: name {storage[0].name}, or put it elsewhere"
        )
    if storage or (not images and is_bag(folder)):
        return BagSource(folder, topic, significant_bits=significant_bits)
    if not images:
        raise SourceError(
            f"{printable(folder)} holds no image ({' '.join(sorted(IMAGE_SUFFIXES))}), and no recording; name a folder "
            "that does, not one above it"
        )
    return ImageSource(images, significant_bits=significant_bits)
