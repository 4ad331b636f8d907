"""ONNX Runtime as a backend: runs the files that `sfi export` writes. PyTorch is not needed for that."""

from __future__ import annotations

import importlib.metadata
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from sfi_ros.classes import BACKGROUND_CLASSES, FOREGROUND_CLASSES
from sfi_ros.errors import ImageError, OptionError, UnavailableError, shown
from sfi_ros.inference.onnx_file import OnnxFile, read_onnx
from sfi_ros.inference.threads import usual_threads
from sfi_ros.network.metadata import CheckpointError, Metadata, from_json, require, require_integer
from sfi_ros.optional import has_pytorch

logger = logging.getLogger(__name__)

METADATA_KEY: Final = "sfi_ros"
"""In the file's metadata: the checkpoint's `Metadata` as JSON."""

EXPORT_KEY: Final = "sfi_ros_export"
"""In the file's metadata: `ExportRecord` as JSON."""

MAX_SIDE: Final = 1 << 14
"""Pixels; no file is for longer images."""

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
        graph_sha256: hash of the ONNX file but for its metadata; "" for a PyTorch program.
        stored: numbers that its convolutions' weights are stored in, "float32" or "float16"; it computes in float32.

    Raises:
        OptionError: a value of another type or out of its range.
    """

    weights: str
    weights_sha256: str
    torch: str
    opset: int | None
    size: tuple[int, int] | None
    min_side: int
    max_side: int
    graph_sha256: str
    stored: str = "float32"

    def __post_init__(self) -> None:
        for name in ("weights", "weights_sha256", "torch", "graph_sha256", "stored"):
            require(isinstance(getattr(self, name), str), name, "a text", getattr(self, name))
        if self.opset is not None:
            require_integer("opset", self.opset, 1, 1000)
        require_integer("max_side", self.max_side, 1, MAX_SIDE)
        require_integer("min_side", self.min_side, 1, self.max_side)
        if self.size is not None:
            require(isinstance(self.size, tuple) and len(self.size) == 2, "size", "a height and a width", self.size)
            for side in self.size:
                require_integer("a side of size", side, self.min_side, self.max_side)


class OnnxNetwork:
    """An exported network.

    Args:
        path: `.onnx` file of `sfi export`.
        device: where to run it, "cpu", "cuda" or "cuda:N". Images and logits are on the CPU in any case; ONNX Runtime
            copies them.
        threads: most CPU threads; None for `usual_threads`.
        provider: "cpu", "cuda" or "tensorrt" (on a CUDA device); None for that of the device.

    Attributes:
        metadata: of the checkpoint that was exported.
        record: how, and for which images.

    Raises:
        MissingFileError: no such file.
        CheckpointError: not an ONNX file, or none of ours.
        OptionError: a provider that is unknown or does not fit the device.
        UnavailableError: ONNX Runtime or its provider is not installed or does not start; no other takes its place.
    """

    def __init__(self, path: str | Path, *, device: str, threads: int | None = None, provider: str | None = None):
        ort = import_onnxruntime()
        self._path = Path(path)
        self._name = _provider_name(ort, device, provider)
        file, self.metadata, self.record = _read(self._path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or usual_threads()
        options.inter_op_num_threads = 1
        # Idle threads would spin, on cores that a robot's other processes need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # a plan for each size would hold 40 MB more and save no time
        settings: dict[str, str] = {}
        if device != "cpu":
            settings["device_id"] = device.partition(":")[2] or "0"
            if hasattr(ort, "preload_dlls"):
                ort.preload_dlls()  # CUDA and cuDNN as PyTorch's wheels brought them
        providers = [(self._name, settings)]
        self._seen: set[tuple[int, ...]] | None = None  # shapes, where each new one may be compiled
        if self._name == PROVIDERS["tensorrt"]:
            providers.append((PROVIDERS["cuda"], dict(settings)))  # for what TensorRT leaves out
            settings |= _tensorrt_settings(engine_cache(ort, file.graph_sha256, device))
            self._seen = set()
        try:
            self._session = ort.InferenceSession(file.content, options, providers=providers)
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise UnavailableError(f"{self._name} cannot run {self._path}: {shown(str(error))}") from error
        _check_graph(self._session, self.metadata, self._path)
        if self._session.get_providers()[0] != self._name:  # it logs why, and goes on with another
            raise UnavailableError(
                f"ONNX Runtime has {self._name}, but it does not start: check that its libraries (CUDA, cuDNN, "
                f"TensorRT) have the versions that onnxruntime {ort.__version__} was built for, or use device 'cpu'"
            )

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network.

        Args:
            images: (N, 3, h, w) uint8 RGB, of the size that the file is for.

        Returns:
            Logits of the foreground, (N, 1, h, w), of the background, (N, 3, h, w), and, if it tells them, of kinds of
            objects, (N, 3, h, w); all float32.

        Raises:
            ImageError: images that the file is not for.
        """
        self._check(images)
        self._announce(images.shape)
        return tuple(self._session.run(list(_planes(self.metadata)), {"image": np.ascontiguousarray(images)}))

    def _check(self, images: np.ndarray) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ImageError(f"images must be (N, 3, h, w) uint8; got {images.shape} of {images.dtype}")
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

    def _announce(self, shape: tuple[int, ...]) -> None:
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
    """Return what an exported `.onnx` file says about itself. ONNX Runtime is not needed for that.

    Raises:
        MissingFileError: no such file.
        CheckpointError: not an ONNX file, none that `sfi export` wrote, or one that is newer than this version knows.
    """
    return _read(Path(path))[1:]


