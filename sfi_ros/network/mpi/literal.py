"""Algorithm 1 as published."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def algorithm_1(features: Tensor, dilated: Tensor) -> Tensor:
    """Algorithm 1 of the paper, literally: two max-poolings per ring until the background covers everything.

    Args:
        features: (N, C, h, w) floating point.
        dilated: (N, 1, h, w) bool, the foreground after its dilation.

    Returns:
        (N, C, h, w): the patch; zero outside the dilated foreground and in images without any background.
    """
    background = (~dilated).to(features.dtype)
    grown_features = features.masked_fill(dilated, 0.0)  # F·B, also for a feature that is not finite
    grown_background = background
    patch = torch.zeros_like(features)
    for _ in range(max(features.shape[-2:]) - 1):  # no pixel is farther than this; the published loop may not end
        reached = F.max_pool2d(grown_background, 3, stride=1, padding=1)
        grown_features = F.max_pool2d(grown_features, 3, stride=1, padding=1)
        patch = torch.where((reached - grown_background) > 0.5, grown_features, patch)
        if torch.equal(reached, grown_background):
            break
        grown_background = reached
    return patch
