"""One-file checkpoints that rebuild their network, and the import of the released ones.

A checkpoint is a .safetensors file: tensors by name, and metadata as JSON in its header. Reading one executes no code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sfi_ros import __version__
from sfi_ros.classes import BACKGROUND_CLASSES
from sfi_ros.errors import MissingFileError, OptionError, SfiError
from sfi_ros.network import zoo
from sfi_ros.network.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from sfi_ros.network.scene_network import SceneNetwork

FORMAT = 1
_HEADER = "sfi_ros"


class CheckpointError(SfiError, ValueError):
    """A file that is not a usable checkpoint; the message says which file and what is wrong with it."""


@dataclass(frozen=True)
class Metadata:
    """What a checkpoint knows about itself.

    Attributes:
        name: name of the network in the zoo.
        options: `NetworkOptions` as a dictionary.
        input_height: height in pixels of the images it was trained for; the engine's default.
        training_data: what it was trained on, in words; "" if unknown.
        scores: name of a measure -> value.
        extra: anything else worth keeping (training configuration, command line, ...).
        background_classes, mean, std: what its outputs mean and its inputs are normalised with.
        package_version: version of sfi_ros that wrote the file.
        format: version of this layout.
    """

    name: str
    options: dict[str, Any]
    input_height: int = 256
    training_data: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    background_classes: tuple[str, ...] = BACKGROUND_CLASSES
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    package_version: str = __version__
    format: int = FORMAT


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
        input_height, training_data, scores, extra: see `Metadata`.
        dtype: floating-point type to store; float16 halves the file.

    Raises:
        OptionError: a path with another ending.
        CheckpointError: metadata that JSON cannot hold, or weights that are not finite.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise OptionError(f"a checkpoint's name ends in .safetensors; got {path}")
    metadata = Metadata(
        name=network.name,
        options=network.options.to_dict(),
        input_height=input_height,
        training_data=training_data,
        scores=dict(scores or {}),
        extra=dict(extra or {}),
    )
    tensors = {}
    for name, tensor in network.state_dict().items():
        stored = tensor.detach().cpu().to(dtype if tensor.is_floating_point() else tensor.dtype)
        if not torch.isfinite(stored).all():
            raise CheckpointError(f"{name} is not finite as {stored.dtype}; {path} was not written")
        tensors[name] = stored.contiguous()
    try:
        header = json.dumps(asdict(metadata))
    except TypeError as error:
        raise CheckpointError(f"the metadata of {path} is not JSON: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={_HEADER: header})
    partial.chmod(0o644)  # safetensors makes files that only their owner may read; a node runs as somebody else
    partial.replace(path)
    return metadata


def read_metadata(path: str | Path) -> Metadata:
    """Read what a checkpoint says about itself, without its tensors.

    Raises:
        MissingFileError: no such file.
        CheckpointError: not a checkpoint of this package, or one that is damaged or newer than this version knows.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"weights {path} do not exist")
    try:
        with safe_open(path, "pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
    except SafetensorError as error:
        hint = " (a released .pth.tar is imported by `sfi convert`)" if ".pth" in path.name else ""
        raise CheckpointError(f"{path} is not a readable .safetensors file: {error}{hint}") from error
    if header is None:
        raise CheckpointError(f"{path} holds tensors but no sfi_ros metadata, so it does not say which network it is")
    try:
        values = json.loads(header)
        if values["format"] > FORMAT:
            raise CheckpointError(
                f"{path} has format {values['format']}, written by sfi_ros {values['package_version']}; this is "
                f"{__version__}, which knows formats up to {FORMAT}: upgrade it"
            )
        known = {f.name for f in fields(Metadata)}
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key in known}
        return Metadata(**values)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"the metadata of {path} is damaged: {error!r}") from error


def load(path: str | Path) -> Checkpoint:
    """Rebuild the network that a checkpoint describes and fill it.

    Raises:
        MissingFileError, CheckpointError: see `read_metadata`; also when the tensors do not fit the network that
            the metadata names.
    """
    path = Path(path)
    metadata = read_metadata(path)
    if tuple(metadata.background_classes) != BACKGROUND_CLASSES:
        raise CheckpointError(
            f"{path} was trained for the classes {', '.join(metadata.background_classes)}; this package publishes "
            f"{', '.join(BACKGROUND_CLASSES)}"
        )
    if (tuple(metadata.mean), tuple(metadata.std)) != (IMAGENET_MEAN, IMAGENET_STD):
        raise CheckpointError(f"{path} wants images normalised with {metadata.mean}, {metadata.std}")
    try:
        network = zoo.build(metadata.name, **metadata.options)
    except ValueError as error:
        raise CheckpointError(f"{path} describes a network that cannot be built: {error}") from error
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
    _fill(network, state, str(path))
    return Checkpoint(network, metadata)


