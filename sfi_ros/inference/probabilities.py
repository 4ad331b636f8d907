"""From logits to probabilities, in one place for all pipelines."""

from __future__ import annotations

import torch
from torch import Tensor

from sfi_ros.network.outputs import SceneLogits


def to_probabilities(logits: SceneLogits) -> Tensor:
    """(N, 4, h, w) float32: of being foreground, and of the background being road, sidewalk, other.

    Several foreground classes count as their union, as they do where the network fills them: the most likely one.
    """
    objects = logits.foreground.float().sigmoid().amax(1, keepdim=True)
    return torch.cat([objects, logits.background.float().softmax(1)], 1)
