"""Stopping by signal, and agreement of several processes on it."""

from __future__ import annotations

import signal
from functools import lru_cache
from types import FrameType, TracebackType
from typing import Final

import torch
import torch.distributed

STOPPING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """SIGINT or SIGTERM came, and the run was saved; `signal_number` says which."""

    def __init__(self, signal_number: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}")
        self.signal_number, self.step = signal_number, step


class StopSignals:
    """Remembers the first SIGINT or SIGTERM; the second one acts at once. Behind the block they act as before it.

    Attributes:
        received: the signal's number, 0 while there is none.
    """

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._on_signal) for number in STOPPING_SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = number


def agree(*numbers: int) -> list[int]:
    """Return the largest of each number over all processes."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return list(numbers)
    tensor = torch.tensor(numbers)
    torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX, _hosts())
    return tensor.tolist()


@lru_cache
def _hosts() -> torch.distributed.ProcessGroup:
    """All processes, by way of their CPUs: what they agree on must not wait for their GPUs."""
    return torch.distributed.new_group(backend="gloo")
