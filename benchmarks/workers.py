"""One process for each row of `engine.py`: what it measures, and how it is told to.

A process of its own makes a row's memory its own, and lets rows that have loaded their networks take turns.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import released
from benchmarks.memory import peak_resident
from sfi_ros.inference import InferenceEngine
from sfi_ros.network.image_format import network_size

LITERAL = "literal"  # the backend of the baseline


@dataclass(frozen=True)
class Case:
    """What one row measures.

    Attributes:
        network: name in the zoo.
        backend: see `InferenceEngine.load`; "literal" is the baseline.
        precision: see `InferenceEngine.load`.
        batch: images in each call.
        source: (width, height) of the images.
        height: height at which the network runs.
        device: see `InferenceEngine.load`.
        threads: of the CPU; None for PyTorch's own choice.
    """

    network: str
    backend: str
    precision: str
    batch: int
    source: tuple[int, int]
    height: int
    device: str
    threads: int | None

    @property
    def input(self) -> tuple[int, int]:
        """(height, width) of what the network sees."""
        return network_size(self.source[1], self.source[0], self.height)

    def load(self, weights: Path) -> InferenceEngine | released.ReleasedEngine:
        """Return what is measured."""
        if self.backend == LITERAL:
            if self.threads:
                torch.set_num_threads(self.threads)
            return released.ReleasedEngine(weights, device=self.device, input_height=self.height)
        return InferenceEngine.load(
            weights,
            device=self.device,
            precision=self.precision,
            backend=self.backend,
            threads=self.threads,
            input_height=self.height,
        )

    def baseline(self) -> Case:
        """Return the row that this one is compared with."""
        return replace(self, network=released.NAME, backend=LITERAL, precision="float32", batch=1)


@dataclass
class Times:
    """What the turns of one row took: seconds per call, and by stage; shares of foreground; bytes."""

    calls: list[float] = field(default_factory=list)
    stages: list[tuple[float, float, float]] = field(default_factory=list)
    foreground: list[float] = field(default_factory=list)
    memory: int | None = None

    def add(self, other: Times) -> None:
        """Join another turn."""
        self.calls += other.calls
        self.stages += other.stages
        self.foreground += other.foreground
        self.memory = other.memory

    def frames_per_second(self, batch: int) -> float:
        """Frames over the time of all calls."""
        return batch * len(self.calls) / sum(self.calls)


class Worker:
    """A process that has loaded one case and measures when it is told to.

    Attributes:
        case: what it measures.
        times: what it measured.
        precision: the one that was chosen, where the case says "auto".
        problem: why it cannot measure (any more), or "".
    """

    def __init__(self, case: Case):
        self.case, self.times, self.precision, self.problem = case, Times(), case.precision, ""
        self._connection: Connection | None = None
        self._process: BaseProcess | None = None

    def start(self, weights: Path, frames: Path) -> None:
        """Load the network and run it once.

        Args:
            weights: what the engine loads.
            frames: .npy file of (count, H, W, 3) uint8.
        """
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self.case, weights, frames), daemon=True)
        self._process.start()
        theirs.close()
        self.precision = self._answer() or self.precision

    def turn(self, seconds: float) -> None:
        """Let it run for about so long, at least one call."""
        if not self.problem and (taken := self._answer(seconds)):
            self.times.add(taken)

    def close(self) -> None:
        """End the process."""
        if self._connection is not None and self._process is not None:
            self._connection.close()  # its recv() ends
            self._process.join(10)
            self._process.terminate()

    def _answer(self, seconds: float | None = None) -> Any:
        """Return what the process says, having been told `seconds`; None after a problem."""
        assert self._connection is not None and self._process is not None
        try:
            if seconds is not None:
                self._connection.send(seconds)
            kind, value = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            kind, value = "problem", f"the process ended with status {self._process.exitcode}"
        if kind == "problem":
            self.problem = value
            return None
        return value


def serve(connection: Connection, case: Case, weights: Path, frames_file: Path) -> None:
    """Load a case, then measure for as many seconds as each message says, until the other end closes."""
    frames = np.load(frames_file)
    batches = itertools.cycle(
        [[frames[(start + i) % len(frames)] for i in range(case.batch)] for start in range(0, len(frames), case.batch)]
    )
    before = peak_resident()
    try:
        engine = case.load(weights)
        engine(next(batches))
        connection.send(("ready", engine.precision))
        while True:
            times = Times()
            deadline = time.perf_counter() + connection.recv()
            if case.backend != LITERAL:  # that takes seconds, cold caches or not
                engine(next(batches))
            while not times.calls or time.perf_counter() < deadline:
                images = next(batches)
                began = time.perf_counter()
                scenes = engine(images)
                times.calls.append(time.perf_counter() - began)
                timing = scenes[0].timing
                times.stages.append((timing.preprocess, timing.network, timing.postprocess))
            times.foreground = [scene.foreground_share for scene in scenes]
            if engine.device == "cpu":
                times.memory = peak_resident() - before
            elif case.backend not in ("onnxruntime", "tensorrt"):  # whose memory PyTorch knows nothing of
                times.memory = torch.cuda.memory_reserved(engine.device)
            connection.send(("times", times))
    except EOFError:
        return
    except Exception as error:  # whatever a backend throws: it belongs into the table, beside the other rows
        connection.send(("problem", describe(error)))


def describe(error: Exception) -> str:
    """Its kind and the first line of its message."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
