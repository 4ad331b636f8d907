"""`torch.compile` as a backend: kernels made for one network at one size."""

from __future__ import annotations

import logging
import shutil
from typing import ClassVar, Final

import torch
from torch import Tensor

from sfi_ros.errors import UnavailableError
from sfi_ros.inference.camera_network import CameraNetwork
from sfi_ros.network.outputs import SceneLogits

logger = logging.getLogger(__name__)

KEPT_SIZES: Final = 8
"""Past that many sizes of the input, of all networks of a process together, all are forgotten: TorchDynamo would run
further ones uncompiled and not say so."""


class CompiledNetwork:
    """Compiles a network for each size of images that comes.

    The first image of a size waits for the compiler, about a minute on two CPU cores; later processes on the same
    machine find most of its work in PyTorch's cache (TORCHINDUCTOR_CACHE_DIR).

    Args:
        network: what to compile.
        device: where it lies.

    Raises:
        UnavailableError: a CPU without a C++ compiler, which TorchInductor needs there.
    """

    _compiled: ClassVar[set[tuple[object, torch.Size]]] = set()

    def __init__(self, network: CameraNetwork, device: torch.device):
        if device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            raise UnavailableError(
                "backend 'compile' needs a C++ compiler on a CPU: install g++, or use backend 'pytorch'"
            )
        # Freezing lets the compiler lay out the weights for the processor, which is most of what it gains on a CPU.
        self._network = torch.compile(network, dynamic=False, options={"freezing": device.type == "cpu"})
        self._identity = object()  # kept with the sizes: unlike an id(), it never becomes that of another network

    def __call__(self, images: Tensor) -> SceneLogits:
        """(N, 3, h, w) RGB of range 0..255 -> logits of size (h, w)."""
        key = (self._identity, images.shape)
        if key not in self._compiled:
            if len(self._compiled) == KEPT_SIZES:
                torch.compiler.reset()
                self._compiled.clear()
            n, _, height, width = images.shape
            logger.warning("compiling the network for %d image(s) of %dx%d; this can take minutes", n, width, height)
            self._compiled.add(key)
        return self._network(images)
