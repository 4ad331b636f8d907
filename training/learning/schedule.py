"""How long a run is, when it validates, how its learning rates fall, and how it ends at a time limit."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from training.configuration import ConfigurationError, ScheduleConfig


def rate_factor(options: ScheduleConfig, step: int, steps: int | None, steps_per_epoch: int) -> float:
    """Return what the learning rates are multiplied with in a step.

    Args:
        options: the kind of decay, and warm-up.
        step: counted from 0.
        steps: of the whole run; None while they are not planned, at the very beginning.
        steps_per_epoch: for the staircase.
    """
    warmup = min(1.0, (step + 1) / (options.warmup_steps + 1))
    if options.decay == "polynomial":
        return warmup * (max(0.0, 1 - step / steps) ** options.power if steps else 1.0)
    if options.decay == "staircase":
        return warmup * 0.1 ** (step // (options.staircase_epochs * steps_per_epoch))
    return warmup


class Schedule:
    """The length of a run in steps.

    Args:
        options: of the run.
        steps_per_epoch: see `TrainingSet.steps_per_epoch`.

    Attributes:
        steps: of the whole run. With `options.minutes` they are planned as it goes: None until they are.
        validate_every: steps between two validations; None validates at the end only.

    Raises:
        ConfigurationError: the run would not end with a validation.
    """

    def __init__(self, options: ScheduleConfig, steps_per_epoch: int):
        self.options, self.steps_per_epoch = options, steps_per_epoch
        self.validate_every = options.validate_every
        if options.minutes is not None:
            self.steps: int | None = None
            return
        self.steps = options.steps or (options.epochs or 0) * steps_per_epoch
        self.validate_every = every = min(options.validate_every or steps_per_epoch, self.steps)
        if self.steps % every:
            raise ConfigurationError(
                f"the run of {self.steps} steps must end with a validation, but one comes every {every} steps: set "
                f"schedule.steps to {self.steps - self.steps % every} or schedule.validate_every to a divisor of "
                f"{self.steps}"
            )

    def factor(self, step: int) -> float:
        """Return what the learning rates are multiplied with in a step, counted from 0."""
        return rate_factor(self.options, step, self.steps, self.steps_per_epoch)

    def ends_at(self, step: int) -> bool:
        """Whether the run is complete after so many steps."""
        return self.steps is not None and step >= self.steps

    def validates_at(self, step: int) -> bool:
        """Whether a validation comes after so many steps."""
        regularly = self.validate_every is not None and step % self.validate_every == 0
        return step > 0 and (regularly or self.ends_at(step))

    def __str__(self) -> str:
        often = "" if self.validate_every is None else f", validating every {self.validate_every}"
        if self.options.minutes is not None:
            return f"as many steps as fit into {self.options.minutes:g} minutes{often}"
        return f"{self.steps} steps{often}"


class TimeLimit:
    """Plans the steps of a run that must end at a time limit from the speed of its last steps, anew after each.

    Time is that of all sessions of the run together, so a resumed run uses what is left of it.

    Args:
        seconds: that the run may take.
        spent: of these, in earlier sessions.
        validate_every: steps between validations; None: only at the end.
        validation_share: images of the validation sets over images of a batch. Until a validation has been timed, an
            image is taken to cost there what it costs in training.
        clock: seconds.
    """

    WARMUP_STEPS = 5
    """Steps that are not measured, if they take less than a tenth of the time: the first ones allocate and compile."""
    WINDOW = 256
    """Steps over which the speed is measured."""
    RESERVE = 0.03
    """Share of the time, but a second at least, that is left for saving, exporting and a speed that falls."""

    def __init__(
        self,
        seconds: float,
        *,
        spent: float = 0.0,
        validate_every: int | None = None,
        validation_share: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.seconds, self.validate_every, self.validation_share = seconds, validate_every, validation_share
        self._clock, self._began = clock, clock() - spent
        self._validation: float | None = None  # how long the last one took
        self._paused = 0.0  # time that did not go into steps
        self._steps = 0  # of this session
        self._marks: deque[tuple[int, float]] = deque(maxlen=self.WINDOW)

    @property
    def spent(self) -> float:
        """Seconds since the run began, in all sessions."""
        return self._clock() - self._began

    def after(self, step: int) -> int | None:
        """Return how many steps the whole run should have, now that `step` are done; None while nobody can know."""
        self._steps += 1
        spent = self.spent
        if self._steps >= self.WARMUP_STEPS or spent > 0.1 * self.seconds:
            self._marks.append((step, spent - self._paused))
        if len(self._marks) < 2:
            return step if spent > self.seconds else None
        (first, then), (last, now) = self._marks[0], self._marks[-1]
        pace = (now - then) / (last - first)
        validation = pace * self.validation_share if self._validation is None else self._validation
        left = self.seconds - spent - validation - max(1.0, self.RESERVE * self.seconds)
        cost = pace + (0.0 if self.validate_every is None else validation / self.validate_every)
        return step + max(0, math.floor(left / max(cost, 1e-9)))

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Time a validation."""
        began = self._clock()
        yield
        self._validation = self._clock() - began
        self._paused += self._validation
