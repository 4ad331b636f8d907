"""One-file checkpoints that rebuild their network.

A checkpoint is a .safetensors file: tensors by name, and `Metadata` as JSON in its header. Loading one executes no code
and reads nothing but the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Tensor

from sfi_ros.errors import OptionError, shown
from sfi_ros.files import make_folder, replacing
from sfi_ros.network import zoo
from sfi_ros.network.metadata import CheckpointError, Metadata, from_json, to_json
from sfi_ros.network.scene_network import SceneNetwork
from sfi_ros.network.tensor_file import FLOATING, StoredTensor, TensorFile

__all__ = ["Checkpoint", "CheckpointError", "Metadata", "load", "read_metadata", "save"]

_HEADER: Final = "sfi_ros"


@dataclass(frozen=True)
class Checkpoint:
    """A network, in evaluation mode and float32, and what its file says about it."""

    network: SceneNetwork
    metadata: Metadata


def save(
    path: str | Path,
    network: SceneNetwork,
    *,
    input_height: int = 256,
    training_data: str = "",
    scores: Mapping[str, float] | None = None,
    extra: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Metadata:
    """Write a checkpoint; an existing file is replaced at once or not at all.

    Args:
        path: file to write, ending in .safetensors.
        network: as built by `zoo.build`.
        input_height, training_data, extra: see `Metadata`.
        scores: likewise; those that are not finite were not measured and are left out.
        dtype: floating-point type to store; float16 halves the file.

    Raises:
        OptionError: a path with another ending, or metadata of other types and ranges than `Metadata` has.
        CheckpointError: metadata that JSON cannot hold, or weights that are not finite.
        WriteError: the system refused to write.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise OptionError(f"a checkpoint's name ends in .safetensors; got {path}")
    metadata = Metadata(
        name=network.name,
        options=network.options.to_dict(),
        input_height=input_height,
        training_data=training_data,
        scores={name: value for name, value in (scores or {}).items() if math.isfinite(value)},
        extra=dict(extra or {}),
    )
    tensors = {}
    for name, tensor in network.state_dict().items():
        stored = tensor.detach().cpu().to(dtype if tensor.is_floating_point() else tensor.dtype)
        if not torch.isfinite(stored).all():
            raise CheckpointError(f"{name} is not finite as {stored.dtype}; {path} was not written")
        tensors[name] = stored.contiguous()
    try:
        header = to_json(metadata)
        from_json(Metadata, header, path)
    except TypeError as error:
        raise CheckpointError(f"the metadata of {path} is not JSON: {error}") from error
    make_folder(path.parent)
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={_HEADER: header})
        partial.chmod(0o644)  # safetensors makes files that only their owner may read; a node runs as somebody else
    return metadata


def read_metadata(path: str | Path) -> Metadata:
    """Read what a checkpoint says about itself, without its tensors.

    Raises:
        MissingFileError: no such file.
        CheckpointError: not a checkpoint of this package, or one that is damaged or newer than this version knows.
    """
    return _metadata(TensorFile(path))


def load(path: str | Path) -> Checkpoint:
    """Rebuild the network that a checkpoint describes and fill it.

    Raises:
        MissingFileError, CheckpointError: see `read_metadata`; also when the tensors do not fit the network that
            the metadata names, or are not finite.
    """
    file = TensorFile(path)
    metadata = _metadata(file)
    metadata.check_supported(path)  # its options, too: no others reach `zoo.build`
    try:
        network = empty_network(metadata.name, metadata.options)
    except OptionError as error:
        raise CheckpointError(f"{path} describes a network that cannot be built: {error}") from error
    check_fit(network, file.tensors, str(path))
    fill(network, file.read(), str(path))
    return Checkpoint(network, metadata)


def _metadata(file: TensorFile) -> Metadata:
    if _HEADER not in file.metadata:
        raise CheckpointError(
            f"{file.path} holds tensors but no sfi_ros metadata, so it does not say which network it is"
        )
    return from_json(Metadata, file.metadata[_HEADER], file.path)


# --- filling a network with tensors from outside -------------------------------------------------------------------


def empty_network(name: str, options: Mapping[str, Any]) -> SceneNetwork:
    """Return a network of the zoo without memory for its weights, which `fill` brings.

    Raises:
        OptionError: an unknown name or option.
    """
    with torch.device("meta"):
        return zoo.build(name, **options)


def check_fit(
    network: SceneNetwork,
    tensors: Mapping[str, StoredTensor],
    source: str,
    *,
    their_name: Callable[[str], str] = str,
    wanted_by: str | None = None,
) -> None:
    """Refuse tensors that are not, one by one, those of a network.

    Args:
        network: to be filled.
        tensors: by the network's names.
        source: what to call their file in messages.
        their_name: what the file calls a parameter of the network.
        wanted_by: what to call the network.

    Raises:
        CheckpointError: names the first tensor that is missing, has another shape or other numbers, or is unknown.
    """
    wanted_by = wanted_by or network.name
    own = network.state_dict()
    for name, tensor in own.items():
        label = their_name(name)
        if name not in tensors:
            raise CheckpointError(f"{source} lacks {label}, which {wanted_by} has")
        stored = tensors[name]
        if stored.shape != tuple(tensor.shape):
            raise CheckpointError(
                f"{label} in {source} has shape {stored.shape}; {wanted_by} has {tuple(tensor.shape)}"
            )
        if (stored.dtype in FLOATING) != tensor.is_floating_point() or stored.dtype not in {*FLOATING, "I64"}:
            kind = "floating-point numbers" if tensor.is_floating_point() else "64-bit integers"
            raise CheckpointError(f"{label} in {source} holds numbers of type {stored.dtype}, not {kind}")
    unknown = next((name for name in tensors if name not in own), None)
    if unknown is not None:
        raise CheckpointError(f"{source} holds {shown(their_name(unknown))}, which {wanted_by} does not have")


def fill(network: SceneNetwork, state: Mapping[str, Tensor], source: str) -> None:
    """Give an empty network its weights, as float32, and set it to evaluation.

    Args:
        network: from `empty_network`.
        state: all of its tensors, as `check_fit` wants them.
        source: what to call their file in messages.

    Raises:
        CheckpointError: values that are not finite, or negative variances, of which no result would be.
    """
    weights = {}
    for name, tensor in state.items():
        tensor = tensor.detach()
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{name} in {source} holds values that are not finite")
        if name.endswith("running_var") and (tensor < 0).any():
            raise CheckpointError(f"{name} in {source} holds negative values, but is a variance")
        weights[name] = tensor.to(torch.float32 if tensor.is_floating_point() else torch.int64, copy=True)
    network.load_state_dict(weights, assign=True)
    if any(tensor.is_meta for tensor in network.buffers()):
        raise CheckpointError(f"{network.name} computes with constants that {source} does not hold")
    network.eval()
