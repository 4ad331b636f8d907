"""Files of tensors: what is looked at before they are read, and reading .safetensors.

Whatever stands in such a file, reading it executes no code, takes no more memory than the file has bytes, and ends in
tensors or in one `CheckpointError` that names the file.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from sfi_ros.errors import MissingFileError, shown
from sfi_ros.network.metadata import CheckpointError

MAX_HEADER: Final = 8 << 20
"""Longest header of a .safetensors file, in bytes; a ResNet-50 needs 40 000."""

FLOATING: Final = {"F64", "F32", "F16", "BF16"}
"""Numbers that weights may have, by their names in .safetensors."""

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


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, not read yet.

    Attributes:
        dtype: in the words of .safetensors, such as F16.
        shape: its sides.
    """

    dtype: str
    shape: tuple[int, ...]


class TensorFile:
    """A .safetensors file, its header read and checked.

    Args:
        path: of the file.

    Attributes:
        path: of the file.
        metadata: the texts in its header.
        tensors: name -> number type and shape; together they fill the file.

    Raises:
        MissingFileError: no such file.
        CheckpointError: not a .safetensors file, or a damaged one.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        check_file(self.path)
        unreadable = f"{self.path} is not a readable .safetensors file"
        with self.path.open("rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
        file_size = self.path.stat().st_size
        if header_size > min(MAX_HEADER, file_size):
            raise CheckpointError(f"{unreadable}{_other_format(self.path)}")
        try:
            with safe_open(self.path, "pt") as file:
                self.metadata: dict[str, str] = file.metadata() or {}
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
                self.tensors = {
                    name: StoredTensor(part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()
                }
        except (SafetensorError, OSError, ValueError) as error:
            hint = ", so it was truncated: copy or download it again" if "not fully covered" in str(error) else ""
            raise CheckpointError(f"{unreadable}: {shown(str(error))}{hint}") from error

    def read(self) -> dict[str, Tensor]:
        """All tensors, on the CPU.

        They are read, not mapped into memory: a card that fails, or a file that shrinks meanwhile, would end the
        process.

        Raises:
            CheckpointError: the file cannot be read, or has changed since its header was.
        """
        try:
            return load(self.path.read_bytes())
        except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"{self.path} cannot be read: {shown(str(error))}") from error


def _other_format(path: Path) -> str:
    """Return what a file with an impossible header may be instead."""
    if ".pth" in path.name or ".pt" in path.suffixes:
        return " (a released .pth.tar is imported by `sfi convert`)"
    if path.suffix == ".onnx":
        return " but an exported one: only an engine (`sfi run`, the node) takes it"
    return ": its header has an impossible length"