def _fill(network: SceneNetwork, state: Mapping[str, Tensor], source: str) -> None:
    own = network.state_dict()
    for name, tensor in own.items():
        if name not in state:
            raise CheckpointError(f"{source} lacks {name}, which {network.name} needs")
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{name} in {source} has shape {tuple(state[name].shape)}; {network.name} needs {tuple(tensor.shape)}"
            )
        if not torch.isfinite(state[name]).all():
            raise CheckpointError(f"{name} in {source} holds values that are not finite")
    unknown = next((name for name in state if name not in own), None)
    if unknown is not None:
        raise CheckpointError(f"{source} holds {unknown}, which {network.name} does not have")
    network.load_state_dict(state)
    network.eval()


# --- the authors' released checkpoints -----------------------------------------------------------------------------

_RELEASED_NAMES = (
    (r"^feats\.convforeout\.", "foreground.head."),
    (r"^feats\.(conv1|bn1|layer1|layer2)\.", r"early.\1."),
    (r"^feats\.(layer3|layer4)\.", r"late.\1."),
    (r"^convfore\.convforeout\.", "foreground.head."),
    (r"^convfore\.", "foreground.encoder."),
    (r"^psp\.", "decoder.pyramid."),
    (r"^up_(\d)\.", r"decoder.up_\1."),
    (r"^final\.0\.", "decoder.classifier."),
)
"""Their parameter names -> ours, first match wins."""


def import_released(path_or_state_dict: str | Path | Mapping[str, Tensor], name: str | None = None) -> SceneNetwork:
    """Import a checkpoint of the authors' released code.

    Args:
        path_or_state_dict: a `.pth.tar` file (a dict with `state_dict_G`, read without executing code), or the
            state dict itself.
        name: which network it is; by default told from its keys.

    Returns:
        The network in evaluation mode, with the released code's `boundary="raw"`.

    Raises:
        MissingFileError: no such file.
        CheckpointError: not such a file; names the first parameter that is missing, mis-shaped or unknown.
    """
    if isinstance(path_or_state_dict, Mapping):
        source, state = "the state dict", path_or_state_dict
    else:
        source, state = str(path_or_state_dict), _read_released(Path(path_or_state_dict))
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}  # as saved under DataParallel
    name = name or _detect_released(state, source)
    network = zoo.build(name, boundary="raw")
    theirs = {_our_name(key): key for key in state}
    for own_name, tensor in network.state_dict().items():
        their_name = theirs.get(own_name)
        if their_name is None:
            raise CheckpointError(f"{source} lacks {_their_name(own_name, name)}, which the released {name} has")
        if state[their_name].shape != tensor.shape:
            raise CheckpointError(
                f"{their_name} in {source} has shape {tuple(state[their_name].shape)}; the released {name} has "
                f"{tuple(tensor.shape)}"
            )
    _fill(network, {_our_name(key): tensor for key, tensor in state.items()}, source)
    return network


def _read_released(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise MissingFileError(f"released checkpoint {path} does not exist")
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path} is a .safetensors file already; the released checkpoints are .pth.tar files")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its unpickler lets whatever it meets through
        raise CheckpointError(f"{path} cannot be read as a PyTorch file of plain tensors: {error}") from error
    if not isinstance(content, dict) or "state_dict_G" not in content:
        found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} is not a released checkpoint: it has no state_dict_G but {found}")
    return content["state_dict_G"]


def _detect_released(state: Mapping[str, Tensor], source: str) -> str:
    depth = "50" if "feats.layer1.0.conv3.weight" in state else "18"
    if "convfore.conv1.weight" in state:
        return f"paper-resnet{depth}"
    if "feats.convforeout.0.weight" in state:
        return f"paper-resnet{depth}-shared"
    raise CheckpointError(
        f"{source} is no released network: it has neither convfore.conv1.weight nor feats.convforeout.0.weight "
        f"but names such as {', '.join(list(state)[:3])}"
    )


def _our_name(released: str) -> str:
    for pattern, replacement in _RELEASED_NAMES:
        renamed, count = re.subn(pattern, replacement, released)
        if count:
            return renamed
    return released


def _their_name(ours: str, network_name: str) -> str:
    """The released name of one of our parameters, for error messages."""
    fore = "feats.convforeout." if network_name.endswith("-shared") else "convfore.convforeout."
    for pattern, replacement in (
        (r"^foreground\.head\.", fore),
        (r"^foreground\.encoder\.", "convfore."),
        (r"^(early|late)\.", "feats."),
        (r"^decoder\.pyramid\.", "psp."),
        (r"^decoder\.up_", "up_"),
        (r"^decoder\.classifier\.", "final.0."),
    ):
        renamed, count = re.subn(pattern, replacement, ours)
        if count:
            return renamed
    return ours
