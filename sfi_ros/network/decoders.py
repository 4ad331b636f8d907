"""Decoders and foreground branches: those of the paper, and the light ones of the fast family.

A background decoder reads the inpainted features of the early and late encoder halves; a foreground branch reads the
image and the early features before anything is inpainted. Both return logits at the image's size; a foreground branch
a tuple of them: whether something is a movable object and, if it tells kinds of objects, which one of these it is then.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfi_ros.classes import FOREGROUND_CLASSES
from sfi_ros.network.backbones import ResNetEarly


def upsample(features: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Bilinear resizing of (N, C, h, w) to `size` = (height, width).

    In training it is computed in float32: its backward pass sums in the numbers of its input, and one cell of a pyramid
    gets two thousand gradients, of which bfloat16 loses most.
    """
    if features.requires_grad and features.dtype in (torch.bfloat16, torch.float16):
        return upsample(features.float(), size).to(features.dtype)
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)


def upsample_logits(logits: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """`upsample` as float32 planes, whatever the network computes in: on a CPU three times as fast as channels last."""
    return upsample(logits.float().contiguous(), size)


# --- the paper's -------------------------------------------------------------------------------------------------


class DoublingUnit(nn.Module):
    """Twice the size, bilinearly, then 3x3 convolution, batch norm and PReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.PReLU()
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, 2h, 2w)."""
        return self.conv(upsample(features, (2 * features.shape[-2], 2 * features.shape[-1])))


class PyramidPooling(nn.Module):
    """The PSP module (Zhao et al., CVPR 2017): averages over 1, 4, 9 and 36 cells of the image join every pixel."""

    def __init__(self, channels: int, out_channels: int = 1024, cells: tuple[int, ...] = (1, 2, 3, 6)):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(n), nn.Conv2d(channels, channels, 1, bias=False)) for n in cells
        )
        self.bottleneck = nn.Conv2d(channels * (len(cells) + 1), out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels, h, w) -> (N, out_channels, h, w)."""
        averages = [upsample(stage(features), features.shape[-2:]) for stage in self.stages]
        return F.relu(self.bottleneck(torch.cat([*averages, features], 1)))


class PyramidDecoder(nn.Module):
    """The paper's decoder: PSP module, then three doublings of a wide map from stride 8 to the image's size."""

    joins_early = False
    multiple = 8

    def __init__(self, late_channels: tuple[int, int], classes: int):
        super().__init__()
        self.pyramid = PyramidPooling(late_channels[1])
        self.drop_pyramid = nn.Dropout2d(0.3)
        self.up_1, self.up_2, self.up_3 = DoublingUnit(1024, 256), DoublingUnit(256, 64), DoublingUnit(64, 64)
        self.drop = nn.Dropout2d(0.15)
        self.classifier = nn.Conv2d(64, classes, 1)

    def forward(self, early: Tensor, late: tuple[Tensor, Tensor], size: torch.Size) -> Tensor:
        """Block-4 features at stride 8 -> logits (N, classes, *size)."""
        features = self.drop_pyramid(self.pyramid(late[1]))
        for unit in (self.up_1, self.up_2, self.up_3):
            features = self.drop(unit(features))
        return self.classifier(features)


class PaperForeground(nn.Module):
    """Two 3x3 convolutions of 512, two doublings, 1x1 convolution: logits at four times the size of the features.

    What tells kinds of objects is a second 1x1 convolution.
    """

    def __init__(self, in_channels: int, tells_kinds: bool):
        super().__init__()
        self.head = nn.Sequential(
            nn.Conv2d(in_channels, 512, 3, padding=1, bias=False),
            nn.BatchNorm2d(512),
            nn.ReLU(inplace=True),
            nn.Conv2d(512, 512, 3, padding=1, bias=False),
            nn.BatchNorm2d(512),
            nn.ReLU(inplace=True),
            DoublingUnit(512, 256),
            DoublingUnit(256, 128),
            nn.Conv2d(128, 1, 1, bias=False),
        )
        self.kinds = nn.Conv2d(128, len(FOREGROUND_CLASSES), 1) if tells_kinds else None

    def logits(self, features: Tensor) -> tuple[Tensor, ...]:
        """(N, in, h, w) -> logits (N, 1, 4h, 4w) and, where kinds are told, (N, 3, 4h, 4w)."""
        *parts, classifier = self.head
        for part in parts:
            features = part(features)
        return tuple(last(features) for last in (classifier, self.kinds) if last is not None)


class SeparateForeground(PaperForeground):
    """The paper's foreground branch with an encoder of its own, half a ResNet at stride 4."""

    def __init__(self, encoder: ResNetEarly, tells_kinds: bool):
        super().__init__(encoder.channels, tells_kinds)
        self.encoder = encoder

    def forward(self, image: Tensor, stem: Tensor, early: Tensor) -> tuple[Tensor, ...]:
        """Image (N, 3, H, W) -> logits (N, 1 or 3, H, W); the main encoder's features are not used."""
        return self.logits(self.encoder(image)[1])


class SharedForeground(PaperForeground):
    """The paper's foreground head on block 2 of the main encoder: logits at stride 2, repeated to full size."""

    def forward(self, image: Tensor, stem: Tensor, early: Tensor) -> tuple[Tensor, ...]:
        """Block-2 features at stride 8 -> logits (N, 1 or 3, H, W)."""
        return tuple(F.interpolate(logits, scale_factor=2.0, mode="nearest") for logits in self.logits(early))


