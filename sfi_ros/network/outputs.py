"""What every network returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class SceneLogits:
    """The result of a network.

    Attributes:
        background: (N, 3, H, W) logits of the background classes, the foreground inpainted away.
        foreground: (N, 1, H, W) logits of being a movable object.
        kinds: (N, 3, H, W) logits of the kinds that an object can be, `classes.FOREGROUND_CLASSES`; None where the
            network was not built to tell them. A kind's probability is that of the foreground times its softmax: kinds
            divide the foreground among them and cannot change it.
    """

    background: Tensor
    foreground: Tensor
    kinds: Tensor | None = None


torch.export.register_dataclass(SceneLogits)


def to_probabilities(logits: SceneLogits) -> Tensor:
    """From logits to probabilities, for the engine's pipelines and for evaluation.

    Returns:
        (N, 4 or 7, H, W) float32: of being foreground, of the background being road, sidewalk, other, and, where the
        network tells kinds, of an object being person, two-wheeler, vehicle.
    """
    kinds = [] if logits.kinds is None else [logits.kinds.float().softmax(1)]
    return torch.cat([logits.foreground.float().sigmoid(), logits.background.float().softmax(1), *kinds], 1)
