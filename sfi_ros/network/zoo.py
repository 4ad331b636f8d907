"""Names of networks, and how each is put together."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from torch import nn

from sfi_ros.classes import BACKGROUND_CLASSES
from sfi_ros.errors import OptionError, shown
from sfi_ros.network.backbones import (
    FAST_ENCODERS,
    FastEncoder,
    LoadReport,
    Pretrained,
    ResNetEarly,
    ResNetLate,
    imagenet_model,
    restride,
)
from sfi_ros.network.classifiers import Architecture
from sfi_ros.network.decoders import (
    LightDecoder,
    LightForeground,
    PyramidDecoder,
    SeparateForeground,
    SharedForeground,
)
from sfi_ros.network.options import NetworkOptions
from sfi_ros.network.scene_network import SceneNetwork
from sfi_ros.network.sfi_net import SFINet
from sfi_ros.network.timm_encoder import PREFIX, timm_encoder
from sfi_ros.network.two_stage import TwoStageNet


def build(name: str, *, pretrained: Pretrained = None, **options: Any) -> SceneNetwork:
    """Build a network by its name.

    Args:
        name: one of `NAMES`, or "fast-timm:" and the name of a model of timm's (see `timm_encoder`).
        pretrained: ImageNet initialisation of the encoders: None, "imagenet" or the path of a .safetensors file with
            torchvision's names (timm's for EfficientNet-Lite0 and timm's models), which then serves every encoder of
            that architecture. `network.reports` says what
            was loaded.
        **options: see `NetworkOptions`.

    Returns:
        The network in training mode, float32, on the CPU.

    Raises:
        OptionError: an unknown name or option.
        SfiError: see `backbones.imagenet_model`.
    """
    if name.startswith(PREFIX):
        return _fast(timm_encoder(name.removeprefix(PREFIX)))(name, pretrained, options)
    if name not in _BUILDERS:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise OptionError(
            f"unknown network {shown(repr(name))}{hint}; known are {', '.join(NAMES)}, and {PREFIX} before a timm name"
        )
    return _BUILDERS[name](name, pretrained, options)


def _paper(architecture: Architecture, *, shared: bool) -> Callable[..., SceneNetwork]:
    def build_paper(name: str, pretrained: Pretrained, values: dict[str, Any]) -> SceneNetwork:
        options = NetworkOptions.from_dict(values)
        early, late, decoder, reports = _dilated_resnet(architecture, pretrained)
        foreground: nn.Module
        if shared:
            foreground = SharedForeground(early.channels, options.tells_kinds)
        else:
            foreground, own_reports = _separate_foreground(architecture, pretrained, options)
            reports += own_reports
        return SFINet(name, options, early=early, late=late, foreground=foreground, decoder=decoder, reports=reports)

    return build_paper


def _two_stage(architecture: Architecture) -> Callable[..., SceneNetwork]:
    def build_two_stage(name: str, pretrained: Pretrained, values: dict[str, Any]) -> SceneNetwork:
        own = {"mpi_position": "image", "fill": "zero", "boundary": "raw"}
        options = NetworkOptions.from_dict({**own, **values})
        if any(getattr(options, key) != value for key, value in own.items()):
            raise OptionError(f"{name} blacks out the image: its options are {own}; got {options}")
        early, late, decoder, reports = _dilated_resnet(architecture, pretrained)
        foreground, own_reports = _separate_foreground(architecture, pretrained, options)
        reports += own_reports
        return TwoStageNet(
            name, options, early=early, late=late, foreground=foreground, decoder=decoder, reports=reports
        )

    return build_two_stage


def _fast(encoder: FastEncoder) -> Callable[..., SceneNetwork]:
    def build_fast(name: str, pretrained: Pretrained, values: dict[str, Any]) -> SceneNetwork:
        options = NetworkOptions.from_dict(values)
        cut: Any = encoder.cut(pretrained)
        foreground = LightForeground(
            cut.foreground_late,
            cut.early.stem_channels,
            cut.early.channels,
            options.tells_kinds,
            encoder.foreground_width,
        )
        decoder = LightDecoder(cut.early.channels, cut.late.channels, len(BACKGROUND_CLASSES), encoder.width)
        return SFINet(
            name,
            options,
            early=cut.early,
            late=cut.late,
            foreground=foreground,
            decoder=decoder,
            reports=cut.reports,
        )

    return build_fast


def _dilated_resnet(
    architecture: Architecture, pretrained: Pretrained
) -> tuple[ResNetEarly, ResNetLate, PyramidDecoder, tuple[LoadReport, ...]]:
    """Return the paper's encoder, blocks 3 and 4 at stride 8, and its decoder."""
    resnet, reports = imagenet_model(architecture, pretrained)
    late = ResNetLate(resnet, strides=(1, 1), dilations=(2, 4))
    return ResNetEarly(resnet), late, PyramidDecoder(late.channels, len(BACKGROUND_CLASSES)), reports


def _separate_foreground(
    architecture: Architecture, pretrained: Pretrained, options: NetworkOptions
) -> tuple[SeparateForeground, tuple[LoadReport, ...]]:
    """Return the paper's foreground branch: half a ResNet-18 at stride 4, whatever the main encoder is.

    A local file with the weights of another main encoder does not fit it: the branch then starts at random.
    """
    fits = architecture == "resnet18" or pretrained in (None, "imagenet")
    resnet, reports = imagenet_model("resnet18", pretrained if fits else None)
    restride(resnet.layer1, 1, 2)
    restride(resnet.layer2, 1, 2)
    return SeparateForeground(ResNetEarly(resnet), options.tells_kinds), reports


_BUILDERS: dict[str, Callable[..., SceneNetwork]] = {
    "paper-resnet18": _paper("resnet18", shared=False),
    "paper-resnet50": _paper("resnet50", shared=False),
    "paper-resnet18-shared": _paper("resnet18", shared=True),
    "paper-resnet50-shared": _paper("resnet50", shared=True),
    "two-stage-resnet18": _two_stage("resnet18"),
    "two-stage-resnet50": _two_stage("resnet50"),
    **{f"fast-{name}": _fast(encoder) for name, encoder in FAST_ENCODERS.items()},
}

NAMES = tuple(_BUILDERS)
"""All names that `build` knows without timm."""
