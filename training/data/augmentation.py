"""Augmentation of training samples: one resampling for all geometry, then photometry on uint8.

Chance and work are apart. `draw` decides everything random about a sample from the generator that it is handed, on
the CPU, so a sample looks the same whichever worker, process or resumed run makes it. The work is done either in a
loader's worker, one sample at a time (`augment`), or on the training device, a batch at a time (`augment_batch`).
Photometry is one implementation for both. Resampling is two, because what is fastest differs: torchvision's 8-bit
kernels on a CPU, two batched matrix products on a GPU; they agree to one of 256 levels. Nothing here makes a GPU
wait for the host.

Cheap on purpose: two CPU cores train at about one step of eight a second, and the whole chain costs a few
milliseconds a sample. Hue, saturation, contrast, brightness, white balance and overexposure are all affine in RGB
and are applied as one 3x4 matrix instead of six passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from sfi_ros.classes import IGNORE
from training.configuration import AugmentationOptions
from training.data.jpeg import jpeg
from training.data.sample import Tensors

_LUMA = np.array([0.299, 0.587, 0.114])
_PADDING_COLOR = (124, 116, 104)  # the ImageNet mean: zero once it is normalised
_SHADOW_GRID = (9, 17)  # nodes of the finest shadow; the coarser ones are made that fine, which does not change them


class Axis(NamedTuple):
    """Along one axis: `length` source pixels from `start` on become `placed` of the `size` target pixels, from `place`.

    What lies outside is padding.
    """

    start: int
    length: int
    place: int
    placed: int
    size: int

    @property
    def window(self) -> slice:
        """The target pixels that show the source."""
        return slice(self.place, self.place + self.placed)


@dataclass(frozen=True)
class Draw:
    """What chance decided about one sample.

    Attributes:
        rows, columns: which part of the source goes where.
        flip: mirrored horizontally, within its place.
        operations: name of a photometric operation that is applied -> its parameters (float32, one dimension) and a
            whole number that the host has to know (the seed of noise, the quality of JPEG, else 0).
    """

    rows: Axis
    columns: Axis
    flip: bool
    operations: dict[str, tuple[np.ndarray, int]]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the result."""
        return self.rows.size, self.columns.size


@dataclass(frozen=True)
class Operation(Tensors):
    """A photometric operation on some images of a batch: their numbers, (n, k) parameters, n host numbers."""

    images: Tensor
    parameters: Tensor
    whole: tuple[int, ...]


@dataclass(frozen=True)
class Draws(Tensors):
    """`Draw` of every sample of a batch, as tensors, so that they travel to a device together with it.

    Attributes:
        size: (height, width) of the results.
        axes: (N, 2, 4) float32: start, length, place and placed of rows and columns.
        flip: (N,) bool.
        operations: by name; those that no sample of the batch needs are absent.
    """

    size: tuple[int, int]
    axes: Tensor
    flip: Tensor
    operations: dict[str, Operation]

    @classmethod
    def of(cls, draws: Sequence[Draw]) -> Draws:
        """Collect draws.

        Raises:
            ValueError: their results differ in size.
        """
        if len({draw.size for draw in draws}) > 1:
            raise ValueError("the images of a batch differ in size: set augmentation.crop, which makes them equal")
        operations = {}
        for name in OPERATIONS:
            images = [number for number, draw in enumerate(draws) if name in draw.operations]
            if images:
                parameters, whole = zip(*(draws[number].operations[name] for number in images), strict=True)
                operations[name] = Operation(torch.tensor(images), torch.from_numpy(np.stack(parameters)), whole)
        axes = torch.tensor([[draw.rows[:4], draw.columns[:4]] for draw in draws], dtype=torch.float32)
        return cls(draws[0].size, axes, torch.tensor([draw.flip for draw in draws]), operations)


