"""Any convolutional encoder of timm's, by name: `fast-timm:regnety_004`. Needs the package timm.

A classifier of timm's is taken apart into steps that follow each other, and cut where its stride grows beyond 8. What
timm says of its own features (`feature_info`) tells where that is.

MPI wants non-negative features, and those of most encoders are signed there. They are split into their positive and
their negative part, side by side, which are inpainted and put together again: what is not inpainted is as it was.
"""

from __future__ import annotations

import copy
import difflib
from typing import Any

import torch
from torch import Tensor, nn

from sfi_ros.errors import OptionError, UnavailableError, shown
from sfi_ros.network.backbones import Encoder, FastEncoder, LoadReport, Pretrained, load_matching, read_pretrained
from sfi_ros.network.image_format import IMAGENET_MEAN, IMAGENET_STD

PREFIX = "fast-timm:"
"""How the names of such networks begin; what follows is timm's name."""

_STRIDES = (4, 8, 16, 32)


def timm_encoder(name: str) -> FastEncoder:
    """Return the entry that `backbones.FAST_ENCODERS` would have for one of timm's models."""
    return FastEncoder(lambda pretrained: _cut(name, pretrained), width=128, foreground_width=64)


class TimmEarly(nn.Module):
    """The steps to stride 8.

    Args:
        to_stride_4, to_stride_8: steps; the second go on from the first.
        channels: of what they give.
        mean, std: of the images that the weights were trained on.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        to_stride_4: nn.Sequential,
        to_stride_8: nn.Sequential,
        channels: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ):
        super().__init__()
        self.to_stride_4, self.to_stride_8 = to_stride_4, to_stride_8
        self.stem_channels, self.channels = channels[0], 2 * channels[1]
        ours = zip(IMAGENET_MEAN, IMAGENET_STD, mean, std, strict=True)
        factors = [(our_std / s, (our_mean - m) / s) for our_mean, our_std, m, s in ours]
        scale, shift = torch.tensor(factors).T.reshape(2, 1, 3, 1, 1)
        self.register_buffer("scale", scale.clone())
        self.register_buffer("shift", shift.clone())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) -> features at stride 4 (signed), and at stride 8 their positive and negative parts."""
        stem = self.to_stride_4(image * self.scale + self.shift)
        features = self.to_stride_8(stem)
        return stem, torch.cat([features.relu(), (-features).relu()], 1)


class TimmLate(nn.Module):
    """The steps to strides 16 and 32."""

    def __init__(self, to_stride_16: nn.Sequential, to_stride_32: nn.Sequential, channels: tuple[int, int]):
        super().__init__()
        self.to_stride_16, self.to_stride_32, self.channels = to_stride_16, to_stride_32, channels

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Positive and negative parts at stride 8 -> features at strides 16 and 32."""
        positive, negative = features.chunk(2, 1)
        block3 = self.to_stride_16(positive - negative)
        return block3, self.to_stride_32(block3)


def _cut(name: str, pretrained: Pretrained) -> Encoder:
    model, reports = _model(name, pretrained)
    ends = {info["reduction"]: info for info in model.feature_info} if hasattr(model, "feature_info") else {}
    if not all(stride in ends for stride in _STRIDES):
        raise OptionError(f"timm's {name} has no features at strides 4, 8, 16 and 32, so it cannot be cut there")
    steps = _steps(model)
    pieces, begin = [], 0
    for stride in _STRIDES:
        module = ends[stride]["module"]
        last = [number for number, (step, _) in enumerate(steps) if step == module or step.startswith(f"{module}.")]
        if not last:
            raise OptionError(f"timm's {name} is no sequence of parts that could be cut behind its {module}")
        pieces.append(nn.Sequential(*(part for _, part in steps[begin : last[-1] + 1])))
        begin = last[-1] + 1
    channels = [ends[stride]["num_chs"] for stride in _STRIDES]
    configuration = model.pretrained_cfg
    early = TimmEarly(
        pieces[0], pieces[1], (channels[0], channels[1]), tuple(configuration["mean"]), tuple(configuration["std"])
    )
    late = TimmLate(pieces[2], pieces[3], (channels[2], channels[3]))
    _try_out(name, early, late)
    return Encoder(early, late, copy.deepcopy(late), reports)


def _model(name: str, pretrained: Pretrained) -> tuple[Any, tuple[LoadReport, ...]]:
    try:
        import timm
    except ImportError as error:
        raise UnavailableError(f"{PREFIX}{shown(name)} needs timm: pip install 'sfi_ros[timm]'") from error
    if not timm.is_model(name):  # a name only: no address of a hub, no path
        near = difflib.get_close_matches(name[:100], timm.list_models(), n=1)
        raise OptionError(f"timm has no model {shown(name)}{f' (did you mean {near[0]}?)' if near else ''}")
    if str(pretrained) == "imagenet":
        try:
            model = timm.create_model(name, pretrained=True, num_classes=0)
        except Exception as error:  # the hub's client raises what its transport does
            raise UnavailableError(
                f"could not download timm's {name} ({shown(str(error))}); pass the path of a local .safetensors file "
                "with timm's parameter names instead"
            ) from error
        own = tuple(model.state_dict())
        return model, (LoadReport(f"timm {name}", loaded=own, missing=(), mismatched=(), unused=()),)
    model = timm.create_model(name, pretrained=False, num_classes=0)
    if pretrained is None:
        return model, ()
    return model, (load_matching(model, read_pretrained(pretrained), str(pretrained)),)


def _steps(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the parts of a model in the order of their names, sequences opened."""
    steps: list[tuple[str, nn.Module]] = []
    for name, part in model.named_children():
        if isinstance(part, nn.Sequential):
            steps += [(f"{name}.{inner}", step) for inner, step in part.named_children()]
        else:
            steps.append((name, part))
    return steps


def _try_out(name: str, early: TimmEarly, late: TimmLate) -> None:
    """Refuse a model whose parts, one after the other, do not give what it says of its features."""
    image = torch.zeros(1, 3, 64, 96, device=early.scale.device)
    training = early.training
    try:
        with torch.no_grad():
            stem, features = early.eval()(image)
            maps = (stem, features, *late.eval()(features))
    except Exception as error:  # whatever a model of another kind makes of it
        raise OptionError(f"timm's {name} is no sequence of parts that could be cut: {shown(str(error))}") from error
    finally:
        early.train(training)
        late.train(training)
    channels = (early.stem_channels, early.channels, *late.channels)
    expected = [(1, count, 64 // stride, 96 // stride) for count, stride in zip(channels, _STRIDES, strict=True)]
    if [tuple(one.shape) for one in maps] != expected:
        raise OptionError(f"timm's {name} cannot be cut at strides 4, 8, 16 and 32: its parts do not follow each other")
