"""How far a run is: a bar in a terminal, a line every few seconds in logs and pipes."""

from __future__ import annotations

import math
import sys
import time
from datetime import timedelta
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn


class RunProgress:
    """Shows steps, loss, rate, speed and remaining time of this session.

    Args:
        step: where the session begins.
        is_shown: whether this process is the one that shows it.
        seconds: between two lines, where there is no terminal.
    """

    def __init__(self, step: int, *, is_shown: bool, seconds: float = 15.0):
        self._first, self._began = step, time.monotonic()
        self._is_shown, self._seconds, self._last_line = is_shown, seconds, -math.inf
        self._bar = Progress(BarColumn(), TextColumn("{task.description}"), disable=not is_shown, transient=True)
        self._task = self._bar.add_task("") if sys.stdout.isatty() else None

    def __enter__(self) -> RunProgress:
        if self._task is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._bar.stop()

    def update(self, step: int, steps: int | None, loss: float, rate: float) -> None:
        """Show that a step is done.

        Args:
            step: how many there have been.
            steps: of the whole run; None while nobody knows.
            loss: of this step or a recent one.
            rate: learning rate of the head.
        """
        if not self._is_shown:
            return
        pace = (step - self._first) / max(time.monotonic() - self._began, 1e-9)
        left = "-:--:--" if steps is None else str(timedelta(seconds=round((steps - step) / pace)))
        line = (
            f"step {step}/{'?' if steps is None else steps}  loss {loss:.4f}  rate {rate:.2e}  "
            f"{pace:.2f} steps/s  {left} left"
        )
        if self._task is not None:
            self._bar.update(self._task, total=steps, completed=step, description=line)
        elif time.monotonic() - self._last_line > self._seconds or step == steps:
            self._last_line = time.monotonic()
            print(line, flush=True)
