"""A network as cameras see it: bytes in, logits out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfi_ros.inference.fused_network import folded, onednn_is_available, use_onednn
from sfi_ros.network.outputs import SceneLogits
from sfi_ros.network.preprocessing import normalization


class CameraNetwork(nn.Module):
    """Normalisation, and a copy of a network with its batch norms folded.

    Args:
        network: of the zoo.
        device: where it runs.
        dtype: what it computes in.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.network = folded(network, device, dtype)
        scale, shift = normalization(device)  # kept here: a CUDA graph cannot copy constants from the host
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, images: Tensor) -> SceneLogits:
        """(N, 3, h, w) RGB of range 0..255, bytes or floating point -> logits of size (h, w)."""
        normalized = torch.addcmul(self.shift, images.float(), self.scale).to(self.dtype)
        return self.network(normalized.contiguous(memory_format=torch.channels_last))

    def use_onednn(self) -> CameraNetwork:
        """Computes every convolution and its activation as one oneDNN primitive from now on, where there is oneDNN."""
        if onednn_is_available():
            use_onednn(self.network)
        return self
