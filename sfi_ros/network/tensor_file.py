"""Files of tensors: reading .safetensors.

Whatever stands in such a file, reading it executes no code, takes no more memory than the file has bytes, and ends in
tensors or in one `CheckpointError` that names the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from sfi_ros.errors import shown
from sfi_ros.network.metadata import CheckpointError
from sfi_ros.network.weights_file import check_file

MAX_HEADER: Final = 8 << 20
"""Longest header of a .safetensors file, in bytes; a ResNet-50 needs 40 000."""

FLOATING: Final = {"F64", "F32", "F16", "BF16"}
"""Numbers that weights may have, by their names in .safetensors."""


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
