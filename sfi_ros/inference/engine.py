"""The engine: camera images in, scenes out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sfi_ros.inference.device import choose_device, choose_precision
from sfi_ros.inference.images import check_image
from sfi_ros.inference.scene import Scene, Timing
from sfi_ros.inference.weights import DefaultWeightsMissing, load_weights
from sfi_ros.network.checkpoint import Checkpoint
from sfi_ros.network.preprocessing import network_size, normalize, resize_images

OutputSize = Literal["input", "network"]


class InferenceEngine:
    """Runs one network on one device.

    Example:
        >>> engine = InferenceEngine.load()
        >>> scene = engine(image)  # H x W x 3 uint8 RGB
        >>> scene.foreground, scene.background

    Args:
        checkpoint: network and metadata.
        weights_name: what to call these weights.
        device: see `device.choose_device`.
        precision: see `device.choose_precision`.
        input_height: height at which the network runs; None for the one it was trained for.
        output_size: "input" returns scenes of the image's size, "network" of the network's.
        foreground_threshold: probability above which a pixel is foreground in the mask. What the network inpaints
            stays as it was trained, everything above 0.5.

    `output_size` and `foreground_threshold` may be changed between calls.

    Raises:
        ValueError, RuntimeError: an option that is unknown or a device that does not work.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        weights_name: str,
        *,
        device: str = "auto",
        precision: str = "auto",
        input_height: int | None = None,
        output_size: OutputSize = "input",
        foreground_threshold: float = 0.5,
    ):
        if output_size not in ("input", "network"):
            raise ValueError(f"output_size must be 'input' or 'network'; got {output_size!r}")
        if not 0.0 < foreground_threshold < 1.0:
            raise ValueError(f"foreground_threshold must be between 0 and 1; got {foreground_threshold}")
        if checkpoint.network.options.mask_source == "given":
            raise ValueError(
                f"{weights_name} was trained with mask_source='given': it predicts no mask of its own, so it cannot "
                "run on a camera alone"
            )
        height = checkpoint.metadata.input_height if input_height is None else input_height
        if not 32 <= height <= 4096:
            raise ValueError(f"input_height must be within 32..4096; got {height}")
        self.metadata = checkpoint.metadata
        self.weights_name = weights_name
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        self.input_height = height
        self.output_size = output_size
        self.foreground_threshold = foreground_threshold
        self._network = checkpoint.network.to(self.device, self.dtype).to(memory_format=torch.channels_last)

    @classmethod
    def load(
        cls,
        weights: str | Path | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
        input_height: int | None = None,
        output_size: OutputSize = "input",
        foreground_threshold: float = 0.5,
    ) -> InferenceEngine:
        """Load a checkpoint; None means the default one, or, with a warning, an untrained network if none ships.

        Raises:
            FileNotFoundError, CheckpointError: see `checkpoint.load`.
            ValueError, RuntimeError: see `InferenceEngine`.
        """
        checkpoint, name = load_weights(weights)
        engine = cls(
            checkpoint,
            name,
            device=device,
            precision=precision,
            input_height=input_height,
            output_size=output_size,
            foreground_threshold=foreground_threshold,
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
    def __call__(self, images: np.ndarray) -> Scene: ...

    @overload
    def __call__(self, images: Sequence[np.ndarray]) -> list[Scene]: ...

    @torch.inference_mode()
    def __call__(self, images: np.ndarray | Sequence[np.ndarray]) -> Scene | list[Scene]:
        """Infer one image, or several; neighbours of one size in a list share a batch.

        Args:
            images: (H, W, 3) uint8 RGB, or a list of them, of any sizes.

        Returns:
            One `Scene`, or a list of them in the same order.

        Raises:
            ValueError: anything else; nothing was computed then.
        """
        if isinstance(images, np.ndarray):
            return self._infer([check_image(images)])[0]
        if not isinstance(images, Sequence):
            raise ValueError(f"images is a {type(images).__name__}; accepted are an array or a list of arrays")
        checked = [check_image(image, position) for position, image in enumerate(images)]
        scenes: list[Scene] = []
        start = 0
        for end in range(1, len(checked) + 1):
            if end == len(checked) or checked[end].shape != checked[start].shape:
                scenes += self._infer(checked[start:end])
                start = end
        return scenes

    def _infer(self, images: list[np.ndarray]) -> list[Scene]:
        """Infer images of one size in one batch."""
        began = time.perf_counter()
        batch = self._upload(images)
        height, width = batch.shape[-2:]
        resized = resize_images(batch, network_size(height, width, self.input_height))
        network_input = normalize(resized).to(self.dtype).contiguous(memory_format=torch.channels_last)
        self._synchronize()
        preprocessed = time.perf_counter()
        logits = self._network(network_input)
        self._synchronize()
        inferred = time.perf_counter()
        size = (height, width) if self.output_size == "input" else tuple(network_input.shape[-2:])
        decided = self._decide(logits.foreground, logits.background, size)
        foreground, background, confidence = (tensor.cpu().numpy() for tensor in decided)
        finished = time.perf_counter()
        timing = Timing(preprocessed - began, inferred - preprocessed, finished - inferred)
        return [Scene(f, b, c, timing) for f, b, c in zip(foreground, background, confidence, strict=True)]

    def _upload(self, images: list[np.ndarray]) -> Tensor:
        """Images as one (N, 3, H, W) uint8 tensor on the device, channels last: the bytes are not rearranged."""
        arrays = images[0][None] if len(images) == 1 else np.stack(images)
        if not (arrays.flags.c_contiguous and arrays.flags.writeable):  # PyTorch shares memory with neither
            arrays = arrays.copy()
        batch = torch.from_numpy(arrays)
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        return batch.permute(0, 3, 1, 2)

    def _decide(self, foreground: Tensor, background: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits -> mask, class and confidence, each (N, *size) uint8.

        Probabilities, not classes, are resized, so that borders are smooth. On a CPU they are bytes by then, which
        resize several times faster than floats.
        """
        objects = foreground.float().sigmoid().amax(1, keepdim=True)
        probabilities = torch.cat([objects, background.float().softmax(1)], 1) * 255
        if probabilities.shape[-2:] != torch.Size(size):
            if self.device.type == "cpu":
                probabilities = probabilities.round_().to(torch.uint8)
            probabilities = F.interpolate(probabilities, size=size, mode="bilinear", align_corners=False)
        confidence, classes = probabilities[:, 1:].max(1)
        if confidence.is_floating_point():
            confidence = confidence.round_()
        mask = probabilities[:, 0] > 255 * self.foreground_threshold
        return mask.to(torch.uint8), classes.to(torch.uint8), confidence.to(torch.uint8)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
