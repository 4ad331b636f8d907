"""Augmentation of training samples: one resampling for all geometry, then photometry on uint8.

Everything random is drawn from the generator that is handed in, so a sample looks the same whichever worker,
process or resumed run makes it. Cheap on purpose: two CPU cores train at about one step of eight a second,
and the whole chain costs a few milliseconds a sample. Operations are those of `torchvision.transforms.v2`
where it has them; hue, saturation, contrast, brightness, white balance and overexposure are all affine in
RGB and are applied as one 3x4 matrix instead of six passes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from sfi_ros.classes import IGNORE

_LUMA = np.array([0.299, 0.587, 0.114])
_PADDING_COLOR = (124, 116, 104)  # the ImageNet mean: zero once it is normalised


@dataclass(frozen=True)
class AugmentationOptions:
    """Ranges and probabilities; the defaults change nothing.

    Attributes:
        crop: (height, width) of the result in pixels; None keeps the image as it is (no geometry but flips).
        scale: bounds of the zoom, drawn log-uniformly.
        stretch: bounds of the additional horizontal zoom, drawn log-uniformly.
        flip: probability of a horizontal flip.
        brightness, contrast, saturation: the factor is uniform in 1 - x .. 1 + x.
        hue: rotation of the colour circle, uniform in -x .. x turns.
        gamma: the exponent is log-uniform in 1/(1 + x) .. 1 + x.
        white_balance: every channel's gain is uniform in 1 - x .. 1 + x.
        photometric: probability that the six above are applied at all.
        shadow: probability that shadows are cast: a building's edge, or the dapples of a tree.
        grayscale, overexposure, sharpen, blur, noise, jpeg: probabilities.
    """

    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    stretch: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0
    photometric: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gamma: float = 0.0
    white_balance: float = 0.0
    shadow: float = 0.0
    grayscale: float = 0.0
    overexposure: float = 0.0
    sharpen: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0


def augment(
    image: Tensor, labels: Tensor, options: AugmentationOptions, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Augments an image and any number of label maps alike.

    Args:
        image: (3, H, W) uint8 RGB.
        labels: (L, H, W) uint8, nearest-sampled; 255 fills what lies outside the source image.
        options: what to do.
        generator: source of randomness.

    Returns:
        image (3, h, w) uint8 and labels (L, h, w) uint8 with (h, w) = `options.crop`, or (H, W) without it.
    """
    height, width = options.crop or image.shape[-2:]
    window = _Window(slice(0, height), slice(0, width))
    if options.crop is not None:
        image, labels, window = _zoomed_crop(image, labels, options, options.crop, generator)
    if generator.random() < options.flip:
        image, labels = v2.horizontal_flip(image), v2.horizontal_flip(labels)
    image = photometry(image.contiguous(), options, generator)
    if image.shape[-2:] == (height, width):
        return image, labels.contiguous()
    # Padded last: its colour is the mean of what the network sees, whatever the photometry was.
    canvas = torch.tensor(_PADDING_COLOR, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
    label_canvas = torch.full((labels.shape[0], height, width), IGNORE, dtype=torch.uint8)
    canvas[:, window.rows, window.columns] = image
    label_canvas[:, window.rows, window.columns] = labels
    return canvas, label_canvas


class _Window(NamedTuple):
    """Where on the canvas the augmented image lies."""

    rows: slice
    columns: slice


def _zoomed_crop(
    image: Tensor,
    labels: Tensor,
    options: AugmentationOptions,
    crop: tuple[int, int],
    generator: np.random.Generator,
) -> tuple[Tensor, Tensor, _Window]:
    """Zoom, stretch and crop in one resampling; smaller than `crop` where the zoomed image does not fill it."""
    height, width = image.shape[-2:]
    zoom_y = _log_uniform(generator, options.scale)
    zoom_x = zoom_y * _log_uniform(generator, options.stretch)
    top, source_height, place_top, place_height = _window(height, crop[0], zoom_y, generator)
    left, source_width, place_left, place_width = _window(width, crop[1], zoom_x, generator)
    source = (top, left, source_height, source_width, [place_height, place_width])
    return (
        v2.resized_crop(image, *source, antialias=True),
        v2.resized_crop(labels, *source, interpolation=InterpolationMode.NEAREST_EXACT),
        _Window(slice(place_top, place_top + place_height), slice(place_left, place_left + place_width)),
    )


def _window(source: int, target: int, zoom: float, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """Along one axis: (start, length) in the source and (start, length) in the target."""
    wanted = target / zoom
    if wanted <= source:
        length = max(1, round(wanted))
        return int(generator.integers(0, source - length + 1)), length, 0, target
    placed = min(target, max(1, round(source * zoom)))
    return 0, source, int(generator.integers(0, target - placed + 1)), placed


def photometry(image: Tensor, options: AugmentationOptions, generator: np.random.Generator) -> Tensor:
    """Light, colour, exposure and sensor changes of a (3, H, W) uint8 image."""
    if generator.random() < options.shadow:
        image = cast_shadow(image, generator)
    if generator.random() < options.photometric:
        image = _color(image, options, generator)
    if generator.random() < options.sharpen:
        image = _sharpened(image, generator.uniform(0.3, 1.5))
    if generator.random() < options.blur:
        sigma = generator.uniform(0.4, 1.6)
        image = v2.gaussian_blur(image, [5, 5], [sigma, sigma])
    if generator.random() < options.noise:
        deviation = generator.uniform(2.0, 12.0)
        noise = torch.from_numpy(generator.standard_normal(tuple(image.shape), dtype=np.float32))
        image = image.float().add_(noise, alpha=deviation).round_().clamp_(0, 255).to(torch.uint8)
    if generator.random() < options.jpeg:
        image = v2.jpeg(image, int(generator.integers(25, 90)))
    return image


def cast_shadow(image: Tensor, generator: np.random.Generator) -> Tensor:
    """Darkens a random region, bluish as the open sky lights it.

    A smooth random field on a grid of 1x1 cells (one edge across the image) to 8x16 (dapples), cut at a random
    height, says where; the cut is sharp or soft. Labels do not change: that is what the network has to learn.

    Args:
        image: (3, H, W) uint8.
        generator: source of randomness.
    """
    cells = int(2 ** generator.integers(0, 4))
    grid = torch.from_numpy(generator.standard_normal((1, 1, cells + 1, 2 * cells + 1), dtype=np.float32))
    field = F.interpolate(grid, size=image.shape[-2:], mode="bilinear", align_corners=True)[0]
    cut, softness = generator.uniform(-0.6, 1.2), _log_uniform(generator, (0.01, 0.3))
    shade = ((field - cut) / softness).clamp_(0, 1)
    light = generator.uniform(0.3, 0.75) * np.array([0.92, 1.0, 1.12])
    gains = 1 - shade * torch.from_numpy(1 - light).float()[:, None, None]
    return (image * gains).round_().clamp_(0, 255).to(torch.uint8)


def _sharpened(image: Tensor, amount: float) -> Tensor:
    """Unsharp mask; v2.adjust_sharpness takes ten times as long on a CPU."""
    pixels = image.float()
    smooth = F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
    return pixels.add_(pixels - smooth, alpha=amount).round_().clamp_(0, 255).to(torch.uint8)


def _color(image: Tensor, options: AugmentationOptions, generator: np.random.Generator) -> Tensor:
    """Gamma through a table, everything else as one affine map of RGB."""
    table = np.arange(256, dtype=np.float32) / 255
    if options.gamma > 0:
        table = table ** _log_uniform(generator, (1 / (1 + options.gamma), 1 + options.gamma))
    matrix, offset = np.eye(3), np.zeros(3)

    gains = 1 + generator.uniform(-1, 1, 3) * options.white_balance
    matrix = np.diag(gains) @ matrix

    saturation = 1 + generator.uniform(-1, 1) * options.saturation
    if generator.random() < options.grayscale:
        saturation = 0.0
    to_gray = np.tile(_LUMA, (3, 1))
    matrix = (saturation * np.eye(3) + (1 - saturation) * to_gray) @ matrix
    matrix = _hue_rotation(generator.uniform(-1, 1) * options.hue) @ matrix

    contrast = 1 + generator.uniform(-1, 1) * options.contrast
    mean = float(image[:, ::8, ::8].float().mean()) / 255
    matrix, offset = contrast * matrix, np.full(3, (1 - contrast) * mean)
    brightness = 1 + generator.uniform(-1, 1) * options.brightness
    if generator.random() < options.overexposure:
        brightness *= generator.uniform(1.3, 2.2)
    matrix, offset = brightness * matrix, brightness * offset

    # Fancy indexing of 256 floats by uint8 in NumPy is several times faster than torch's on a CPU.
    pixels = torch.from_numpy(np.take(table.astype(np.float32), image.numpy())).flatten(1)
    weights = torch.from_numpy((255 * matrix).astype(np.float32))
    bias = torch.from_numpy((255 * offset).astype(np.float32))[:, None]
    return torch.addmm(bias, weights, pixels).round_().clamp_(0, 255).to(torch.uint8).view_as(image)


def _hue_rotation(turns: float) -> np.ndarray:
    """(3, 3): rotates the colour plane around the gray axis and keeps luma."""
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return np.linalg.inv(to_yiq) @ rotation @ to_yiq


def _log_uniform(generator: np.random.Generator, bounds: tuple[float, float]) -> float:
    return math.exp(generator.uniform(math.log(bounds[0]), math.log(bounds[1])))
