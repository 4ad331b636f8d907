"""Import of the checkpoints that the paper's authors released: `.pth.tar`, which PyTorch writes as a pickle."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from sfi_ros.errors import shown
from sfi_ros.network.checkpoint import CheckpointError, check_fit, empty_network, fill
from sfi_ros.network.scene_network import SceneNetwork
from sfi_ros.network.tensor_file import StoredTensor
from sfi_ros.network.weights_file import check_file

MAX_CONTENT: Final = 2 << 30
"""Most bytes that a file may unpack to; `paper-resnet50` with Adam's averages has 0.7e9."""

_NAMES: Final = (
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

_DTYPES: Final = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


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
        OptionError: no network has this name.
        CheckpointError: not such a file; names the first parameter that is missing, mis-shaped or unknown.
    """
    if isinstance(path_or_state_dict, Mapping):
        source, state = "the state dict", path_or_state_dict
    else:
        source, state = str(path_or_state_dict), _read(Path(path_or_state_dict))
    state = _plain_tensors(state, source)
    network_name = name or _detect(state, source)
    network = empty_network(network_name, {"boundary": "raw"})
    ours = {_our_name(key): tensor for key, tensor in state.items()}
    stored = {key: StoredTensor(_dtype_name(tensor), tuple(tensor.shape)) for key, tensor in ours.items()}
    check_fit(
        network,
        stored,
        source,
        their_name=lambda key: _their_name(key, network_name),
        wanted_by=f"the released {network_name}",
    )
    fill(network, ours, source)
    return network


class _NumpyValue:
    """Stands in for a number or array of NumPy's beside the tensors, such as a score. What it was is not kept.

    NumPy's own functions are not let near a file from outside: they take what a pickle says about types at its word.
    """

    def __init__(self, *_: object):
        pass

    def __setstate__(self, _: object) -> None:
        pass


_NUMPY: Final[list[Any]] = [
    type(name, (_NumpyValue,), {"__module__": module})
    for module, name in (
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    )
]
"""What NumPy pickles its numbers and arrays with, by the names of its versions 1 and 2."""


def _read(path: Path) -> Any:
    check_file(path)
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path} is a .safetensors file already; the released checkpoints are .pth.tar files")
    _check_archive(path)
    try:
        with torch.serialization.safe_globals(_NUMPY), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how old its format is
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its unpickler lets whatever it meets through
        raise CheckpointError(_why_unreadable(path, str(error))) from error
    if not isinstance(content, dict) or "state_dict_G" not in content:
        found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} is not a released checkpoint: it has no state_dict_G but {shown(found)}")
    return content["state_dict_G"]


def _check_archive(path: Path) -> None:
    """Refuse archives of other kinds, and what unpacks to more than a network can have."""
    with path.open("rb") as file:
        begin = file.read(512)
    if begin.startswith(b"\x1f\x8b") or begin[257:262] == b"ustar":
        raise CheckpointError(f"{path} is packed: unpack it with `tar -xf {path}` and name the file within")
    if not zipfile.is_zipfile(path):
        return  # as PyTorch wrote it before version 1.6
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path} is a damaged archive: {shown(str(error))}; copy or download it again") from error
    if size > MAX_CONTENT:
        raise CheckpointError(f"{path} unpacks to {size} bytes, more than any released checkpoint has")


def _why_unreadable(path: Path, error: str) -> str:
    """One sentence out of PyTorch's page of advice, none of which a command could follow."""
    error = re.sub(r"\x1b\[[\d;]*m", "", error)
    if "WeightsUnpickler error" not in error and "Weights only load failed" not in error:
        reason = shown(re.split(r"\n|\. ", error.strip())[0])
        return f"{path} cannot be read as a PyTorch file: {reason}; copy or download it again"
    refused = re.search(r"GLOBAL (\S+)|Unsupported class (\S+)|class (\S+) whose", error)
    found = f"an object of {next(filter(None, refused.groups()))}" if refused else "something"
    return (
        f"{path} holds {shown(found)} that is not plain tensors, and reading it could execute code: if you trust the "
        "file, save its tensors alone with "
        f"python -c \"import torch; f = torch.load({str(path)!r}, map_location='cpu', weights_only=False); "
        "torch.save({'state_dict_G': f['state_dict_G']}, 'tensors.pth.tar')\" and convert tensors.pth.tar"
    )


def _plain_tensors(state: Any, source: str) -> dict[str, Tensor]:
    """Return the state dict, its names without DataParallel's prefix."""
    if not isinstance(state, Mapping):
        raise CheckpointError(f"state_dict_G in {source} is not a dictionary of tensors but a {type(state).__name__}")
    for key, tensor in state.items():
        if not isinstance(key, str):
            raise CheckpointError(f"state_dict_G in {source} has a name that is not a text: {shown(key)}")
        is_plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not is_plain or tensor.is_quantized:
            raise CheckpointError(f"{shown(key)} in {source} is not a plain tensor; save it as one")
    return {key.removeprefix("module."): tensor for key, tensor in state.items()}


def _dtype_name(tensor: Tensor) -> str:
    return _DTYPES.get(tensor.dtype, "I64" if tensor.dtype == torch.int64 else str(tensor.dtype))


def _detect(state: Mapping[str, Tensor], source: str) -> str:
    depth = "50" if "feats.layer1.0.conv3.weight" in state else "18"
    if "convfore.conv1.weight" in state:
        return f"paper-resnet{depth}"
    if "feats.convforeout.0.weight" in state:
        return f"paper-resnet{depth}-shared"
    raise CheckpointError(
        f"{source} is no released network: it has neither convfore.conv1.weight nor feats.convforeout.0.weight "
        f"but names such as {shown(', '.join(list(state)[:3]))}"
    )


def _our_name(released: str) -> str:
    for pattern, replacement in _NAMES:
        renamed, count = re.subn(pattern, replacement, released)
        if count:
            return renamed
    return released


def _their_name(ours: str, network_name: str) -> str:
    """Return the released name of one of our parameters, for error messages."""
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
