"""The network in training: built as the configuration wants it, fed with images as they come from the loader."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor, nn

from sfi_ros.network import checkpoint, zoo
from sfi_ros.network.options import NetworkOptions
from sfi_ros.network.outputs import SceneLogits
from sfi_ros.network.preprocessing import normalization
from sfi_ros.network.scene_network import SceneNetwork
from sfi_ros.network.shipped_weights import find_weights
from training.configuration import NetworkConfig
from training.learning.depthwise import quick_depthwise

_OPTIONS = tuple(field.name for field in fields(NetworkOptions))


class TrainedNetwork(nn.Module):
    """A network that takes uint8 images and parts of which can be frozen.

    Args:
        network: of the zoo.
        freeze_batch_norm: keep batch normalisation in evaluation mode.
        only_kinds: let nothing learn but what tells kinds of objects. All else is in evaluation mode and no gradients
            are computed for it, so mask and background stay as they are.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: SceneNetwork, *, freeze_batch_norm: bool = False, only_kinds: bool = False):
        super().__init__()
        self.network, self.freeze_batch_norm, self.only_kinds = network, freeze_batch_norm, only_kinds
        if only_kinds:
            network.requires_grad_(False)
            network.foreground.kinds.requires_grad_(True)
        # Constants that lie on the device: to make them anew in every step would make the host wait for a GPU.
        scale, shift = normalization()
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.train()

    def forward(
        self, image: Tensor, given_foreground: Tensor | None = None, fake_foreground: Tensor | None = None
    ) -> SceneLogits:
        """Return the logits of (N, 3, H, W) uint8 images; see `SceneNetwork.forward`."""
        images = torch.addcmul(self.shift, image.float(), self.scale).contiguous(memory_format=torch.channels_last)
        with quick_depthwise(images.device):
            return self.network(images, given_foreground=given_foreground, fake_foreground=fake_foreground)

    def train(self, mode: bool = True) -> TrainedNetwork:
        """Set training mode, with all left out that is frozen."""
        super().train(mode)
        if mode and self.only_kinds:
            self.network.eval()
            self.network.training = True  # by itself, so that a step sees one view (`NetworkOptions.views`)
            self.network.foreground.kinds.train()
        if mode and self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def build_network(options: NetworkConfig) -> SceneNetwork:
    """Build a network of the zoo, channels last (faster convolutions on most devices).

    Options that the configuration leaves open are those of the checkpoint that training starts from, else the
    network's own.

    Raises:
        FileNotFoundError: `pretrained` or `start_from` do not exist.
        ValueError: options that the network does not have, or a checkpoint that does not fit.
        RuntimeError: the download of pretrained weights failed.
    """
    wanted = {key: getattr(options, key) for key in _OPTIONS if getattr(options, key) is not None}
    start = None if options.start_from is None else checkpoint.load(find_weights(options.start_from))
    if start is not None:
        if start.metadata.name != options.name:
            raise ValueError(
                f"network.start_from={options.start_from} holds a {start.metadata.name}, not a {options.name}: "
                f"set network.name={start.metadata.name}"
            )
        wanted = {**start.metadata.options, **wanted}
    network = zoo.build(options.name, pretrained=options.pretrained, **wanted)
    if options.train_only == "kinds" and not network.options.tells_kinds:
        raise ValueError("network.train_only=kinds needs a network that tells them: set network.foreground_classes=3")
    if options.dropout is not None:
        for module in network.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = options.dropout
    if start is not None:
        same_parts = network.options.tells_kinds == start.network.options.tells_kinds
        network.load_state_dict(start.network.state_dict(), strict=same_parts)  # what tells kinds is new, or left out
    return network.to(memory_format=torch.channels_last)