def augment(
    image: Tensor, labels: Tensor, options: AugmentationOptions, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw and augment one sample on the CPU; see `augment_sample`."""
    height, width = image.shape[-2:]
    return augment_sample(image, labels, draw((height, width), options, generator))


def augment_sample(image: Tensor, labels: Tensor, drawn: Draw) -> tuple[Tensor, Tensor]:
    """Augment an image and any number of label maps alike, on the CPU.

    Args:
        image: (3, H, W) uint8 RGB.
        labels: (L, H, W) uint8, nearest-sampled; 255 fills what lies outside the source image.
        drawn: what to do.

    Returns:
        image (3, h, w) uint8 and labels (L, h, w) uint8 with (h, w) = `drawn.size`.
    """
    rows, columns = drawn.rows, drawn.columns
    source = (rows.start, columns.start, rows.length, columns.length, [rows.placed, columns.placed])
    image = v2.resized_crop(image, *source, antialias=True)
    labels = v2.resized_crop(labels, *source, interpolation=InterpolationMode.NEAREST_EXACT)
    if drawn.flip:
        image, labels = image.flip(-1), labels.flip(-1)
    image = photometry(image.contiguous()[None], Draws.of([_unpadded(drawn)]))[0]
    if image.shape[-2:] == drawn.size:
        return image, labels.contiguous()
    # Padded last: its colour is the mean of what the network sees, whatever the photometry was.
    canvas = _padding_color(image.device).repeat(1, *drawn.size)
    label_canvas = torch.full((len(labels), *drawn.size), IGNORE, dtype=torch.uint8)
    canvas[:, rows.window, columns.window] = image
    label_canvas[:, rows.window, columns.window] = labels
    return canvas, label_canvas


def augment_batch(images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Augment a batch where it lies.

    The same as `augment_sample` of each, but for rounding, the device's own noise, and pixels beside padding, which
    blur, sharpening and JPEG see continued there instead of ending.

    Args:
        images: (N, 3, H, W) uint8 RGB. H and W may exceed a sample's own: nothing beyond is looked at.
        labels: (N, L, H, W) uint8.
        draws: what to do, on the same device.

    Returns:
        images (N, 3, h, w) uint8 and labels (N, L, h, w) uint8 with (h, w) = `draws.size`.
    """
    number, maps, *source = labels.shape
    rows, row_inside = _target_pixels(draws.axes[:, 0], draws.size[0])
    columns, column_inside = _target_pixels(draws.axes[:, 1], draws.size[1], draws.flip)
    inside = (row_inside[:, :, None] & column_inside[:, None, :])[:, None]

    vertical = _resampling(draws.axes[:, 0], rows, source[0])[:, None]
    horizontal = _resampling(draws.axes[:, 1], columns, source[1])[:, None].transpose(-1, -2)
    images = _as_uint8(vertical @ (images.float() @ horizontal))

    # Until the end the padding repeats the image's border, so that nothing smears its colour into the image.
    device = labels.device
    labels = labels[
        torch.arange(number, device=device)[:, None, None, None],
        torch.arange(maps, device=device)[None, :, None, None],
        _nearest(draws.axes[:, 0], rows)[:, None, :, None],
        _nearest(draws.axes[:, 1], columns)[:, None, None, :],
    ]
    images = torch.where(inside, photometry(images, draws), _padding_color(device))
    return images, torch.where(inside, labels, IGNORE)


def photometry(images: Tensor, draws: Draws) -> Tensor:
    """Light, colour, exposure and sensor changes of (N, 3, H, W) uint8 images with (H, W) = `draws.size`."""
    for name, apply in OPERATIONS.items():
        operation = draws.operations.get(name)
        if operation is None:
            continue
        if len(operation.images) == len(images):
            images = apply(images, operation, draws.axes)
        else:
            some = operation.images
            images = images.index_copy(0, some, apply(images[some], operation, draws.axes[some]))
    return images


# --- chance ----------------------------------------------------------------------------------------------------------


def draw(size: tuple[int, int], options: AugmentationOptions, generator: np.random.Generator) -> Draw:
    """Decide how a sample is augmented.

    Args:
        size: (height, width) of the source image.
        options: ranges and probabilities.
        generator: source of randomness.
    """
    height, width = size
    rows, columns = Axis(0, height, 0, height, height), Axis(0, width, 0, width, width)
    if options.crop is not None:
        zoom_y = _log_uniform(generator, options.scale)
        zoom_x = zoom_y * _log_uniform(generator, options.stretch)
        rows = _draw_axis(height, options.crop[0], zoom_y, generator)
        columns = _draw_axis(width, options.crop[1], zoom_x, generator)
    flip = bool(generator.random() < options.flip)
    operations: dict[str, tuple[np.ndarray, int]] = {}
    if generator.random() < options.shadow:
        operations["shadow"] = _draw_shadow(generator), 0
    if generator.random() < options.photometric and _changes_color(options):
        operations["color"] = _draw_color(options, generator), 0
    if generator.random() < options.sharpen:
        operations["sharpen"] = _parameters(generator.uniform(0.3, 1.5)), 0
    if generator.random() < options.blur:
        kernel = np.exp(-0.5 * (np.arange(-2, 3) / generator.uniform(0.4, 1.6)) ** 2)
        operations["blur"] = _parameters(kernel / kernel.sum()), 0
    if generator.random() < options.noise:
        operations["noise"] = _parameters(generator.uniform(2.0, 12.0)), int(generator.integers(2**63))
    if generator.random() < options.jpeg:
        quality = int(generator.integers(25, 90))
        operations["jpeg"] = _parameters(quality), quality
    return Draw(rows, columns, flip, operations)


def _draw_axis(source: int, target: int, zoom: float, generator: np.random.Generator) -> Axis:
    wanted = target / zoom
    if wanted <= source:
        length = max(1, round(wanted))
        return Axis(int(generator.integers(0, source - length + 1)), length, 0, target, target)
    placed = min(target, max(1, round(source * zoom)))
    return Axis(0, source, int(generator.integers(0, target - placed + 1)), placed, target)


def _draw_shadow(generator: np.random.Generator) -> np.ndarray:
    """Draw a smooth random field, the height at which it is cut, how softly, and the light in the shade, as parameters.

    The field's grid has 1x1 cells (one edge across the image) to 8x16 (dapples).
    """
    cells = int(2 ** generator.integers(0, 4))
    coarse = torch.from_numpy(generator.standard_normal((1, 1, cells + 1, 2 * cells + 1), dtype=np.float32))
    grid = F.interpolate(coarse, size=_SHADOW_GRID, mode="bilinear", align_corners=True).numpy()
    cut, softness = generator.uniform(-0.6, 1.2), _log_uniform(generator, (0.01, 0.3))
    light = generator.uniform(0.3, 0.75) * np.array([0.92, 1.0, 1.12])  # bluish, as the open sky lights it
    return _parameters(cut, softness, light, grid.ravel())


def _changes_color(options: AugmentationOptions) -> bool:
    ranges = (options.brightness, options.contrast, options.saturation, options.hue, options.gamma)
    return any((*ranges, options.white_balance, options.grayscale, options.overexposure))


def _draw_color(options: AugmentationOptions, generator: np.random.Generator) -> np.ndarray:
    """Gamma as a table of 256, everything else as a 3x3 matrix of RGB and the share of the image's mean to add."""
    table = np.arange(256) / 255
    if options.gamma > 0:
        table = table ** _log_uniform(generator, (1 / (1 + options.gamma), 1 + options.gamma))

    gains = 1 + generator.uniform(-1, 1, 3) * options.white_balance
    saturation = 1 + generator.uniform(-1, 1) * options.saturation
    if generator.random() < options.grayscale:
        saturation = 0.0
    to_gray = np.tile(_LUMA, (3, 1))
    matrix = (saturation * np.eye(3) + (1 - saturation) * to_gray) @ np.diag(gains)
    matrix = _hue_rotation(generator.uniform(-1, 1) * options.hue) @ matrix

    contrast = 1 + generator.uniform(-1, 1) * options.contrast
    brightness = 1 + generator.uniform(-1, 1) * options.brightness
    if generator.random() < options.overexposure:
        brightness *= generator.uniform(1.3, 2.2)
    return _parameters(255 * table, (brightness * contrast * matrix).ravel(), brightness * (1 - contrast))


def _hue_rotation(turns: float) -> np.ndarray:
    """(3, 3): rotates the colour plane around the gray axis and keeps luma."""
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return np.linalg.inv(to_yiq) @ rotation @ to_yiq


def _log_uniform(generator: np.random.Generator, bounds: tuple[float, float]) -> float:
    return math.exp(generator.uniform(math.log(bounds[0]), math.log(bounds[1])))


def _parameters(*values: float | np.ndarray) -> np.ndarray:
    return np.concatenate([np.atleast_1d(value) for value in values]).astype(np.float32)


# --- photometric operations: (n, 3, H, W) uint8 images, parameters, (n, 2, 4) axes -> the images changed -------------


def _cast_shadow(images: Tensor, operation: Operation, axes: Tensor) -> Tensor:
    """Darken a random region. Labels do not change: that is what the network has to learn."""
    cut, softness, light, grid = operation.parameters.split([1, 1, 3, math.prod(_SHADOW_GRID)], 1)
    field = grid.unflatten(1, _SHADOW_GRID)
    for dimension in (0, 1):  # bilinear, its outermost nodes at the outermost pixels of the window
        pixels, _ = _target_pixels(axes[:, dimension], images.shape[2 + dimension])
        nodes = torch.arange(_SHADOW_GRID[dimension], device=images.device)
        place = pixels * (nodes[-1] / (axes[:, dimension, 3:] - 1).clamp(min=1))
        weights = (1 - (place[:, :, None] - nodes).abs()).clamp_(min=0)
        field = weights @ field if dimension == 0 else field @ weights.transpose(1, 2)
    shade = ((field - cut[:, :, None]) / softness[:, :, None]).clamp_(0, 1)[:, None]
    return _as_uint8(images * (1 - shade * (1 - light)[:, :, None, None]))


def _change_color(images: Tensor, operation: Operation, axes: Tensor) -> Tensor:
    table, matrix, of_mean = operation.parameters.split([256, 9, 1], 1)
    bias = of_mean * _mean(images, axes)
    pixels = _look_up(table, images).flatten(2)
    return _as_uint8(torch.baddbmm(bias[:, :, None], matrix.unflatten(1, (3, 3)), pixels)).view_as(images)


def _mean(images: Tensor, axes: Tensor) -> Tensor:
    """(n, 1) float32: the mean of every image without its padding, from one pixel of 64."""
    rows, columns = (_target_pixels(axes[:, d], images.shape[2 + d])[1][:, ::8].float() for d in (0, 1))
    lines = (images[..., ::8, ::8].float().mean(1) * columns[:, None]).sum(2)
    return ((lines * rows).sum(1) / (rows.sum(1) * columns.sum(1)).clamp(min=1))[:, None]


def _look_up(tables: Tensor, images: Tensor) -> Tensor:
    """Every image through its own table of 256, float32."""
    if images.device.type == "cpu":  # fancy indexing by uint8 in NumPy is several times faster than torch's
        pixels = torch.empty(images.shape)
        for table, image, out in zip(tables.numpy(), images.numpy(), pixels.numpy(), strict=True):
            np.take(table, image, out=out, mode="clip")  # nothing to clip, but the default would go through a copy
        return pixels
    return tables.gather(1, images.flatten(1).long()).view(images.shape)


def _sharpen(images: Tensor, operation: Operation, _: Tensor) -> Tensor:
    """Unsharp mask; v2.adjust_sharpness takes ten times as long on a CPU."""
    pixels = images.float()
    smooth = F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
    return _as_uint8(pixels + operation.parameters[:, :, None, None] * (pixels - smooth))


def _blur(images: Tensor, operation: Operation, _: Tensor) -> Tensor:
    """Five taps along each axis; as sums of shifted images, which need no tuning for every number of images."""
    weights = operation.parameters.unflatten(1, (5, 1, 1, 1)).unbind(1)
    pixels = F.pad(images.float(), (2, 2, 2, 2), mode="reflect")
    for axis in (2, 3):
        length = pixels.shape[axis] - 4
        pixels = sum(weight * pixels.narrow(axis, shift, length) for shift, weight in enumerate(weights))
    return _as_uint8(pixels)


def _add_noise(images: Tensor, operation: Operation, _: Tensor) -> Tensor:
    """Every image's noise comes from its own seed: it does not depend on what else is in the batch."""
    generator = torch.Generator(images.device)
    noise = torch.empty(images.shape, device=images.device)
    for own, seed in zip(noise, operation.whole, strict=True):
        own.normal_(generator=generator.manual_seed(seed))
    return _as_uint8(noise.mul_(operation.parameters[:, :, None, None]).add_(images))


def _compress(images: Tensor, operation: Operation, _: Tensor) -> Tensor:
    if images.device.type == "cpu":
        pairs = zip(images, operation.whole, strict=True)
        return torch.stack([v2.jpeg(image, quality) for image, quality in pairs])
    return jpeg(images, operation.parameters)


OPERATIONS: dict[str, Callable[[Tensor, Operation, Tensor], Tensor]] = {
    "shadow": _cast_shadow,
    "color": _change_color,
    "sharpen": _sharpen,
    "blur": _blur,
    "noise": _add_noise,
    "jpeg": _compress,
}
"""In the order in which light becomes a file."""


def _as_uint8(pixels: Tensor) -> Tensor:
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


# --- resampling ------------------------------------------------------------------------------------------------------


def _unpadded(drawn: Draw) -> Draw:
    """Return the same without what lies outside the source."""
    rows, columns = (axis._replace(place=0, size=axis.placed) for axis in (drawn.rows, drawn.columns))
    return replace(drawn, rows=rows, columns=columns)


def _target_pixels(axes: Tensor, size: int, flip: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(N, size) numbers of target pixels in their windows, border repeated, mirrored; and whether they are inside."""
    _, _, place, placed = axes[:, :, None].unbind(1)
    pixel = torch.arange(size, device=axes.device) - place
    inside = (pixel >= 0) & (pixel < placed)
    pixel = torch.minimum(pixel.clamp_(min=0), placed - 1)
    if flip is not None:
        pixel = torch.where(flip[:, None], placed - 1 - pixel, pixel)
    return pixel, inside


def _resampling(axes: Tensor, pixels: Tensor, source: int) -> Tensor:
    """(N, size, source): the weights of the antialiased bilinear filter of `torch.nn.functional.interpolate`."""
    start, length, _, placed = axes[:, :, None].unbind(1)
    scale = length / placed
    centers = (start + (pixels + 0.5) * scale)[:, :, None]
    index = torch.arange(source, device=axes.device)
    weights = (1 - (index + 0.5 - centers).abs() / scale.clamp(min=1)[:, :, None]).clamp_(min=0)
    weights = weights * ((index >= start) & (index < start + length))[:, None]
    return weights / weights.sum(2, keepdim=True)


def _nearest(axes: Tensor, pixels: Tensor) -> Tensor:
    """(N, size) int64: the source pixel that each target pixel shows ("nearest-exact")."""
    start, length, _, placed = axes[:, :, None].unbind(1)
    return (start + torch.minimum(((pixels + 0.5) * (length / placed)).floor(), length - 1)).long()


@lru_cache
def _padding_color(device: torch.device) -> Tensor:
    return torch.tensor(_PADDING_COLOR, dtype=torch.uint8, device=device)[:, None, None]