# --- the fast family's -------------------------------------------------------------------------------------------


class ConvUnit(nn.Sequential):
    """Convolution, batch norm, ReLU; the size is kept."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class LightPyramid(nn.Module):
    """Pyramid pooling that first narrows each average to a quarter of the output: cheap on wide features."""

    def __init__(self, in_channels: int, out_channels: int, cells: tuple[int, ...] = (1, 2, 3, 6)):
        super().__init__()
        narrow = out_channels // len(cells)
        # No batch norm: a 1x1 map of a single image has nothing to normalise over.
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(n), nn.Conv2d(in_channels, narrow, 1), nn.ReLU(inplace=True))
            for n in cells
        )
        self.bottleneck = ConvUnit(in_channels + narrow * len(cells), out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, h, w) -> (N, out_channels, h, w)."""
        averages = [upsample(stage(features), features.shape[-2:]) for stage in self.stages]
        return self.bottleneck(torch.cat([*averages, features], 1))


class LightDecoder(nn.Module):
    """Background decoder at stride 8: pooled late features joined with the inpainted early ones; only logits grow."""

    joins_early = True
    multiple = 32

    def __init__(self, early_channels: int, late_channels: tuple[int, int], classes: int, width: int):
        super().__init__()
        self.pyramid = LightPyramid(late_channels[1], width)
        self.join = ConvUnit(early_channels, width // 2, 1)
        self.fuse = nn.Sequential(ConvUnit(width + width // 2, width, 3), ConvUnit(width, width, 3))
        self.drop = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, early: Tensor, late: tuple[Tensor, Tensor], size: torch.Size) -> Tensor:
        """Early features at stride 8 and late ones at stride 16 -> logits (N, classes, *size)."""
        context = upsample(self.pyramid(late[1]), early.shape[-2:])
        features = self.fuse(torch.cat([context, self.join(early)], 1))
        return upsample_logits(self.classifier(self.drop(features)), size)


class LightKinds(nn.Module):
    """Tells kinds of objects at stride 8, from the foreground branch's deep features.

    It reads them where they come from: what the top-down path keeps of them tells object from background, no more.
    """

    def __init__(self, late_channels: tuple[int, int], top_down_channels: int, width: int):
        super().__init__()
        self.from_32 = ConvUnit(late_channels[1], width, 1)
        self.from_16 = ConvUnit(late_channels[0], width, 1)
        self.from_8 = ConvUnit(top_down_channels, width, 1)
        self.fuse = ConvUnit(width, width, 3)
        self.classifier = nn.Conv2d(width, len(FOREGROUND_CLASSES), 1)

    def forward(self, late: tuple[Tensor, Tensor], top_down: Tensor) -> Tensor:
        """Features at strides 16 and 32, and those of the top-down path at stride 8 -> logits (N, 3, h, w) there."""
        block3, block4 = late
        features = self.from_16(block3) + upsample(self.from_32(block4), block3.shape[-2:])
        return self.classifier(self.fuse(self.from_8(top_down) + upsample(features, top_down.shape[-2:])))


class LightForeground(nn.Module):
    """Foreground branch of the fast family: what stands there is named at strides 16 and 32, drawn at stride 4.

    Whether a patch of colour is part of a car is decided by what surrounds it, and features at stride 8 see too
    little of that. So the encoder's late half runs once more, strided and with weights of its own, on the features
    before MPI; a narrow top-down path brings its verdict to stride 4.
    """

    def __init__(self, late: Any, stem_channels: int, early_channels: int, tells_kinds: bool, width: int):
        super().__init__()
        self.late = late
        block3_channels, block4_channels = late.channels
        self.from_32 = LightPyramid(block4_channels, width)
        self.from_16 = ConvUnit(block3_channels, width, 1)
        self.from_8 = ConvUnit(early_channels, width, 1)
        self.from_4 = ConvUnit(stem_channels, width // 2, 1)
        self.fuse_16, self.fuse_8 = ConvUnit(width, width, 3), ConvUnit(width, width, 3)
        self.fuse_4 = ConvUnit(width + width // 2, width // 2, 3)
        self.classifier = nn.Conv2d(width // 2, 1, 1)
        self.kinds = LightKinds(late.channels, width, width // 2) if tells_kinds else None
        # Foreground is rare: an even start would mask most of the image, and nothing would be left to segment.
        nn.init.constant_(self.classifier.get_parameter("bias"), -2.0)

    def forward(self, image: Tensor, stem: Tensor, early: Tensor) -> tuple[Tensor, ...]:
        """Features at strides 4 and 8 -> logits (N, 1, H, W) and, where kinds are told, (N, 3, H, W)."""
        late = block3, block4 = self.late(early)
        at_16 = self.fuse_16(self.from_16(block3) + upsample(self.from_32(block4), block3.shape[-2:]))
        at_8 = self.fuse_8(self.from_8(early) + upsample(at_16, early.shape[-2:]))
        at_4 = self.fuse_4(torch.cat([self.from_4(stem), upsample(at_8, stem.shape[-2:])], 1))
        objects = upsample_logits(self.classifier(at_4), image.shape[-2:])
        if self.kinds is None:
            return (objects,)
        return objects, upsample_logits(self.kinds(late, at_8), image.shape[-2:])
