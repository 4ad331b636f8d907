"""The engine: camera images in, scenes out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, overload

import numpy as np

from sfi_ros.classes import FOREGROUND_THRESHOLD
from sfi_ros.errors import ImageError, OptionError
from sfi_ros.inference.backends import Model, open_model
from sfi_ros.inference.images import check_image
from sfi_ros.inference.scene import Scene
from sfi_ros.inference.temporal import TemporalFilter
from sfi_ros.memory import give_back, keep_freed
from sfi_ros.network.shipped_weights import DefaultWeightsMissing
from sfi_ros.options import INPUT_HEIGHTS, OUTPUT_SIZES

OutputSize = Literal["input", "network"]


class InferenceEngine:
    """Runs one network on one device.

    Example:
        >>> engine = InferenceEngine.load()
        >>> scene = engine(image)  # H x W x 3 uint8 RGB
        >>> scene.foreground, scene.background

    Args:
        model: what to run; see `open_model`.
        input_height: height at which the network runs; None for the one it was trained for.
        output_size: "input" returns scenes of the image's size, "network" of the network's.
        foreground_threshold: probability above which a pixel is foreground in the mask. What the network inpaints
            stays as it was trained, everything above 0.5.

    Attributes:
        metadata: of the checkpoint.
        weights_name: what to call these weights.
        device, precision, backend: where, in what numbers and by what the network is computed, by their names.

    `output_size` and `foreground_threshold` may be changed between calls.

    Raises:
        OptionError: an option that is out of its range.
    """

    def __init__(
        self,
        model: Model,
        *,
        input_height: int | None = None,
        output_size: OutputSize = "input",
        foreground_threshold: float = FOREGROUND_THRESHOLD,
    ):
        if output_size not in OUTPUT_SIZES:
            raise OptionError(f"output_size must be 'input' or 'network'; got {output_size!r}")
        if not 0.0 < foreground_threshold < 1.0:
            raise OptionError(f"foreground_threshold must be between 0 and 1; got {foreground_threshold}")
        height = model.metadata.input_height if input_height is None else input_height
        smallest, largest = INPUT_HEIGHTS
        if not smallest <= height <= largest:
            raise OptionError(f"input_height must be within {smallest}..{largest}; got {height}")
        self.metadata, self.weights_name = model.metadata, model.weights_name
        self.device, self.precision, self.backend = model.device, model.precision, model.backend
        self.input_height = height
        self.output_size = output_size
        self.foreground_threshold = foreground_threshold
        self._pipeline = model.pipeline

    @classmethod
    def load(
        cls,
        weights: str | Path | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
        backend: str = "auto",
        threads: int | None = None,
        input_height: int | None = None,
        output_size: OutputSize = "input",
        foreground_threshold: float = FOREGROUND_THRESHOLD,
    ) -> InferenceEngine:
        """Load a checkpoint or an exported network, by default the weights that ship.

        From then on glibc keeps what this process frees, in one heap: see `memory.keep_freed`.

        Args:
            weights: a `.safetensors` checkpoint or an `.onnx` file of `sfi export`, which needs no PyTorch; or the name
                of weights that ship (`sfi weights` lists them). None means the default ones (see
                `shipped_weights.default_weights`) or, with a warning, an untrained network if none ship.
            device: see `device.choose_device`.
            precision: see `device.choose_precision`.
            backend: see `backends.open_model`.
            threads: most CPU threads of this process's OpenCV and of what computes the network, of the cores that there
                are; None leaves them as they are.
            input_height, output_size, foreground_threshold: see `InferenceEngine`.

        Raises:
            MissingFileError, CheckpointError: see `checkpoint.load`.
            OptionError: an option that is unknown or out of range.
            UnavailableError: a device, package or compiler that is not there or does not work.
        """
        keep_freed()
        model = open_model(weights, device=device, precision=precision, backend=backend, threads=threads)
        give_back()
        engine = cls(
            model, input_height=input_height, output_size=output_size, foreground_threshold=foreground_threshold
        )
        if not engine.is_trained:
            message = "no weights were named and no default ships: this network is UNTRAINED, its results mean nothing"
            warnings.warn(message, DefaultWeightsMissing, stacklevel=2)
        return engine

    @property
    def is_trained(self) -> bool:
        """False for the placeholder that runs when no weights exist."""
        return not self.weights_name.startswith("untrained ")

    @overload
    def __call__(self, images: np.ndarray, memory: TemporalFilter | None = None) -> Scene: ...

    @overload
    def __call__(self, images: Sequence[np.ndarray], memory: Sequence[TemporalFilter] | None = None) -> list[Scene]: ...

    def __call__(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        memory: TemporalFilter | Sequence[TemporalFilter] | None = None,
    ) -> Scene | list[Scene]:
        """Infer one image, or several; neighbours of one size in a list share a batch.

        Args:
            images: (H, W, 3) uint8 RGB, or a list of them, of any sizes.
            memory: of the camera that took the image, or a list of them, one for each image: what it saw before
                steadies the result. None: each image by itself.

        Returns:
            One `Scene`, or a list of them in the same order.

        Raises:
            ImageError: anything else; nothing was computed then.
            OptionError: not one memory for each image.
        """
        memories = [memory] if isinstance(memory, TemporalFilter) else list(memory or ())
        if memories and len(memories) != (1 if isinstance(images, np.ndarray) else len(images)):
            raise OptionError(f"{len(memories)} memories were given; each image needs that of its camera")
        if isinstance(images, np.ndarray):
            return self._infer([[check_image(images)]], memories)[0]
        if not isinstance(images, Sequence):
            raise ImageError(f"images is a {type(images).__name__}; accepted are an array or a list of arrays")
        groups: list[list[np.ndarray]] = []
        for position, image in enumerate(images):
            if groups and groups[-1][0].shape == check_image(image, position).shape:
                groups[-1].append(image)
            else:
                groups.append([check_image(image, position)])
        return self._infer(groups, memories)

    def facts(self) -> dict[str, str]:
        """Return what else there is to say about where it runs, such as the GPU's name, for people."""
        return self._pipeline.facts()

    def close(self) -> None:
        """Let go of the network and its memory; the engine cannot be used any more."""
        self._pipeline.close()

    def _infer(self, groups: list[list[np.ndarray]], memories: Sequence[TemporalFilter]) -> list[Scene]:
        at_input_size = self.output_size == "input"
        return self._pipeline(groups, self.input_height, at_input_size, self.foreground_threshold, memories)
