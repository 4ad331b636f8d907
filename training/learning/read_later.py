"""Reading a value of the GPU without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


class ReadLater:
    """A tensor on its way to the host. Whoever reads it a step later finds it there; on a CPU it is there at once."""

    def __init__(self, value: Tensor):
        self._host = value.detach().to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if value.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def wait(self) -> Tensor:
        """The tensor, on the host."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._host
