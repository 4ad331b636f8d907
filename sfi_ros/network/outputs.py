"""What every network returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class SceneLogits:
    """One pass of a network.

    Attributes:
        background: (N, 3, H, W) logits of the background classes, the foreground inpainted away.
        foreground: (N, K, H, W) logits, one for each foreground class (K = 1: foreground or not).
    """

    background: Tensor
    foreground: Tensor


torch.export.register_dataclass(SceneLogits)


def to_probabilities(logits: SceneLogits) -> Tensor:
    """From logits to probabilities, for the engine's pipelines and for evaluation.

    Several foreground classes count as their union, as they do where the network fills them: the most likely one.

    Returns:
        (N, 4, H, W) float32: of being foreground, and of the background being road, sidewalk, other.
    """
    objects = logits.foreground.float().sigmoid().amax(1, keepdim=True)
    return torch.cat([objects, logits.background.float().softmax(1)], 1)
