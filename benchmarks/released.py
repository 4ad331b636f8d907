"""The baseline of all benchmarks: the released network as it was released, from a camera's image to masks.

`paper-resnet18` with Algorithm 1 as the literal loop, in plain eager float32, contiguous memory format. It was rebuilt
from the paper and `zoo.py`; nothing of the authors' code is here. It gets the same images and gives the same results,
of the same size, as the engine that it is compared with.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfi_ros.inference import Scene
from sfi_ros.inference.scene import Timing
from sfi_ros.network import checkpoint, mpi
from sfi_ros.network.image_format import network_size
from sfi_ros.network.preprocessing import normalize
from sfi_ros.network.scene_network import SceneNetwork
from sfi_ros.network.sfi_net import SFINet

NAME = "paper-resnet18"


class LiteralFill(nn.Module):
    """The paper's loop in place of the fast max-pooling as inpainting.

    Args:
        boundary: see `mpi.max_pool_inpaint`.
    """

    def __init__(self, boundary: mpi.Boundary):
        super().__init__()
        self.boundary = boundary

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """`mpi.max_pool_inpaint` with `mpi.algorithm_1`."""
        sampled = mpi.sample_mask(mask, features)
        dilated = mpi.dilate(sampled)
        region = dilated if self.boundary == "dilated" else sampled
        return torch.where(region, mpi.algorithm_1(features.detach(), dilated), features)  # no gradient, as released


def with_literal_fill(network: SceneNetwork) -> SFINet:
    """Return the same parts, weights included, with the paper's loop between them."""
    parts = {name: getattr(network, name) for name in ("early", "late", "foreground", "decoder")}
    fill = LiteralFill(network.options.boundary)
    return SFINet(network.name, network.options, **parts, fill=fill).train(network.training)


class ReleasedEngine:
    """Images in, scenes out, with nothing that makes it fast.

    Args:
        weights: checkpoint of `paper-resnet18`; the option boundary="raw" makes it the released network.
        device: where it runs.
        input_height: height at which the network runs.
    """

    def __init__(self, weights: Path, *, device: str = "cpu", input_height: int = 256):
        self.device, self.precision, self.backend = device, "float32", "eager, literal MPI"
        self.input_height = input_height
        self.network = with_literal_fill(checkpoint.load(weights).network).to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray]) -> list[Scene]:
        """Infer (H, W, 3) uint8 RGB images of one size in one batch."""
        began = time.perf_counter()
        batch = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2).contiguous().float()
        size = tuple(batch.shape[-2:])
        small = F.interpolate(batch, network_size(*size, self.input_height), mode="bilinear", antialias=True)
        network_input = normalize(small)
        self._finish()
        preprocessed = time.perf_counter()
        logits = self.network(network_input)
        self._finish()
        inferred = time.perf_counter()
        objects = F.interpolate(logits.foreground.sigmoid(), size, mode="bilinear")[:, 0]
        probabilities = F.interpolate(logits.background.softmax(1), size, mode="bilinear")
        confidence, classes = probabilities.max(1)
        maps = (objects > 0.5, classes, 255 * confidence, 255 * objects)
        planes = [tensor.to(torch.uint8).cpu().numpy() for tensor in maps]
        timing = Timing(preprocessed - began, inferred - preprocessed, time.perf_counter() - inferred)
        return [Scene(*of_image, timing) for of_image in zip(*planes, strict=True)]

    def _finish(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
