"""What the single-stage network and its two-stage baseline have in common: parts, inputs, and the mask to fill."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfi_ros.classes import FOREGROUND_THRESHOLD
from sfi_ros.network.backbones import LoadReport
from sfi_ros.network.decoders import LightDecoder, PyramidDecoder
from sfi_ros.network.mpi import max_pool_inpaint, zero_fill
from sfi_ros.network.options import NetworkOptions
from sfi_ros.network.outputs import SceneLogits
from sfi_ros.network.preprocessing import pad_to_multiple
from sfi_ros.network.views import VIEWS, mean_of

Size = tuple[int, int] | torch.Size


class Fill(nn.Module):
    """Replaces the features of the foreground, as the options say.

    Args:
        options: of the network.
        longest: see `mpi.max_pool_inpaint`.
    """

    def __init__(self, options: NetworkOptions, longest: int | None = None):
        super().__init__()
        self.options, self.longest = options, longest

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features (N, C, h, w) and a mask (N, 1, H, W) of any size -> features without foreground."""
        if self.options.fill == "zero":
            return zero_fill(features, mask, boundary=self.options.boundary)
        return max_pool_inpaint(features, mask, boundary=self.options.boundary, longest=self.longest)


class Border(nn.Module):
    """Pads images to sides that the strides of a network divide, and crops its results.

    Args:
        multiple: what both sides become multiples of.
    """

    def __init__(self, multiple: int):
        super().__init__()
        self.multiple = multiple

    def pad(self, planes: Tensor) -> Tensor:
        """Repeat the bottom and right border of (N, C, H, W) until the sides are multiples."""
        return pad_to_multiple(planes, self.multiple)

    def crop(self, planes: Tensor, size: Size) -> Tensor:
        """Return the first `size` = (height, width) rows and columns."""
        return planes[..., : size[0], : size[1]]


class SceneNetwork(nn.Module):
    """A network that maps images to `SceneLogits`.

    Args:
        name: name in the zoo.
        options: see `NetworkOptions`.
        early: encoder to stride 8; `early(image)` returns its features at strides 4 and 8.
        late: the rest of the encoder; `late(features)` returns the features behind blocks 3 and 4.
        foreground: branch that maps (image, stem, early features) to foreground logits at the image's size and, in a
            network that tells kinds of objects, to logits of these; see `SceneLogits`.
        decoder: maps (early features, late features, size) to background logits of that size.
        reports: what the initialisation from ImageNet weights loaded.
        fill: what replaces the features of the foreground; None for `Fill`.
        border: what pads and crops; None for `Border`.
    """

    def __init__(
        self,
        name: str,
        options: NetworkOptions,
        *,
        early: nn.Module,
        late: nn.Module,
        foreground: nn.Module,
        decoder: PyramidDecoder | LightDecoder,
        reports: tuple[LoadReport, ...] = (),
        fill: nn.Module | None = None,
        border: Border | None = None,
    ):
        super().__init__()
        self.name, self.options, self.reports = name, options, reports
        self.early, self.late = early, late
        self.foreground, self.decoder = foreground, decoder
        self.fill = Fill(options) if fill is None else fill
        self.border = Border(decoder.multiple) if border is None else border

    def forward(
        self, images: Tensor, given_foreground: Tensor | None = None, fake_foreground: Tensor | None = None
    ) -> SceneLogits:
        """Segment the foreground and the background behind it.

        Args:
            images: (N, 3, H, W) floating point, normalised (`preprocessing.normalize`); any H and W.
            given_foreground: (N, 1, H, W) mask that takes the place of the predicted one.
            fake_foreground: (N, 1, H, W) mask that is united with it before the foreground is filled (paper,
                section III-C).

        Returns:
            Logits of size (H, W).

        Raises:
            ValueError: shapes that do not fit, or no mask where `mask_source` is "given".
        """
        self._check(images, given_foreground, fake_foreground)
        size = images.shape[-2:]
        views = VIEWS[1 if self.training else self.options.views]
        features, objects = zip(*(self.see(view.image(images)) for view in views), strict=True)
        foreground, *kinds = (mean_of(views, logits, size) for logits in zip(*objects, strict=True))
        mask = mask_to_fill(foreground, given_foreground, fake_foreground)
        behind = [self.inpaint(each, view.mask(mask)) for each, view in zip(features, views, strict=True)]
        return SceneLogits(mean_of(views, behind, size), foreground, *kinds)

    def see(self, image: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Find the foreground in (N, 3, H, W).

        Returns:
            What `inpaint` needs, and logits of the foreground (N, 1, H, W) and, where kinds are told, (N, 3, H, W).
        """
        raise NotImplementedError

    def inpaint(self, features: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """Segment the background, (N, 3, H, W) logits, without what lies under the mask (N, 1, H, W) of 0 and 1."""
        raise NotImplementedError

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that ImageNet initialises; the others learn from nothing and want a higher rate."""
        encoders = [self.early, self.late]
        encoders += [part for name, part in self.foreground.named_children() if name in ("encoder", "late")]
        return [parameter for encoder in encoders for parameter in encoder.parameters()]

    def _check(self, images: Tensor, given_foreground: Tensor | None, fake_foreground: Tensor | None) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"images must be normalised floating point (N, 3, H, W); got {tuple(images.shape)} of {images.dtype}"
            )
        if self.options.mask_source == "given" and given_foreground is None:
            raise ValueError("this network was built with mask_source='given': pass given_foreground (N, 1, H, W)")
        expected = (images.shape[0], 1, *images.shape[-2:])
        for name, mask in (("given_foreground", given_foreground), ("fake_foreground", fake_foreground)):
            if mask is not None and tuple(mask.shape) != expected:
                raise ValueError(f"{name} must be {expected} like the images; got {tuple(mask.shape)}")


def mask_to_fill(logits: Tensor, given_foreground: Tensor | None, fake_foreground: Tensor | None) -> Tensor:
    """Return the mask that is filled, (N, 1, H, W) of 0 or 1, like `logits`.

    A logit above zero is a probability above one half, which `FOREGROUND_THRESHOLD` is.
    """
    given = None if given_foreground is None else given_foreground.to(logits.dtype) > FOREGROUND_THRESHOLD
    mask = logits.detach() > 0 if given is None else given
    if fake_foreground is not None:
        mask = mask | (fake_foreground.to(logits.dtype) > FOREGROUND_THRESHOLD)
    return mask.to(logits.dtype)
