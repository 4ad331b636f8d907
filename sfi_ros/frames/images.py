"""Image files, and folders of them, as sources of frames."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Final

from sfi_ros.errors import ImageError
from sfi_ros.frames.decoding import decode_photo
from sfi_ros.frames.encodings import warn_of_depth
from sfi_ros.frames.frame import Frame, SourceError, Unreadable
from sfi_ros.frames.limits import FILE_MEGAPIXELS, MAX_SIGNIFICANT_BITS
from sfi_ros.frames.names import is_hidden, names_of_files, natural_order, printable

IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})

_BYTES_PER_PIXEL: Final = 24  # of any file, text included


class ImageSource:
    """Image files, in the order given; see `frame.Source`.

    Args:
        paths: of the files.
        rate: at which they were taken, in frames per second.
        names: of the frames; by default those of the files.
        significant_bits: of the values of 16-bit images; see `decoding.upper_eight_bits`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        rate: float = 10.0,
        names: Sequence[str] | None = None,
        significant_bits: int = MAX_SIGNIFICANT_BITS,
    ):
        self.names = names_of_files(paths) if names is None else list(names)
        self.rate, self._paths, self._bits = rate, list(paths), significant_bits

    @property
    def length(self) -> int:
        """Number of files."""
        return len(self._paths)

    def part(self, start: int, stop: int | None = None) -> ImageSource:
        """Return some of the images; see `frame.Source`."""
        return ImageSource(self._paths[start:stop], self.rate, self.names[start:stop], self._bits)

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        """Read one file after the other; see `decoding.decode_photo`."""
        if self._paths:
            _warn_of_depth(self._paths[0], self._bits)
        for name, path in zip(self.names, self._paths, strict=True):
            yield _read(path, name, self._bits)


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder, hidden ones left out, numbers in their names in order of their value.

    What bears the name of an image and cannot be read, such as a link to nothing, is among them: it shall be missed.

    Raises:
        SourceError: the folder cannot be read.
    """
    try:
        entries = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
        return sorted((path for path in entries if not is_hidden(path) and not path.is_dir()), key=natural_order)
    except OSError as error:
        raise SourceError(f"{printable(folder)} cannot be read: {error.strerror}") from error


def _warn_of_depth(path: Path, significant_bits: int) -> None:
    with suppress(ImageError, OSError):  # which reading it will say
        message = SimpleNamespace(format="", data=_content(path))
        warn_of_depth(f"16-bit images such as {printable(path)}", message, significant_bits)


def _read(path: Path, name: str, significant_bits: int) -> Frame | Unreadable:
    try:
        pixels = decode_photo(_content(path), FILE_MEGAPIXELS, significant_bits)
        return Frame(name, pixels, place=printable(path))
    except ImageError as error:
        return Unreadable(printable(path), str(error))
    except FileNotFoundError:
        reason = f"a link to {printable(path.readlink())}, which does not exist" if path.is_symlink() else "it is gone"
        return Unreadable(printable(path), reason)
    except OSError as error:
        return Unreadable(printable(path), error.strerror or str(error))


def _content(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for its writer
        raise ImageError("it is no regular file")
    if status.st_size > FILE_MEGAPIXELS * 1e6 * _BYTES_PER_PIXEL:
        raise ImageError(f"it has {status.st_size / 1e9:.0f} GB, more than an image of {FILE_MEGAPIXELS:g} megapixels")
    return path.read_bytes()
