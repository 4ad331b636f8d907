"""Encoders, cut in two where features are inpainted.

The early half reads an image; the late half goes on from (inpainted) features. Both are cut out of one classifier, so
that its ImageNet weights, from torchvision's own download or from a local safetensors file, load by their own names.

A new encoder for the fast family is a function that cuts it and a line in `FAST_ENCODERS`, both here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.error import URLError

import torch
from torch import Tensor, nn

from sfi_ros.errors import MissingFileError, OptionError, UnavailableError
from sfi_ros.network.classifiers import Architecture, build_classifier
from sfi_ros.network.image_format import IMAGENET_MEAN, IMAGENET_STD
from sfi_ros.network.tensor_file import TensorFile

Pretrained = str | Path | None
"""ImageNet weights: none, "imagenet" (a download) or the path of a .safetensors file."""

_IMAGENET_WEIGHTS: Final[dict[Architecture, str]] = {
    "resnet18": "IMAGENET1K_V1",
    "resnet50": "IMAGENET1K_V1",
    "mobilenet_v2": "IMAGENET1K_V2",
}


@dataclass(frozen=True)
class LoadReport:
    """What an initialisation from ImageNet weights did, by torchvision's parameter names.

    Attributes:
        source: the file, or torchvision's name of the weights.
        loaded: names that were copied.
        missing: names of the architecture that the source lacks; they keep their random initialisation.
        mismatched: names whose shapes differ; likewise.
        unused: names of the source that the architecture does not have, such as the classifier.
    """

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded from {self.source}"]
        for kind in ("missing", "mismatched", "unused"):
            names = getattr(self, kind)
            if names:
                parts.append(f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
        return "; ".join(parts)


def imagenet_model(architecture: Architecture, pretrained: Pretrained) -> tuple[Any, tuple[LoadReport, ...]]:
    """Build a classifier of torchvision's without its head, with random, downloaded or local weights.

    Args:
        architecture: torchvision's name.
        pretrained: None, "imagenet" (torchvision's weights API) or the path of a .safetensors file with torchvision's
            parameter names. A ResNet-50 file in the older v1 layout (stride on the first 1x1 convolution) loads too,
            though its features then shift by up to one pixel in each strided block.

    Raises:
        MissingFileError, CheckpointError: there is no such file, or it cannot be read.
        OptionError: the file holds nothing that fits the architecture.
        UnavailableError: the download failed, or torchvision, which does it, is not installed.
    """
    model = build_classifier(architecture)
    if pretrained is None:
        return model, ()
    if str(pretrained) != "imagenet":
        return model, (load_matching(model, read_pretrained(pretrained), str(pretrained)),)
    name = _IMAGENET_WEIGHTS[architecture]
    try:
        import torchvision  # takes as long to import as PyTorch, and is needed for nothing else
    except ImportError as error:
        raise UnavailableError(
            "ImageNet weights are downloaded by torchvision, which is not installed: pip install 'sfi_ros[training]'"
        ) from error
    try:
        state = torchvision.models.get_model_weights(architecture)[name].get_state_dict(progress=False)
    except (URLError, OSError) as error:
        raise UnavailableError(
            f"could not download torchvision's {architecture} {name} ({error}); pass the path of a local "
            ".safetensors file with torchvision's parameter names instead"
        ) from error
    return model, (load_matching(model, state, f"torchvision {architecture} {name}"),)


def read_pretrained(path: str | Path) -> dict[str, Tensor]:
    """Read a .safetensors file of ImageNet weights.

    Raises:
        MissingFileError, CheckpointError: there is no such file, or it cannot be read.
    """
    try:
        return TensorFile(path).read()
    except MissingFileError as error:
        raise MissingFileError(f"pretrained {error}; use 'imagenet' to download them") from error


def load_matching(model: nn.Module, state: Mapping[str, Tensor], source: str) -> LoadReport:
    """Copy what a model has by the same name and shape; `LoadReport` says what that was.

    Raises:
        OptionError: no convolution fits.
    """
    own = model.state_dict()
    common = [name for name in own if name in state]
    fitting = tuple(name for name in common if own[name].shape == state[name].shape)
    if not any(own[name].ndim == 4 for name in fitting):
        raise OptionError(
            f"{source} holds no convolution that fits {type(model).__name__}; it has names such as "
            f"{', '.join(list(state)[:3])}"
        )
    model.load_state_dict({name: state[name] for name in fitting}, strict=False)
    return LoadReport(
        source=source,
        loaded=fitting,
        missing=tuple(name for name in own if name not in state and not name.endswith("num_batches_tracked")),
        mismatched=tuple(name for name in common if name not in fitting),
        unused=tuple(name for name in state if name not in own),
    )


# --- torchvision's ResNets and MobileNetV2 -------------------------------------------------------------------------


class ResNetEarly(nn.Module):
    """Stem and blocks 1 and 2 of a ResNet: stride 4 and stride 8, both non-negative.

    Attributes:
        stem_channels: channels at stride 4.
        channels: channels at stride 8.
    """

    def __init__(self, resnet: Any):
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.stem_channels, self.channels = _stage_channels(self.layer1), _stage_channels(self.layer2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) -> features at stride 4 and at stride 8."""
        stem = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(image)))))
        return stem, self.layer2(stem)


