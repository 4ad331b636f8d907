"""Where frames come from when there is no camera: an image, a folder, a video or the synthetic street."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import cv2
import numpy as np

from sfi_ros.errors import ImageError
from sfi_ros.frames.decoding import decode_photo
from sfi_ros.frames.limits import FILE_MEGAPIXELS
from sfi_ros.frames.names import printable
from sfi_ros.synthetic import SyntheticFrame, SyntheticStreet

IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
VIDEO_SUFFIXES: Final = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg"})
SYNTHETIC: Final = "synthetic"
UNSEEN_SEED: Final = 2_000_000
"""First seed of the streets on which nothing is ever trained (split "test" of training/data/datasets/synthetic.py)."""


class SourceError(ValueError):
    """A source that cannot give a single frame; the message says why and what would."""


@dataclass(frozen=True)
class Frame:
    """One frame of a source.

    Attributes:
        name: unique within its source, usable as a file name.
        image: (H, W, 3) uint8 RGB.
        truth: what the synthetic street knows about it; None for real cameras.
    """

    name: str
    image: np.ndarray
    truth: SyntheticFrame | None = None


@dataclass(frozen=True)
class Unreadable:
    """A frame that could not be read, and why."""

    name: str
    reason: str


class Source(Protocol):
    """Frames in order; iterating again starts again.

    Attributes:
        rate: frames per second, as recorded or as is usual for such a source.
        length: number of frames, None where it is not known or has no end.
    """

    rate: float
    length: int | None

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        """Frames, and in their place those that could not be read."""
        ...


def open_source(source: str | Path, *, seed: int = UNSEEN_SEED) -> Source:
    """Open an image file, a folder of images, a video file or, for "synthetic", the synthetic street.

    Args:
        source: path, or "synthetic".
        seed: of the synthetic street.

    Raises:
        SourceError: nothing there, or nothing in it that can be read as images.
    """
    if str(source) == SYNTHETIC:
        return SyntheticSource(seed)
    path = Path(source)
    if path.is_dir():
        return ImageSource(_images_in(path))
    if not path.is_file():
        raise SourceError(f"{path} does not exist; a source is an image, a folder, a video or '{SYNTHETIC}'")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource([path])
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(path)
    raise SourceError(
        f"{path} is neither an image ({' '.join(sorted(IMAGE_SUFFIXES))}) nor a video "
        f"({' '.join(sorted(VIDEO_SUFFIXES))})"
    )


class ImageSource:
    """Image files, in the order given.

    Attributes:
        names: of the frames.
    """

    def __init__(self, paths: list[Path], rate: float = 10.0):
        self._paths, self.rate, self.length = paths, rate, len(paths)
        stems = [path.stem for path in paths]
        # a.png beside a.jpg: their results must not overwrite each other
        self.names = [path.name if stems.count(path.stem) > 1 else path.stem for path in paths]

    def part(self, part: slice) -> ImageSource:
        """Some of the images, named as in the whole."""
        source = ImageSource(self._paths[part], self.rate)
        source.names = self.names[part]
        return source

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        """Read one file after the other; see `decoding.decode_photo`."""
        for name, path in zip(self.names, self._paths, strict=True):
            yield _read(path, name)


def _read(path: Path, name: str) -> Frame | Unreadable:
    try:
        return Frame(name, decode_photo(path.read_bytes(), FILE_MEGAPIXELS))
    except ImageError as error:
        return Unreadable(printable(path), str(error))
    except OSError as error:
        return Unreadable(printable(path), error.strerror or str(error))


class VideoSource:
    """A video file at its own rate."""

    def __init__(self, path: Path):
        self._path = path
        capture = self._open()
        rate, length = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        self.rate = rate if 0 < rate < 1000 else 25.0
        self.length = length if length > 0 else None

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        """Decode frame after frame; one that is damaged ends the video, since decoders do not resume reliably."""
        capture = self._open()
        number = 0
        try:
            while True:
                found, image = capture.read()
                if not found:
                    break
                yield Frame(f"frame_{number:06d}", cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
                number += 1
        finally:
            capture.release()
        if self.length is not None and number < self.length:
            yield Unreadable(f"{self._path} frame {number}", f"the video announces {self.length} frames")

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise SourceError(f"{self._path} is not a video that OpenCV can decode")
        return capture


class SyntheticSource:
    """The synthetic street; has no end."""

    length: int | None = None

    def __init__(self, seed: int = UNSEEN_SEED):
        self.street = SyntheticStreet(seed=seed)
        self.rate = self.street.rate

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        """Render frame after frame."""
        number = 0
        while True:
            truth = self.street.frame(number)
            yield Frame(f"frame_{number:06d}", truth.image, truth)
            number += 1


def _images_in(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not paths:
        raise SourceError(f"{folder} holds no image ({' '.join(sorted(IMAGE_SUFFIXES))})")
    return paths
