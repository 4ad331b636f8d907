"""Files that are either whole or not there: written under a temporary name beside their own, then renamed."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sfi_ros.errors import SfiError

_PARTIAL: Final = ".partial"


class WriteError(SfiError, OSError):
    """A file or folder that cannot be written; the message names it and the reason."""


class PartialFile:
    """A temporary file beside `path` that becomes `path` or is removed.

    Two processes that write the same path at the same time do not meet.

    Attributes:
        name: the temporary file, with the suffix of `path`.
    """

    def __init__(self, path: Path):
        self._path = path
        # The temporary name is short whatever `path` is called: names end at 255 bytes. It begins with a dot, so that
        # patterns such as *.png do not find it, and keeps the suffix, by which OpenCV chooses the format.
        self.name = path.with_name(f".{secrets.token_hex(8)}{_PARTIAL}{path.suffix}")

    def commit(self) -> None:
        """Rename it to `path`, which is replaced if it is there.

        Raises:
            WriteError: that is not possible.
        """
        try:
            self.name.replace(self._path)
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def discard(self) -> None:
        """Remove it, unless it was renamed."""
        self.name.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name for `path`: see `PartialFile`.

    If the block raises, the temporary file is removed and `path` is left as it was.

    Raises:
        WriteError: the system refused to write, as it does when the disk is full.
    """
    file = PartialFile(path)
    try:
        yield file.name
        file.commit()
    except OSError as error:
        raise error if isinstance(error, SfiError) else cannot_write(path, error) from error
    finally:
        file.discard()


def cannot_write(path: Path, error: Exception) -> WriteError:
    """Return the error that names a path and says why it cannot be written."""
    return WriteError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}")


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file; see `replacing` for errors."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON; see `replacing` for errors."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        WriteError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def require_writable(path: Path) -> None:
    """Find out whether a file can be written before hours are spent on what it shall hold; its folder is made.

    Raises:
        WriteError: it cannot.
    """
    make_folder(path.parent)
    if path.is_dir():
        raise WriteError(f"{path} cannot be written: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise WriteError(f"{path} cannot be written: there is no permission to write into {path.parent}")


def is_leftover(path: Path) -> bool:
    """Whether a path is a temporary file of `replacing`, which only a killed process leaves behind."""
    return path.name.startswith(".") and _PARTIAL in path.suffixes


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes; nobody else may be writing into `folder` meanwhile."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_leftover(path):
            path.unlink(missing_ok=True)
