"""A small network, a folder of photos, and `sfi` as a person calls it, here and in a process that can be killed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT

from sfi_ros.cli import main
from sfi_ros.network import checkpoint, zoo


def random_weights(path: Path, seed: int) -> Path:
    """Save a network that finds foreground somewhere in every image."""
    torch.manual_seed(seed)
    network = zoo.build("fast-mobilenetv2")
    for parameter in network.foreground.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    checkpoint.save(path, network, input_height=64)
    return path


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights") / "small.safetensors", seed=0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven files: two of the same stem, one damaged, one of another size."""
    path = tmp_path / "camera"
    path.mkdir()
    generator = np.random.default_rng(0)
    for number, name in enumerate(("a.png", "b.png", "b.jpg", "c.png", "d.png", "e.png")):
        size = (60, 90, 3) if number != 3 else (80, 70, 3)
        cv2.imwrite(str(path / name), generator.integers(0, 255, size, dtype=np.uint8))
    (path / "bb.png").write_bytes(b"damaged")
    return path


def write_photos(folder: Path, count: int, size: tuple[int, int] = (60, 90)) -> Path:
    """Write so many different photos."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(count)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:04d}.png"), generator.integers(0, 255, (*size, 3), dtype=np.uint8))
    return folder


def write_video(path: Path, count: int, size: tuple[int, int] = (64, 96)) -> Path:
    """Write a video of so many different frames."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, size[::-1])
    generator = np.random.default_rng(count)
    for number in range(count):
        frame = np.full((*size, 3), number * 5 % 256, np.uint8)
        frame[: size[0] // 2] = generator.integers(0, 255, (size[0] // 2, size[1], 3), dtype=np.uint8)
        video.write(frame)
    video.release()
    return path


@pytest.fixture
def sfi(weights: Path) -> Callable[..., int]:
    """Call `sfi run` or `sfi bag` with the small network; returns the exit status."""

    def call(*arguments: object, weights: Path = weights) -> int:
        return main([*map(str, arguments), "--weights", str(weights), "--device", "cpu", "--threads", "1"])

    return call


class Process:
    """`sfi` in a process of its own; it can write no file of more bytes than `largest_file`, as on a full disk."""

    def __init__(self, arguments: tuple[object, ...], prelude: str = "", largest_file: int | None = None):
        program = f"{prelude}\nimport sys\nfrom sfi_ros.cli import main\nsys.exit(main())"
        command = [sys.executable, "-c", program, *map(str, arguments), "--device", "cpu", "--threads", "1"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stderr=subprocess.PIPE, cwd=ROOT, env=environment, preexec_fn=partial(_prepare, largest_file)
        )

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds while the process runs."""
        deadline = time.monotonic() + 120
        while not condition():
            assert self._process.poll() is None, f"it ended: {self._process.stderr.read().decode()}"
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self, signal_number: int | None = None) -> tuple[int, str]:
        """Send a signal, if any; return exit status and stderr."""
        if signal_number is not None:
            self._process.send_signal(signal_number)
        _, error = self._process.communicate(timeout=120)
        return self._process.returncode, error.decode()


def _prepare(largest_file: int | None) -> None:
    """Undo what a shell's nohup or & has set for the tests: children inherit which signals are ignored."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))


@pytest.fixture
def sfi_process(weights: Path) -> Callable[..., Process]:
    """Start `sfi run` or `sfi bag` with the small network in a process of its own, after some Python code, if any."""

    def start(*arguments: object, **options: object) -> Process:
        return Process((*arguments, "--weights", weights), **options)

    return start


def tree(folder: Path) -> dict[str, bytes]:
    """All files but the summary and the settings, which name times and paths."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def count(folder: Path) -> int:
    """How many whole files a folder has."""
    return len([path for path in folder.iterdir() if not path.name.startswith(".")]) if folder.is_dir() else 0
