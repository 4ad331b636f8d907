"""A copy of a network for inference: batch norm folded into the convolutions, activations computed along with them.

Folding holds on every device. On a CPU the convolutions can then go through oneDNN's fused primitive, whose weights are
laid out once for the processor; it is what `torch.compile` calls there, without the minute that compiling takes and
without a C++ compiler on the robot.

In half precision most of the error of MobileNetV2 comes from the weights and biases of its first few, narrow layers: it
is the same at every pixel, so nothing averages it out. Hence filters are rounded such that their sums stay what they
were, and oneDNN adds biases in float32. Together they halve the share of pixels with another class than in float32.
"""

from __future__ import annotations

import copy
import itertools
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sfi_ros.inference.winograd import WinogradConv, is_wide_3x3

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
    """Return a copy of `network` in evaluation mode without batch norms, on `device`, in `dtype`, channels last.

    Its results differ from the network's by rounding only. It cannot be trained.
    """
    network = _folded_copy(network)
    for conv in _convolutions(network):
        conv.weight.data = rounded(conv.weight, dtype)
    return network.to(device, dtype).to(memory_format=torch.channels_last)


def folded_for_onednn(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return the same for the CPU, each convolution and the activation directly behind it as one oneDNN primitive.

    Parts that do nothing in evaluation are taken out of sequences: calling a hundred of them takes a millisecond.
    """
    network = _folded_copy(network)
    _replace_convolutions(network, dtype)
    _shorten_sequences(network)
    return network.to(dtype)


def rounded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return filters (out, in, h, w) in `dtype`, each (h, w) rounded such that its sum stays.

    With the sum stays what evenly coloured parts of an image give.
    """
    filters = weight.detach().flatten(2)
    order = filters.abs().argsort(2, descending=True)  # what the last and smallest takes over is the least
    values = filters.gather(2, order)
    carried = torch.zeros_like(values[..., 0])
    for position in range(values.shape[2]):
        exact = values[..., position] + carried
        values[..., position] = exact.to(dtype)
        carried = exact - values[..., position]
    return torch.empty_like(filters).scatter_(2, order, values).view_as(weight).to(dtype)


def _folded_copy(network: nn.Module) -> nn.Module:
    # Only PyTorch's own classes are folded and replaced: timm has subclasses that pad, or activate, as well.
    network = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    for module in network.modules():
        for conv_name, norm_name in _NAMED_PAIRS:
            conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
            if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
        if isinstance(module, nn.Sequential):
            _fold_batch_norms(module)
    return network


def _convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def _replace_convolutions(module: nn.Module, dtype: torch.dtype) -> None:
    for name, child in list(module.named_children()):
        if type(child) is nn.Conv2d:
            activation = _take_activation(module, name)
            if dtype == torch.float32 and is_wide_3x3(child):
                setattr(module, name, WinogradConv(child, activation))
            else:
                kind = OneDnnPointwise if _is_pointwise(child) else OneDnnConv
                setattr(module, name, kind(child, activation, dtype))
        else:
            _replace_convolutions(child, dtype)


def _is_pointwise(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.padding == (0, 0) and conv.groups == 1


def _shorten_sequences(module: nn.Module) -> None:
    """Drop what does nothing from sequences, and sequences around a single part."""
    for name, child in list(module.named_children()):
        _shorten_sequences(child)
        if isinstance(child, nn.Sequential):
            for part_name, part in list(child.named_children()):
                if isinstance(part, nn.Identity | nn.modules.dropout._DropoutNd):
                    delattr(child, part_name)
            if len(child) == 1:
                setattr(module, name, child[0])


def _fold_batch_norms(sequence: nn.Sequential) -> None:
    """Folds every batch norm of `sequence` that follows a convolution, in place; numbers of the parts are kept."""
    names = list(sequence._modules)
    for name, following in itertools.pairwise(names):
        conv, norm = sequence._modules[name], sequence._modules[following]
        if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
            sequence._modules[name] = fuse_conv_bn_eval(conv, norm)
            sequence._modules[following] = nn.Identity()


def _take_activation(module: nn.Module, conv_name: str) -> Activation:
    """Return the activation behind a convolution of an `nn.Sequential`, which is taken out; none elsewhere."""
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
        conv: on the CPU, in float32.
        activation: oneDNN's name of it, and its parameters.
        dtype: of features and weights; the bias stays float32.
    """

    KEPT_LAYOUTS: Final = 8

    def __init__(self, conv: nn.Conv2d, activation: Activation, dtype: torch.dtype):
        super().__init__()
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.weight = rounded(conv.weight, dtype)
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.activation = (activation[0], list(activation[1]), "")
        self._layouts: dict[torch.Size, Tensor] = {}

    def forward(self, features: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h', w')."""
        weight = self._weight_for(features.shape)
        return torch.ops.mkldnn._convolution_pointwise.default(
            features, weight, self.bias, *self.geometry, *self.activation
        )

    def _weight_for(self, size: torch.Size) -> Tensor:
        weight = self._layouts.get(size)
        if weight is None:
            if len(self._layouts) == self.KEPT_LAYOUTS:
                del self._layouts[next(iter(self._layouts))]
            weight = self._layouts[size] = self._lay_out(size)
        return weight

    def _lay_out(self, size: torch.Size) -> Tensor:
        return torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.geometry, list(size))


class OneDnnPointwise(OneDnnConv):
    """The same for a 1x1 convolution: a matrix product over pixels, which is never slower and starts sooner."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h, w), channels last."""
        weight = self._weight_for(features.shape)
        pixels = features.permute(0, 2, 3, 1)
        product = torch.ops.mkldnn._linear_pointwise.default(pixels, weight, self.bias, *self.activation)
        return product.permute(0, 3, 1, 2)

    def _lay_out(self, size: torch.Size) -> Tensor:
        n, _, h, w = size
        return torch.ops.mkldnn._reorder_linear_weight(self.weight.flatten(1), n * h * w)
