"""torchvision encoders, cut in two where features are inpainted.

The early half reads an image; the late half goes on from (inpainted) features. Both are cut out of one torchvision
model, so that its weights, from torchvision's own download or from a local safetensors file, load by their own names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.error import URLError

import torchvision
from torch import Tensor, nn

from sfi_ros.errors import MissingFileError, OptionError, UnavailableError
from sfi_ros.network.tensor_file import TensorFile

Architecture = Literal["resnet18", "resnet50", "mobilenet_v2"]

_IMAGENET_WEIGHTS: Final[dict[str, str]] = {
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


def torchvision_model(architecture: Architecture, pretrained: str | Path | None) -> tuple[Any, tuple[LoadReport, ...]]:
    """Build a torchvision classifier without its head, with random, downloaded or local weights.

    Args:
        architecture: torchvision's name.
        pretrained: None, "imagenet" (torchvision's weights API) or the path of a .safetensors file with torchvision's
            parameter names. A ResNet-50 file in the older v1 layout (stride on the first 1x1 convolution) loads too,
            though its features then shift by up to one pixel in each strided block.

    Raises:
        MissingFileError, CheckpointError: there is no such file, or it cannot be read.
        OptionError: the file holds nothing that fits the architecture.
        UnavailableError: the download failed.
    """
    model = torchvision.models.get_model(architecture, weights=None)
    if hasattr(model, "fc"):
        model.fc = nn.Identity()
    else:
        model.classifier = nn.Identity()
    if pretrained is None:
        return model, ()
    if str(pretrained) == "imagenet":
        name = _IMAGENET_WEIGHTS[architecture]
        try:
            state = torchvision.models.get_model_weights(architecture)[name].get_state_dict(progress=False)
        except (URLError, OSError) as error:
            raise UnavailableError(
                f"could not download torchvision's {architecture} {name} ({error}); pass the path of a local "
                ".safetensors file with torchvision's parameter names instead"
            ) from error
        source = f"torchvision {architecture} {name}"
    else:
        try:
            state, source = TensorFile(pretrained).read(), str(pretrained)
        except MissingFileError as error:
            raise MissingFileError(f"pretrained {error}; use 'imagenet' to download them") from error
    return model, (_load_matching(model, state, source),)


def _load_matching(model: nn.Module, state: dict[str, Tensor], source: str) -> LoadReport:
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
        """Expanded features at stride 8 -> features behind the 96- and the 160-channel units."""
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
