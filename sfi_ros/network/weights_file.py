"""Files of weights, of whatever kind: what is looked at before one is read."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from sfi_ros.errors import MissingFileError, shown
from sfi_ros.network.metadata import CheckpointError

_LOOKS_LIKE: Final = (
    (b"version https://git-lfs.github.com/spec/", "is a Git LFS pointer, not the weights: run `git lfs pull`"),
    (b"<!doctype html", "is a web page, not weights: download the file itself"),
    (b"<html", "is a web page, not weights: download the file itself"),
)
"""What stands in the place of weights when a download went wrong: how it begins, and what to say."""


def check_file(path: Path) -> None:
    """Refuse what cannot be a file of weights, by a look at the file system and the first bytes.

    Raises:
        MissingFileError: no such file.
        CheckpointError: a folder, a device, an empty or unreadable file, or what a failed download leaves behind.
    """
    try:
        mode = path.stat().st_mode
        begin = b""
        if stat.S_ISREG(mode):
            with path.open("rb") as file:
                begin = file.read(64)
    except (FileNotFoundError, NotADirectoryError) as error:
        folder = path.with_suffix("")
        hint = f", but a folder {folder}{_unpacked(folder)}" if path.suffix and folder.is_dir() else ""
        raise MissingFileError(f"weights {path} do not exist{hint}") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"weights {shown(str(path))} cannot be read: {reason}") from error
    if stat.S_ISDIR(mode):
        raise CheckpointError(f"weights {path} are a folder, not a file{_unpacked(path)}")
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"weights {path} are not a regular file")
    if not begin:
        raise CheckpointError(f"weights {path} are empty: copy or download the file again")
    for start, message in _LOOKS_LIKE:
        if begin.lower().startswith(start):
            raise CheckpointError(f"{path} {message}")


def _unpacked(folder: Path) -> str:
    """Return a hint for a folder that was made of a PyTorch file, which is a zip archive inside."""
    unpacked = next((place for place in (folder, *folder.glob("*/")) if (place / "data.pkl").is_file()), None)
    if unpacked is None:
        return ""
    return (
        ". It looks like a PyTorch file that was unpacked, as macOS does: download it again without opening it, or "
        f"pack it with `cd {unpacked.parent} && zip -0 -r {unpacked.name}.zip {unpacked.name}` and name that file"
    )
