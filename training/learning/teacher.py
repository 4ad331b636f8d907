"""Self-distillation: what frozen networks say of an image is a soft target beside its labels.

Nobody annotated the street behind a car, but weights that were trained before have an opinion there, and several of
them together a better one than each. They see the image that the network sees, fake masks left out.
"""

from __future__ import annotations

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from sfi_ros.network import checkpoint
from sfi_ros.network.outputs import to_probabilities
from training.configuration import ConfigurationError, LossOptions
from training.learning.network import TrainedNetwork


class Teacher(nn.Module):
    """Frozen networks and the mean of their opinions.

    Args:
        fabric: of the run: device and precision.
        options: `teacher` and `teacher_mirrored` are used.

    Raises:
        ConfigurationError: a network that wants to be given the mask.
        MissingFileError, CheckpointError: a file that does not exist or is no checkpoint.
    """

    def __init__(self, fabric: Fabric, options: LossOptions):
        super().__init__()
        self.fabric, self.mirrored, self.networks = fabric, options.teacher_mirrored, nn.ModuleList()
        for path in options.teacher or ():
            network = checkpoint.load(path).network
            if network.options.mask_source == "given":
                raise ConfigurationError(
                    f"losses.teacher: {path} wants to be given the mask: name one that predicts it"
                )
            self.networks.append(TrainedNetwork(network))
        self.eval().requires_grad_(False).to(fabric.device, memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, 4, H, W) float32 probabilities of foreground, road, sidewalk, other."""
        opinions = [self._opinion(network, images) for network in self.networks]
        if self.mirrored:
            opinions += [self._opinion(network, images.flip(-1)).flip(-1) for network in self.networks]
        return torch.stack(opinions).mean(0)

    def _opinion(self, network: nn.Module, images: Tensor) -> Tensor:
        with self.fabric.autocast():
            return to_probabilities(network(images))[:, :4]
