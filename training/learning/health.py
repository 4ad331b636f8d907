"""Whether what the steps compute is finite, without making the host wait for a GPU in each of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfi_ros.errors import SfiError


class NonFiniteLoss(SfiError, RuntimeError):
    """The loss or the gradient of a step is infinite or not a number; the message names step and samples."""


class Health:
    """The numbers of the steps since somebody last looked at them, where they were computed.

    On a GPU one looks every few steps only. Until then the optimizer must leave the weights alone from the first bad
    step on: a fused one does if `broken` is its `found_inf`, which is how a loss scaler would tell it.

    Args:
        device: where steps are computed.
        with_gradient: whether the gradient's norm counts. In float16 it does not: the loss scaler skips such steps.

    Attributes:
        broken: () float32 on the device, 1 from the first step on that was not finite, else 0.
    """

    def __init__(self, device: torch.device, *, with_gradient: bool = True):
        self.with_gradient = with_gradient
        self.broken = torch.zeros((), device=device)
        self._steps: list[tuple[int, list[str], Tensor]] = []

    def record(self, step: int, names: list[str], numbers: Tensor) -> None:
        """Add a step.

        Args:
            step: its number.
            names: of its samples.
            numbers: (6,) total loss, background, foreground, mask overlap, kinds of objects, norm of the gradient.
        """
        self._steps.append((step, names, numbers))
        relevant = numbers if self.with_gradient else numbers[:-1]
        self.broken = torch.maximum(self.broken, (~torch.isfinite(relevant).all()).float())

    def check(self) -> None:
        """Look at all recorded steps and forget them.

        Raises:
            NonFiniteLoss: one of them was not finite.
        """
        steps, self._steps = self._steps, []
        values = torch.stack([numbers for _, _, numbers in steps]).tolist() if steps else []
        for (step, names, _), (total, background, foreground, overlap, kinds, norm) in zip(steps, values, strict=True):
            batch = f"the batch was {', '.join(names)}"
            if not math.isfinite(total):
                raise NonFiniteLoss(
                    f"the loss of step {step} is not finite (background {background:g}, foreground {foreground:g}, "
                    f"mask overlap {overlap:g}, kinds {kinds:g}); {batch}"
                )
            if self.with_gradient and not math.isfinite(norm):
                elsewhere = ""
                if torch.distributed.is_available() and torch.distributed.is_initialized():
                    elsewhere = ", maybe by what another process computed: its log would say more"
                raise NonFiniteLoss(f"the gradient of step {step} is not finite{elsewhere}; {batch}")
