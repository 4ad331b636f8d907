"""Weak supervision: what the network is told, and what it is not.

Nobody annotated the street behind a car. The targets are therefore a foreground mask and the *partial*
background, which is 255 under foreground; what lies behind is learned from fake masks, random rectangles
that are added to the foreground mask right before max-pooling as inpainting, where the true class is known.
This file holds the losses; fake masks are drawn in `training.data.fake_masks`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional

from sfi_ros.classes import IGNORE
from training.configuration import LossOptions


@dataclass
class Supervision:
    """What a batch tells the network, pixel by pixel; see `supervision`.

    Attributes:
        background: (N, H, W) uint8 target in {0, 1, 2, 255}.
        foreground: (N, H, W) uint8 target in {0, 1, 255}.
        background_weight: (N, H, W) float32 weight in the background loss, 0 where the target is 255.
        foreground_weight: (N, H, W) float32 weight in the foreground loss, likewise. Of pixels that are not foreground
            it is the share of them that will count, so that totals do not depend on which ones do.
        kinds: (N, H, W) uint8 target in {0, 1, 2, 255}: of objects whose kind is known.
    """

    background: Tensor
    foreground: Tensor
    background_weight: Tensor
    foreground_weight: Tensor
    kinds: Tensor

    def __getitem__(self, images: slice) -> Supervision:
        """Return that of some images of the batch."""
        return Supervision(*(value[images] for value in vars(self).values()))

    def totals(self) -> Tensor:
        """Return (3,) float32: the summed weights of the background and of the foreground loss, and of known kinds."""
        known_kinds = (self.kinds != IGNORE).float()
        return torch.stack([self.background_weight.sum(), self.foreground_weight.sum(), known_kinds.sum()])


@dataclass
class Losses:
    """The scalar losses of one batch; `total` is what is minimised."""

    total: Tensor
    foreground: Tensor
    background: Tensor
    mask_overlap: Tensor
    kinds: Tensor


def supervision(
    foreground: Tensor,
    background: Tensor,
    fake_foreground: Tensor | None,
    options: LossOptions,
    kinds: Tensor | None = None,
) -> Supervision:
    """Return the targets of a batch and how much each pixel counts.

    Args:
        foreground: (N, H, W) uint8 0/1, 255 where unknown.
        background: (N, H, W) uint8 in {0, 1, 2, 255}.
        fake_foreground: (N, 1, H, W) bool, the fake masks; None without.
        options: `class_weights`, `hidden_weight`, `border_weight`, `foreground_hard_fraction` and `doubtful_border`
            are used.
        kinds: (N, H, W) uint8 in {0, 1, 2, 255}; None where none is known.
    """
    known = background != IGNORE
    class_weights = _on_device(options.class_weights or (1.0, 1.0, 1.0), background.device)
    weight = class_weights[torch.where(known, background, 0).int()] * known
    if options.hidden_weight != 1.0:
        hidden = foreground == 1
        if fake_foreground is not None:
            hidden = hidden | fake_foreground[:, 0]
        weight = torch.where(hidden, weight * options.hidden_weight, weight)
    if options.border_weight != 1.0:
        weight = torch.where(near_other_class(background), weight * options.border_weight, weight)
    foreground = without_doubtful_border(foreground, background, options.doubtful_border)
    kinds = torch.full_like(foreground, IGNORE) if kinds is None else kinds
    foreground_weight = (foreground != IGNORE).float()
    if options.foreground_hard_fraction < 1.0:
        foreground_weight = torch.where(foreground == 0, options.foreground_hard_fraction, foreground_weight)
    return Supervision(background, foreground, weight, foreground_weight, kinds)


def losses(
    background_logits: Tensor,
    foreground_logits: Tensor,
    truth: Supervision,
    options: LossOptions,
    *,
    totals: Tensor | None = None,
    kind_logits: Tensor | None = None,
) -> Losses:
    """Return the losses of a batch and their weighted sum.

    Args:
        background_logits: (N, 3, H, W) float.
        foreground_logits: (N, 1, H, W) float.
        truth: the batch's targets.
        options: weights and extra terms.
        totals: (3,) what the summed losses are divided by, as `Supervision.totals`. A batch that is computed in
            several parts passes their mean, so that the parts' mean gradient is that of the undivided batch.
        kind_logits: (N, 3, H, W) float; None of a network that tells no kinds of objects.

    Under `torch.distributed` the totals are averaged over the processes, to the same end: the gradient that
    DistributedDataParallel averages is that of one process with the whole batch.
    """
    if totals is None:
        totals = truth.totals()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        totals = totals.clone()
        torch.distributed.all_reduce(totals)
        totals = totals / torch.distributed.get_world_size()
    background = background_loss(background_logits, truth, options, totals[0])
    foreground = foreground_loss(foreground_logits, truth, options, totals[1])
    total = options.background_weight * background + options.foreground_weight * foreground
    overlap = foreground.new_zeros(())
    if options.mask_overlap == "dice":
        overlap = dice_loss(foreground_logits, truth.foreground)
        total = total + options.mask_overlap_weight * overlap
    kinds = foreground.new_zeros(())
    if kind_logits is not None:
        kinds = kind_loss(kind_logits, truth.kinds, totals[2])
        total = total + options.kind_weight * kinds
    return Losses(total, foreground.detach(), background.detach(), overlap.detach(), kinds.detach())


def background_loss(logits: Tensor, truth: Supervision, options: LossOptions, total: Tensor) -> Tensor:
    """Return the weighted cross-entropy over the pixels whose background class is known; 0 where there are none.

    Args:
        logits: (N, 3, H, W) float.
        truth: the targets.
        options: only `hard_fraction` is used. The sum over the hardest pixels is divided by the same share of
            `total`, which does not depend on the network.
        total: what the sum over all pixels is divided by.
    """
    cross_entropy = functional.cross_entropy(
        logits.float(), truth.background.long(), ignore_index=IGNORE, reduction="none"
    )
    weight = truth.background_weight
    if options.hard_fraction < 1.0:
        weight = weight * _hardest(cross_entropy.detach(), truth.background != IGNORE, options.hard_fraction)
        total = total * options.hard_fraction
    return (cross_entropy * weight).sum() / total.clamp(min=1e-6)


def foreground_loss(logits: Tensor, truth: Supervision, options: LossOptions, total: Tensor) -> Tensor:
    """Return the binary cross-entropy of the foreground mask over the pixels where it is known.

    Args:
        logits: (N, 1, H, W) float.
        truth: the targets.
        options: only `foreground_hard_fraction` is used.
        total: what the sum over all pixels is divided by.
    """
    positive = (truth.foreground == 1).float()
    entropy = functional.binary_cross_entropy_with_logits(logits[:, 0].float(), positive, reduction="none")
    weight = truth.foreground_weight
    if options.foreground_hard_fraction < 1.0:
        negative = truth.foreground == 0
        hard = _hardest(entropy.detach(), negative, options.foreground_hard_fraction)
        weight = torch.where(negative, hard.float(), weight)
    return (entropy * weight).sum() / total.clamp(min=1e-6)


def kind_loss(logits: Tensor, target: Tensor, total: Tensor) -> Tensor:
    """Return the cross-entropy of the kinds of objects over the pixels where it is known; 0 where there are none.

    Args:
        logits: (N, 3, H, W) float.
        target: (N, H, W) uint8 in {0, 1, 2, 255}.
        total: what the sum over all pixels is divided by.
    """
    entropy = functional.cross_entropy(logits.float(), target.long(), ignore_index=IGNORE, reduction="sum")
    return entropy / total.clamp(min=1e-6)


def dice_loss(logits: Tensor, target: Tensor, smoothing: float = 0.01) -> Tensor:
    """Return one minus the soft Dice overlap of mask and truth, averaged over the images.

    Args:
        logits: (N, 1, H, W) float.
        target: (N, H, W) uint8 in {0, 1, 255}; 255 is ignored.
        smoothing: added to numerator and denominator, as a share of the image's pixels. It bounds the
            gradient of images that hold next to no foreground.
    """
    valid = (target != IGNORE).float()
    positive = (target == 1).float()
    probability = logits[:, 0].float().sigmoid() * valid
    smooth = smoothing * target.shape[1] * target.shape[2]
    overlap = 2 * (probability * positive).sum((1, 2)) + smooth
    return (1 - overlap / (probability.sum((1, 2)) + positive.sum((1, 2)) + smooth)).mean()


def without_doubtful_border(foreground: Tensor, background: Tensor, border: int) -> Tensor:
    """Return the foreground target with 255 at unlabeled pixels next to foreground.

    Pixels that are neither foreground nor of any background class lie, at an object's edge, on the object as
    often as beside it; calling them all "not foreground" teaches the mask to be too small.

    Args:
        foreground: (N, H, W) uint8 0/1/255.
        background: (N, H, W) uint8, 255 where no background class is known (also under foreground).
        border: in pixels.
    """
    if border == 0:
        return foreground
    near = greatest_within((foreground == 1).float(), border) > 0
    return torch.where(near & (foreground == 0) & (background == IGNORE), IGNORE, foreground)


def near_other_class(background: Tensor) -> Tensor:
    """Return (N, H, W) bool: whether two background classes lie within a 64th of the image's height, 4 pixels of 256.

    Distances are Chebyshev's. Pixels without a class count as none, so a thin pole before it hides no border.

    Args:
        background: (N, H, W) uint8 in {0, 1, 2, 255}.
    """
    reach = max(1, background.shape[1] // 64)
    known, number = background != IGNORE, background.float()
    # The greatest class around each pixel, and the least one with its sign turned.
    extremes = torch.stack([torch.where(known, number, -IGNORE), torch.where(known, -number, -IGNORE)], 1)
    return greatest_within(extremes, reach).sum(1) > 0


def greatest_within(values: Tensor, reach: int) -> Tensor:
    """Return the maximum of `values` (..., H, W) over the square that reaches `reach` pixels to each side.

    The same as max-pooling, an eighth of its time on a CPU: windows double along one axis, then along the other.
    """
    for _ in range(2):
        window, size = functional.pad(values, (reach, reach), value=-math.inf), 1
        while size <= 2 * reach:
            step = min(size, 2 * reach + 1 - size)
            window, size = torch.maximum(window[..., :-step], window[..., step:]), size + step
        values = window.transpose(-1, -2)
    return values


@lru_cache
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return constants, copied once: every copy makes the host wait for a GPU."""
    return torch.tensor(values, device=device)


def _hardest(cross_entropy: Tensor, valid: Tensor, fraction: float) -> Tensor:
    """Return (N, H, W) bool: the `fraction` of every image's valid pixels with the highest cross-entropy."""
    flat = torch.where(valid, cross_entropy, -1.0).flatten(1)
    keep = (valid.flatten(1).sum(1) * fraction).ceil().long().clamp(min=1)
    ranked = flat.sort(1, descending=True).values
    threshold = ranked.gather(1, keep[:, None] - 1)
    return ((flat >= threshold) & valid.flatten(1)).view_as(valid)
