"""Names of files, which on Linux are bytes and need not be text, and names of frames."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def printable(path: str | os.PathLike[str]) -> str:
    r"""Return a path as text that can be printed: bytes that are not UTF-8, which Linux allows in names, as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_hidden(path: Path) -> bool:
    """Whether a name begins with a dot, as those of the `._0001.png` that macOS puts beside files on foreign disks."""
    return path.name.startswith(".")


def natural_order(path: Path) -> tuple[tuple[str | int, ...], str]:
    """Return a key that sorts numbers in names by their value: img2 before img10."""
    parts = re.split(r"([0-9]+)", path.name)
    return tuple(int(part) if part.isascii() and part.isdigit() else part for part in parts), path.name


@contextmanager
def plain_path(path: Path) -> Iterator[Path]:
    """Yield a path to the same file or folder that native code takes for nothing else.

    FFmpeg takes what stands before a colon for a protocol, SQLite a question mark for the end of the name, and OpenCV
    ends the process if a name is not UTF-8. Where a name has anything unusual in it, this is a link.
    """
    path = path.absolute()
    if re.fullmatch(r"[\w./ +=,@~()-]+", str(path), re.ASCII):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="sfi-") as folder:
        link = Path(folder) / f"file{path.suffix if path.suffix[1:].isalnum() and path.suffix.isascii() else ''}"
        link.symlink_to(path)
        yield link


class UniqueNames:
    """Tells names apart that are given twice."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def __call__(self, name: str) -> str:
        """Return the name, with a number behind it if it was given before."""
        unique, number = name, 1
        while unique in self._given:
            number += 1
            unique = f"{name}_{number}"
        self._given.add(unique)
        return unique


def names_of_files(paths: Iterable[Path]) -> list[str]:
    """Return a name for the frame of each file: without the suffix, unless only that tells it from another."""
    paths = list(paths)
    stems = [printable(path.stem) for path in paths]
    counts, unique = Counter(stems), UniqueNames()
    return [unique(printable(path.name) if counts[stem] > 1 else stem) for path, stem in zip(paths, stems, strict=True)]
