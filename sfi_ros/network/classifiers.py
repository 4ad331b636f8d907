"""The ImageNet classifiers that encoders are cut from: ResNet-18, ResNet-50 and MobileNetV2.

They are torchvision's in every name, weight and random number, so that its weights load and its seeds hold
(`test/network/test_encoders.py`). They are written out because a vehicle needs no more of torchvision, which takes as
long to import as PyTorch itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from torch import Tensor, nn

Architecture = Literal["resnet18", "resnet50", "mobilenet_v2"]

IMAGENET_CLASSES: Final = 1000


def build_classifier(architecture: Architecture) -> nn.Module:
    """Return a classifier without its head, with random weights."""
    model = _BUILDERS[architecture]()
    head = "fc" if hasattr(model, "fc") else "classifier"
    setattr(model, head, nn.Identity())  # built first all the same: its random numbers come before those of others
    return model


# --- ResNets -------------------------------------------------------------------------------------------------------


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, and what goes in added."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, width, h / stride, w / stride)."""
        identity = features if self.downsample is None else self.downsample(features)
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 convolutions, and what goes in added."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, 4 * width, h / stride, w / stride)."""
        identity = features if self.downsample is None else self.downsample(features)
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """A stem and four layers, which `backbones` takes out.

    Args:
        block: what the layers consist of.
        counts: blocks in each layer.
    """

    def __init__(self, block: type[BasicBlock | Bottleneck], counts: tuple[int, int, int, int]):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _layer(block, 64, 64, counts[0], 1)
        self.layer2 = _layer(block, 64 * block.expansion, 128, counts[1], 2)
        self.layer3 = _layer(block, 128 * block.expansion, 256, counts[2], 2)
        self.layer4 = _layer(block, 256 * block.expansion, 512, counts[3], 2)
        self.fc = nn.Linear(512 * block.expansion, IMAGENET_CLASSES)
        _start_at_random(self)


def _layer(block: type[BasicBlock | Bottleneck], channels: int, width: int, count: int, stride: int) -> nn.Sequential:
    downsample = None
    wide = width * block.expansion
    if stride != 1 or channels != wide:
        downsample = nn.Sequential(nn.Conv2d(channels, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))
    first = block(channels, width, stride, downsample)
    return nn.Sequential(first, *(block(wide, width, 1, None) for _ in range(count - 1)))


# --- MobileNetV2 ---------------------------------------------------------------------------------------------------


class ConvNormReLU6(nn.Sequential):
    """A convolution that keeps the size but for its stride, batch norm and ReLU6."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(
            nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU6(inplace=True),
        )
        self.out_channels = out_channels


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 projection; what goes in is added where it fits."""

    def __init__(self, channels: int, out_channels: int, stride: int, expansion: int):
        super().__init__()
        wide = channels * expansion
        self.use_res_connect = stride == 1 and channels == out_channels
        self.conv = nn.Sequential(
            *([ConvNormReLU6(channels, wide, 1)] if expansion != 1 else []),
            ConvNormReLU6(wide, wide, 3, stride, groups=wide),
            nn.Conv2d(wide, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.out_channels = out_channels

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, out_channels, h / stride, w / stride)."""
        return features + self.conv(features) if self.use_res_connect else self.conv(features)


class MobileNetV2(nn.Module):
    """Units of one sequence, which `backbones` cuts."""

    _STAGES = (  # expansion, channels, units, stride
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        units: list[nn.Module] = [ConvNormReLU6(3, 32, 3, 2)]
        channels = 32
        for expansion, out_channels, count, stride in self._STAGES:
            for number in range(count):
                units.append(InvertedResidual(channels, out_channels, stride if number == 0 else 1, expansion))
                channels = out_channels
        units.append(ConvNormReLU6(channels, 1280, 1))
        self.features = nn.Sequential(*units)
        last = nn.Linear(1280, IMAGENET_CLASSES)
        self.classifier = nn.Sequential(nn.Dropout(0.2), last)
        _start_at_random(self)
        if not last.weight.is_meta:
            nn.init.normal_(last.weight, 0, 0.01)


def _start_at_random(model: nn.Module) -> None:
    """Draw the weights of all convolutions, where they have memory.

    Where they have none, PyTorch imports its compiler to draw nothing: 1 s and 180 MB.
    """
    for part in model.modules():
        if isinstance(part, nn.Conv2d) and not part.weight.is_meta:
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


_BUILDERS: Final[dict[Architecture, Callable[[], nn.Module]]] = {
    "resnet18": lambda: ResNet(BasicBlock, (2, 2, 2, 2)),
    "resnet50": lambda: ResNet(Bottleneck, (3, 4, 6, 3)),
    "mobilenet_v2": MobileNetV2,
}
