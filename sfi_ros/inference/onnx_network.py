"""ONNX Runtime as a backend: runs the files that `sfi export` writes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor

from sfi_ros import __version__
from sfi_ros.errors import ImageError, MissingFileError, OptionError, UnavailableError
from sfi_ros.network.checkpoint import FORMAT, CheckpointError, Metadata
from sfi_ros.network.outputs import SceneLogits

logger = logging.getLogger(__name__)

METADATA_KEY: Final = "sfi_ros"
"""In the file's metadata: the checkpoint's `Metadata` as JSON."""

EXPORT_KEY: Final = "sfi_ros_export"
"""In the file's metadata: `ExportRecord` as JSON."""

PROVIDERS: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


@dataclass(frozen=True)
class ExportRecord:
    """How an exported file came to be, and for which images it is.

    Attributes:
        weights: name of the checkpoint.
        weights_sha256: hash of that file.
        torch: version that traced the network.
        opset: version of ONNX's operators; None for a PyTorch program.
        size: (height, width) of the images; None for any.
        min_side, max_side: limits of both sides where `size` is None, in pixels.
    """

    weights: str
    weights_sha256: str
    torch: str
    opset: int | None
    size: tuple[int, int] | None
    min_side: int
    max_side: int


class OnnxNetwork:
    """An exported network.

    Args:
        path: `.onnx` file of `sfi export`.
        device: where to run it. Images and logits are on the CPU in any case; ONNX Runtime copies them.
        threads: most CPU threads; None for as many as PyTorch uses.
        provider: "cpu", "cuda" or "tensorrt" (on a CUDA device); None for that of the device.

    Attributes:
        metadata: of the checkpoint that was exported.
        record: how, and for which images.
        dtype: what it computes in.

    Raises:
        MissingFileError: no such file.
        CheckpointError: not an ONNX file, or none of ours.
        OptionError: a provider that is unknown or does not fit the device.
        UnavailableError: ONNX Runtime or its provider is not installed or does not start; no other takes its place.
    """

    dtype: Final = torch.float32

    def __init__(
        self, path: str | Path, *, device: torch.device, threads: int | None = None, provider: str | None = None
    ):
        ort = import_onnxruntime()
        self._path = Path(path)
        self._name = _provider_name(ort, device, provider)
        self.metadata, self.record = read_exported(self._path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        # Idle threads would spin, on cores that a robot's other processes need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        settings: dict[str, str] = {}
        if device.type == "cuda":
            settings["device_id"] = str(device.index or 0)
            if hasattr(ort, "preload_dlls"):
                ort.preload_dlls()  # CUDA and cuDNN as PyTorch's wheels brought them
        providers = [(self._name, settings)]
        self._seen: set[torch.Size] | None = None  # shapes, where each new one may be compiled
        if self._name == PROVIDERS["tensorrt"]:
            providers.append((PROVIDERS["cuda"], dict(settings)))  # for what TensorRT leaves out
            settings |= _tensorrt_settings(engine_cache(ort, self._path, device))
            self._seen = set()
        try:
            self._session = ort.InferenceSession(self._path, options, providers=providers)
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise UnavailableError(f"{self._name} cannot run {self._path}: {error}") from error
        if self._session.get_providers()[0] != self._name:  # it logs why, and goes on with another
            raise UnavailableError(
                f"ONNX Runtime has {self._name}, but it does not start: check that its libraries (CUDA, cuDNN, "
                f"TensorRT) have the versions that onnxruntime {ort.__version__} was built for, or use device 'cpu'"
            )

    def __call__(self, images: Tensor) -> SceneLogits:
        """Run the network.

        Args:
            images: (N, 3, h, w) uint8 RGB on the CPU, of the size that the file is for.

        Returns:
            Logits of size (h, w), float32, on the CPU.

        Raises:
            ImageError: images that the file is not for.
        """
        self._check(images)
        self._announce(images.shape)
        foreground, background = self._session.run(["foreground", "background"], {"image": images.contiguous().numpy()})
        return SceneLogits(torch.from_numpy(background), torch.from_numpy(foreground))

    def _check(self, images: Tensor) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ImageError(f"images must be (N, 3, h, w) uint8; got {tuple(images.shape)} of {images.dtype}")
        height, width = images.shape[-2:]
        record = self.record
        if record.size is not None and (height, width) != record.size:
            raise ImageError(
                f"{self._path} is for images of {record.size[0]}x{record.size[1]} (height x width); got "
                f"{height}x{width}: export it with --size {height}x{width}, or without --size for any"
            )
        if min(height, width) < record.min_side or max(height, width) > record.max_side:
            raise ImageError(
                f"{self._path} is for images with sides of {record.min_side} to {record.max_side} pixels; got "
                f"{height}x{width}: export it with --max-side or --size"
            )

    def _announce(self, shape: torch.Size) -> None:
        if self._seen is not None and shape not in self._seen:
            self._seen.add(shape)
            size = "x".join(map(str, shape))
            logger.warning("TensorRT: first input of %s; if it compiles an engine for it, this takes minutes", size)


def import_onnxruntime() -> ModuleType:
    """ONNX Runtime, which is optional.

    Raises:
        UnavailableError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError(
            "onnxruntime is not installed; install it with `pip install onnxruntime` (`onnxruntime-gpu` for a GPU)"
        ) from error
    return onnxruntime


def read_exported(path: str | Path) -> tuple[Metadata, ExportRecord]:
    """What an exported `.onnx` file says about itself.

    Raises:
        MissingFileError: no such file.
        CheckpointError: not an ONNX file, none that `sfi export` wrote, or one that is newer than this version knows.
        UnavailableError: ONNX Runtime is not installed.
    """
    ort = import_onnxruntime()
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"weights {path} do not exist")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # the graph is not going to run
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise CheckpointError(f"{path} is not a readable ONNX file: {error}") from error
    said = session.get_modelmeta().custom_metadata_map
    if METADATA_KEY not in said or EXPORT_KEY not in said:
        raise CheckpointError(f"{path} holds no sfi_ros metadata: it was not written by `sfi export`")
    try:
        values, record = json.loads(said[METADATA_KEY]), json.loads(said[EXPORT_KEY])
        if values["format"] > FORMAT:
            raise CheckpointError(f"{path} was written by sfi_ros {values['package_version']}, this is {__version__}")
        return Metadata(**_known(Metadata, values)), ExportRecord(**_known(ExportRecord, record))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"the metadata of {path} is damaged: {error!r}") from error


def engine_cache(ort: ModuleType, path: Path, device: torch.device) -> Path:
    """Where TensorRT keeps what it compiles: one folder for each GPU model, versions and file. It is made."""
    gpu = torch.cuda.get_device_name(device).replace(" ", "-")
    file_hash = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "sfi_ros" / "tensorrt" / f"{gpu}-ort{ort.__version__}-trt{_tensorrt_version()}-{file_hash}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _provider_name(ort: ModuleType, device: torch.device, provider: str | None) -> str:
    provider = provider or device.type
    if provider not in PROVIDERS:
        raise OptionError(f"unknown provider {provider!r}; use {', '.join(PROVIDERS)}")
    if (provider == "cpu") != (device.type == "cpu"):
        raise OptionError(f"provider {provider!r} does not run on device {str(device)!r}")
    name = PROVIDERS[provider]
    available = ort.get_available_providers()
    if name not in available:
        raise UnavailableError(
            f"this onnxruntime {ort.__version__} has no {name} but {', '.join(available)}: replace it by "
            "onnxruntime-gpu (`pip uninstall onnxruntime`, then `pip install onnxruntime-gpu`), or use device 'cpu'"
        )
    return name


def _tensorrt_settings(cache: Path) -> dict[str, str]:
    if not any(cache.glob("*.engine")):
        logger.warning("TensorRT compiles this network for this GPU, once and for minutes, and keeps it in %s", cache)
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
    }


def _tensorrt_version() -> str:
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    package = next((name for name in ("tensorrt", "tensorrt_cu13", "tensorrt_cu12") if name in installed), None)
    return importlib.metadata.version(package) if package else "-of-the-system"


def _known(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values that `kind` has a field for; JSON's lists become tuples."""
    names = {field.name for field in fields(kind)}
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key in names}
