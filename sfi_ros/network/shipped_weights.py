"""The weights that ship with the package, by name, and which an engine runs when nobody names any.

Their hashes stand in `weights/SHA256SUMS`, as `sha256sum --check` reads them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from sfi_ros.errors import MissingFileError, shown
from sfi_ros.optional import has_pytorch

_FOLDER: Final = Path(__file__).resolve().parents[1] / "weights"

DEFAULT_WEIGHTS: Final = _FOLDER / "default.safetensors"
"""The checkpoint that ships with the package."""

DEFAULT_EXPORT: Final = _FOLDER / "default.onnx"
"""The same exported, for vehicles without PyTorch: what `make weights` writes."""

CHECKSUMS: Final = _FOLDER / "SHA256SUMS"


class DefaultWeightsMissing(UserWarning):
    """No weights were named and none ship with this copy of the package: the network is untrained."""


@dataclass(frozen=True)
class ShippedFile:
    """One file of weights that ships.

    Attributes:
        path: of the file.
        sha256: that it should have.
    """

    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """By which it can be called instead of its path."""
        return self.path.stem

    def state(self) -> Literal["ok", "missing", "changed"]:
        """Compare the file with its hash."""
        if not self.path.is_file():
            return "missing"
        return "ok" if hashlib.sha256(self.path.read_bytes()).hexdigest() == self.sha256 else "changed"


def shipped_files() -> list[ShippedFile]:
    """Return the files that ship, whether they are there or not; none where their list is missing."""
    lines = CHECKSUMS.read_text(encoding="ascii").splitlines() if CHECKSUMS.is_file() else []
    return [ShippedFile(_FOLDER / name, sha256) for sha256, name in (line.split() for line in lines)]


def default_weights() -> Path:
    """Return the checkpoint that ships, or where PyTorch is not installed its exported form, if that is there."""
    return DEFAULT_EXPORT if DEFAULT_EXPORT.is_file() and not has_pytorch() else DEFAULT_WEIGHTS


def find_weights(weights: str | Path | None) -> Path:
    """Return the file that weights are in.

    Args:
        weights: a path; a name of those that ship, such as "default", where no file of that name lies; None for the
            default.

    Raises:
        MissingFileError: there is neither such a file nor such a name, or what it names is not installed.
    """
    if weights is None:
        return default_weights()
    path = Path(weights)
    if path.suffix or len(path.parts) != 1 or path.is_file():
        return path
    shipped = {file.path.suffix: file.path for file in shipped_files() if file.name == str(path)}
    if not shipped:
        names = ", ".join(dict.fromkeys(file.name for file in shipped_files())) or "nothing"
        raise MissingFileError(f"there are no weights {shown(str(path))}: no such file, and what ships is {names}")
    checkpoint, export = shipped.get(".safetensors"), shipped.get(".onnx")
    wanted = export if export and not has_pytorch() else checkpoint or export
    assert wanted is not None
    if not wanted.is_file():
        raise MissingFileError(f"the weights {path} are not part of this installation: {wanted} is missing")
    return wanted