class ResNetLate(nn.Module):
    """Blocks 3 and 4 of a ResNet, strided or dilated.

    Args:
        resnet: a torchvision ResNet.
        strides: strides of blocks 3 and 4; the paper's network has (1, 1), torchvision's (2, 2).
        dilations: dilations of their units after the first; the paper's network has (2, 4).

    Attributes:
        channels: channels behind block 3 and behind block 4.
    """

    def __init__(self, resnet: Any, *, strides: tuple[int, int], dilations: tuple[int, int]):
        super().__init__()
        self.layer3 = restride(resnet.layer3, strides[0], dilations[0])
        self.layer4 = restride(resnet.layer4, strides[1], dilations[1])
        self.channels = (_stage_channels(self.layer3), _stage_channels(self.layer4))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features behind block 2 -> features behind block 3 and behind block 4."""
        block3 = self.layer3(features)
        return block3, self.layer4(block3)


class MobileNetV2Early(nn.Module):
    """MobileNetV2 to stride 8, cut inside the first unit of stride 16, behind its expansion.

    MPI lets zeros win over negative features, and the ends of MobileNetV2's units are linear, so signed. The
    expansion (ReLU6) is the place at stride 8 where all that the deeper layers will see is non-negative.
    """

    def __init__(self, mobilenet: Any):
        super().__init__()
        units = mobilenet.features
        self.to_stride_4, self.to_stride_8 = units[:4], units[4:7]
        self.expansion = units[7].conv[0]
        self.stem_channels = units[3].out_channels
        self.channels = self.expansion.out_channels

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) -> features at stride 4 (signed) and at stride 8 (within 0..6)."""
        stem = self.to_stride_4(image)
        return stem, self.expansion(self.to_stride_8(stem))


