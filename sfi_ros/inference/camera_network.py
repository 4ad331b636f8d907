"""A network as cameras see it: bytes in, logits out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfi_ros.network.outputs import SceneLogits
from sfi_ros.network.preprocessing import normalization


class CameraNetwork(nn.Module):
    """Normalisation, and a network of the zoo as `fused_network` makes it.

    Args:
        network: on `device`, in `dtype`.
        device: where it runs.
        dtype: what it computes in.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.network = network
        scale, shift = normalization(device)  # kept here: a CUDA graph cannot copy constants from the host
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, images: Tensor) -> SceneLogits:
        """(N, 3, h, w) RGB of range 0..255, bytes or floating point -> logits of size (h, w)."""
        # As wide as the images: with one number for each channel, PyTorch's loop is over three numbers.
        row = (*self.scale.shape[:3], images.shape[3])
        scale, shift = (v.expand(row).contiguous(memory_format=torch.channels_last) for v in (self.scale, self.shift))
        normalized = torch.addcmul(shift, images.float(), scale).to(self.dtype)
        return self.network(normalized.contiguous(memory_format=torch.channels_last))
