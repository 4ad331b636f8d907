"""A copy of a network for inference: batch norm folded into the convolutions, activations computed along with them.

Folding holds on every device. On a CPU the convolutions can then go through oneDNN's fused primitive, whose weights are
laid out once for the processor; it is what `torch.compile` calls there, without the minute that compiling takes and
without a C++ compiler on the robot.
"""

from __future__ import annotations

import copy
import itertools
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Activation = tuple[str, tuple[float, ...]]

_NO_ACTIVATION: Final[Activation] = ("none", ())
_ACTIVATIONS: Final[dict[type[nn.Module], Activation]] = {
    nn.ReLU: ("relu", ()),
    nn.ReLU6: ("hardtanh", (0.0, 6.0)),
}
"""What oneDNN computes along with a convolution, by its name there."""

_NAMED_PAIRS: Final = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
"""Convolution and batch norm of torchvision's ResNets, which are no `nn.Sequential`."""


def folded(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A copy of `network` in evaluation mode without batch norms, on `device`, in `dtype`, channels last.

    Its results differ from the network's by rounding only. It cannot be trained.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in network.modules():
        for conv_name, norm_name in _NAMED_PAIRS:
            conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
        if isinstance(module, nn.Sequential):
            _fold_batch_norms(module)
    return network.to(device, dtype).to(memory_format=torch.channels_last)


def onednn_is_available() -> bool:
    """Whether this PyTorch has oneDNN's fused convolution (all builds for x86 and ARM servers have)."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def use_onednn(module: nn.Module) -> None:
    """Replaces all convolutions below `module`, in place, and the activations that follow them directly."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d):
            setattr(module, name, OneDnnConv(child, _take_activation(module, name)))
        else:
            use_onednn(child)


def _fold_batch_norms(sequence: nn.Sequential) -> None:
    """Folds every batch norm of `sequence` that follows a convolution, in place; numbers of the parts are kept."""
    names = list(sequence._modules)
    for name, following in itertools.pairwise(names):
        conv, norm = sequence._modules[name], sequence._modules[following]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            sequence._modules[name] = fuse_conv_bn_eval(conv, norm)
            sequence._modules[following] = nn.Identity()


def _take_activation(module: nn.Module, conv_name: str) -> Activation:
    """The activation behind a convolution of an `nn.Sequential`, which is taken out; none elsewhere."""
    if not isinstance(module, nn.Sequential):
        return _NO_ACTIVATION
    names = list(module._modules)
    for name in names[names.index(conv_name) + 1 :]:
        part = module._modules[name]
        if type(part) in _ACTIVATIONS:
            module._modules[name] = nn.Identity()
            return _ACTIVATIONS[type(part)]
        if not isinstance(part, nn.Identity):
            break
    return _NO_ACTIVATION


class OneDnnConv(nn.Module):
    """A convolution with fixed weights and the activation behind it, as one oneDNN primitive.

    oneDNN lays weights out for one size of the input; for another size the same layout can be twenty times slower.
    So they are laid out at the first image of each size, and the last few layouts are kept.

    Args:
        conv: on the CPU, in the dtype that it will compute in.
        activation: oneDNN's name of it, and its parameters.
    """

    KEPT_LAYOUTS: Final = 4

    def __init__(self, conv: nn.Conv2d, activation: Activation):
        super().__init__()
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.weight = conv.weight.detach()
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.activation = activation
        self._layouts: dict[torch.Size, Tensor] = {}

    def forward(self, features: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h', w')."""
        weight = self._layouts.get(features.shape)
        if weight is None:
            weight = self._lay_out(features.shape)
        name, parameters = self.activation
        return torch.ops.mkldnn._convolution_pointwise(
            features, weight, self.bias, *self.geometry, name, list(parameters), ""
        )

    def _lay_out(self, size: torch.Size) -> Tensor:
        if len(self._layouts) == self.KEPT_LAYOUTS:
            del self._layouts[next(iter(self._layouts))]
        weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.geometry, list(size))
        self._layouts[size] = weight
        return weight