class MobileNetV2Late(nn.Module):
    """The rest of MobileNetV2 up to its 160 channels: units at stride 16, then at `last_stride` times that.

    With `last_stride` 1 the last units are dilated instead.
    """

    def __init__(self, mobilenet: Any, *, last_stride: Literal[1, 2]):
        super().__init__()
        units = mobilenet.features
        self.block3 = nn.Sequential(*units[7].conv[1:], *units[8:14])
        self.block4 = units[14:17] if last_stride == 2 else restride(units[14:17], 1, 2)
        self.channels = (units[13].out_channels, units[16].out_channels)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map expanded features at stride 8 to features behind the 96- and the 160-channel units."""
        block3 = self.block3(features)
        return block3, self.block4(block3)


def restride(stage: nn.Sequential, stride: int, dilation: int) -> nn.Sequential:
    """Give a stage of residual units another stride (of its first unit) and dilation (of all others), in place.

    This is how the released networks dilate: the first unit reads a grid that is still dense.
    """
    for number, unit in enumerate(stage):
        for name, conv in _convolutions(unit):
            if number == 0 and conv.stride != (1, 1):
                conv.stride = (stride, stride)
            if number > 0 and conv.kernel_size == (3, 3) and "downsample" not in name:
                conv.dilation = conv.padding = (dilation, dilation)
    return stage


def _convolutions(module: nn.Module) -> Iterable[tuple[str, nn.Conv2d]]:
    return ((name, part) for name, part in module.named_modules() if isinstance(part, nn.Conv2d))


def _stage_channels(stage: nn.Sequential) -> int:
    last_norm = [part for part in stage[-1].children() if isinstance(part, nn.BatchNorm2d)][-1]
    return last_norm.num_features


# --- EfficientNet-Lite0 --------------------------------------------------------------------------------------------


class LiteUnit(nn.Module):
    """Inverted residual: 1x1 expansion, depthwise convolution, 1x1 projection; ReLU6 behind the first two.

    Parts have the names that timm gives them. They only hold weights: what computes is made of them by `cut`.
    """

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = channels * expansion
        self.kernel, self.is_residual = kernel, stride == 1 and channels == out_channels
        self.is_expanded = expansion > 1
        depthwise = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)
        project = nn.Conv2d(wide, out_channels, 1, bias=False)
        if self.is_expanded:
            self.conv_pw, self.bn1 = nn.Conv2d(channels, wide, 1, bias=False), _lite_norm(wide)
            self.conv_dw, self.bn2 = depthwise, _lite_norm(wide)
            self.conv_pwl, self.bn3 = project, _lite_norm(out_channels)
        else:
            self.conv_dw, self.bn1 = depthwise, _lite_norm(wide)
            self.conv_pw, self.bn2 = project, _lite_norm(out_channels)

    def expansion(self) -> nn.Sequential:
        """Return the first part of the unit: non-negative, wide, at the stride of its input."""
        return nn.Sequential(self.conv_pw, self.bn1, nn.ReLU6(inplace=True))

    def behind_expansion(self, dilation: int = 1) -> nn.Sequential:
        """Return the rest of the unit; with a dilation it keeps its input's size."""
        if self.is_expanded:
            norm, project, last = self.bn2, self.conv_pwl, self.bn3
        else:
            norm, project, last = self.bn1, self.conv_pw, self.bn2
        pad: list[nn.Module] = []
        if dilation > 1:
            self.conv_dw.dilation = (dilation, dilation)
            self.conv_dw.padding = (dilation * (self.kernel // 2),) * 2
        elif self.conv_dw.stride == (2, 2):
            pad = [_pad_as_tensorflow(self.conv_dw)]
        return nn.Sequential(*pad, self.conv_dw, norm, nn.ReLU6(inplace=True), project, last)

    def cut(self, dilation: int = 1) -> nn.Module:
        """Return the unit as a module that computes."""
        parts = [self.expansion()] if self.is_expanded else []
        whole = nn.Sequential(*(part for group in (*parts, self.behind_expansion(dilation)) for part in group))
        return Residual(whole) if self.is_residual else whole


class Residual(nn.Module):
    """Adds what goes in to what comes out."""

    def __init__(self, branch: nn.Sequential):
        super().__init__()
        self.branch = branch

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> the same."""
        return features + self.branch(features)


class EfficientNetLite0(nn.Module):
    """The weights of timm's `tf_efficientnet_lite0` by their names there, up to its 192 channels."""

    _STAGES = (  # units, kernel, stride, expansion, channels
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
    )

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = nn.Conv2d(3, 32, 3, 2, 1, bias=False), _lite_norm(32)
        channels = 32
        self.stages: list[list[LiteUnit]] = []
        for units, kernel, stride, expansion, out_channels in self._STAGES:
            stage = []
            for number in range(units):
                stage.append(LiteUnit(channels, out_channels, kernel, stride if number == 0 else 1, expansion))
                channels = out_channels
            self.stages.append(stage)
        self.blocks = nn.ModuleList(map(nn.ModuleList, self.stages))


class LiteEarly(nn.Module):
    """EfficientNet-Lite0 to stride 8, cut behind the expansion of its first unit of stride 16, as MobileNetV2 is.

    Its weights are for images of range -1..1, and zeros that it pads with are mid-grey there. `mid_grey` moves our
    normalised images so that their zero is that, too; their scale is in the weights of the first convolution.
    """

    mid_grey: Tensor

    def __init__(self, lite: EfficientNetLite0):
        super().__init__()
        grey = [(0.5 - mean) / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
        self.register_buffer("mid_grey", torch.tensor(grey).view(1, 3, 1, 1))
        pad = _pad_as_tensorflow(lite.conv_stem)
        stem = nn.Sequential(pad, lite.conv_stem, lite.bn1, nn.ReLU6(inplace=True))
        self.to_stride_4 = nn.Sequential(stem, *(unit.cut() for stage in lite.stages[:2] for unit in stage))
        self.to_stride_8 = nn.Sequential(*(unit.cut() for unit in lite.stages[2]))
        self.expansion = lite.stages[3][0].expansion()
        self.stem_channels, self.channels = 24, 240

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) -> features at stride 4 (signed) and at stride 8 (within 0..6)."""
        stem = self.to_stride_4(image - self.mid_grey)
        return stem, self.expansion(self.to_stride_8(stem))


class LiteLate(nn.Module):
    """The rest of EfficientNet-Lite0 up to its 192 channels: stages at stride 16, then at `last_stride` times that.

    With `last_stride` 1 the last units are dilated instead, and there are three of them: the fourth would take a tenth
    of the whole network's operations.
    """

    channels = (112, 192)

    def __init__(self, lite: EfficientNetLite0, *, last_stride: Literal[1, 2]):
        super().__init__()
        first, *others = (*lite.stages[3], *lite.stages[4])
        self.block3 = nn.Sequential(first.behind_expansion(), *(unit.cut() for unit in others))
        first, *others = lite.stages[5]
        if last_stride == 2:
            self.block4 = nn.Sequential(first.cut(), *(unit.cut() for unit in others))
        else:  # the first unit reads a grid that is still dense, as in `restride`
            first.conv_dw.stride = (1, 1)
            self.block4 = nn.Sequential(first.cut(), *(unit.cut(dilation=2) for unit in others[:2]))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map expanded features at stride 8 to features behind the 112- and the 192-channel units."""
        block3 = self.block3(features)
        return block3, self.block4(block3)


def efficientnet_lite0(pretrained: Pretrained) -> tuple[EfficientNetLite0, tuple[LoadReport, ...]]:
    """EfficientNet-Lite0 with random weights, or those of a local file with timm's names.

    Raises:
        OptionError: "imagenet", for which there is no download, or a file that does not fit.
        MissingFileError, CheckpointError: see `imagenet_model`.
    """
    model = EfficientNetLite0()
    if pretrained is None:
        return model, ()
    if str(pretrained) == "imagenet":
        raise OptionError(
            "there is no download for fast-efficientnet-lite0: pass the path of a .safetensors file with the weights "
            "of timm's tf_efficientnet_lite0"
        )
    report = load_matching(model, read_pretrained(pretrained), str(pretrained))
    with torch.no_grad():  # from the range -1..1 to ours
        model.conv_stem.weight *= 2 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    return model, (report,)


def _lite_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _pad_as_tensorflow(conv: nn.Conv2d) -> nn.ZeroPad2d:
    """Take the padding out of a strided convolution: for even sides TensorFlow pads one pixel less at the top left."""
    before, behind = conv.kernel_size[0] // 2 - 1, conv.kernel_size[0] // 2
    conv.padding = (0, 0)
    return nn.ZeroPad2d((before, behind, before, behind))


# --- the encoders of the fast family -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoder:
    """An encoder in the pieces that a network of the fast family is made of.

    Attributes:
        early: image (N, 3, H, W) -> features at stride 4, and non-negative ones at stride 8; has `stem_channels` and
            `channels`.
        late: features at stride 8 -> those behind blocks 3 and 4, for the background; has `channels`.
        foreground_late: the same for the foreground, with weights of its own.
        reports: what was loaded.
    """

    early: nn.Module
    late: nn.Module
    foreground_late: nn.Module
    reports: tuple[LoadReport, ...]


def _fast_resnet(architecture: Architecture) -> Callable[[Pretrained], Encoder]:
    def cut(pretrained: Pretrained) -> Encoder:
        model, reports = imagenet_model(architecture, pretrained)
        own = copy.deepcopy(model)
        late = ResNetLate(model, strides=(2, 1), dilations=(1, 2))
        return Encoder(ResNetEarly(model), late, ResNetLate(own, strides=(2, 2), dilations=(1, 1)), reports)

    return cut


def _fast_mobilenet(pretrained: Pretrained) -> Encoder:
    model, reports = imagenet_model("mobilenet_v2", pretrained)
    own = copy.deepcopy(model)
    late, own_late = MobileNetV2Late(model, last_stride=1), MobileNetV2Late(own, last_stride=2)
    return Encoder(MobileNetV2Early(model), late, own_late, reports)


def _fast_lite(pretrained: Pretrained) -> Encoder:
    model, reports = efficientnet_lite0(pretrained)
    own = copy.deepcopy(model)
    return Encoder(LiteEarly(model), LiteLate(model, last_stride=1), LiteLate(own, last_stride=2), reports)


@dataclass(frozen=True)
class FastEncoder:
    """An entry of `FAST_ENCODERS`.

    Attributes:
        cut: builds the encoder with these ImageNet weights and cuts it.
        width, foreground_width: channels of the background decoder and of the foreground branch.
    """

    cut: Callable[[Pretrained], Encoder]
    width: int
    foreground_width: int


FAST_ENCODERS: Final[dict[str, FastEncoder]] = {
    "resnet18": FastEncoder(_fast_resnet("resnet18"), width=256, foreground_width=128),
    "resnet50": FastEncoder(_fast_resnet("resnet50"), width=256, foreground_width=128),
    "mobilenetv2": FastEncoder(_fast_mobilenet, width=128, foreground_width=64),
    "efficientnet-lite0": FastEncoder(_fast_lite, width=128, foreground_width=64),
}
"""What follows "fast-" in the name of a network. Any encoder of timm's goes as well: see `timm_encoder.py`."""