def _read(path: Path) -> tuple[OnnxFile, Metadata, ExportRecord]:
    file = read_onnx(path)
    if METADATA_KEY not in file.texts or EXPORT_KEY not in file.texts:
        raise CheckpointError(f"{path} holds no sfi_ros metadata: it was not written by `sfi export`")
    metadata = from_json(Metadata, file.texts[METADATA_KEY], path)
    metadata.check_supported(path)
    record = from_json(ExportRecord, file.texts[EXPORT_KEY], path)
    if file.graph_sha256 != record.graph_sha256:
        raise CheckpointError(f"{path} is damaged, its checksum is wrong: copy it again, or export it again")
    return file, metadata, record


def _planes(metadata: Metadata) -> dict[str, int]:
    """Return the outputs of a graph, in order, and how many planes each has."""
    kinds = {"kinds": len(FOREGROUND_CLASSES)} if metadata.tells_kinds else {}
    return {"foreground": 1, "background": len(BACKGROUND_CLASSES), **kinds}


def _check_graph(session: Any, metadata: Metadata, path: Path) -> None:
    """Refuse a graph that does not take and give what the metadata says."""
    found = {value.name: [value.type, *value.shape] for value in (*session.get_inputs(), *session.get_outputs())}
    planes = {"image": 3, **_planes(metadata)}
    for name, channels in planes.items():
        kind = "tensor(uint8)" if name == "image" else "tensor(float)"
        right = len(found.get(name, ())) == 5 and [found[name][0], found[name][2]] == [kind, channels]
        if not right or len(found) > len(planes):
            raise CheckpointError(f"{path} is not a network of `sfi export`: its inputs and outputs are {shown(found)}")


def engine_cache(ort: ModuleType, graph_sha256: str, device: str) -> Path:
    """Where TensorRT keeps what it compiles: one folder for each GPU model, versions and graph. It is made."""
    gpu = _gpu_name(device).replace(" ", "-")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "sfi_ros" / "tensorrt" / f"{gpu}-ort{ort.__version__}-trt{_tensorrt_version()}-{graph_sha256[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _gpu_name(device: str) -> str:
    """Return what PyTorch calls a GPU. Without PyTorch TensorRT's own names, which hold its kind, must do."""
    if not has_pytorch():
        return "gpu"
    import torch

    return torch.cuda.get_device_name(device)


def _provider_name(ort: ModuleType, device: str, provider: str | None) -> str:
    provider = provider or device.partition(":")[0]
    if provider not in PROVIDERS:
        raise OptionError(f"unknown provider {provider!r}; use {', '.join(PROVIDERS)}")
    if (provider == "cpu") != (device == "cpu"):
        raise OptionError(f"provider {provider!r} does not run on device {device!r}")
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
