"""What a run writes: complete checkpoints to resume from, the log of scores, and the product.

Files are replaced at once or not at all, and are read without executing code.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import torch

from sfi_ros.network import checkpoint
from sfi_ros.network.shipped_weights import find_weights
from training.configuration import Configuration, ConfigurationError, as_dictionary, from_dictionary
from training.learning.network import build_network

LAST, BEST, SCORES, PRODUCT = "last.ckpt", "best.ckpt", "scores.jsonl", "model.safetensors"
"""Files in the run's folder."""

_MAY_CHANGE = tuple(f"data.{key}" for key in ("workers", "validation", "roots", "cache", "augment_on"))
"""Settings that decide where and how fast a run is computed, not what."""


def write(state: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint: beside the file, flushed to the disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replaced_at_once(path) as file:
        torch.save(dict(state), file)


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        ConfigurationError: the file is damaged or of another version; the message says what can be done instead.
    """
    with path.open("rb") as file:  # what cannot be opened is not damaged
        try:
            state = _load(file)
        except _DAMAGED as error:
            raise ConfigurationError(f"{path} is damaged: {_way_on(path)}") from error
    if "network" not in state or "step" not in state:
        raise ConfigurationError(
            f"{path} was written by an earlier version of this project, whose runs cannot be resumed: start a new run, "
            "from its product checkpoint if you like (network.start_from=…/model.safetensors)"
        )
    return state


def require_same_run(state: Mapping[str, Any], path: Path, configuration: Configuration) -> None:
    """Refuse a checkpoint of a run whose settings make it impossible to continue exactly.

    Raises:
        ConfigurationError: the message lists the settings.
    """
    before = _completed(state["configuration"])
    differences = [
        f"{key}: {old} -> {new}"
        for key, (old, new) in sorted(_differences(before, as_dictionary(configuration)).items())
        if not key.startswith(("run.", "output", *_MAY_CHANGE))
    ]
    if differences:
        raise ConfigurationError(
            f"{path} belongs to a run with other settings ({'; '.join(differences)}): "
            "resume with the same ones, or start a new run"
        )


def duplicate(source: Path, target: Path) -> None:
    """Make `target` the same as `source`, at once; as a second name of the same bytes where that is possible."""
    if target.exists() and target.samefile(source):
        return
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)  # `source` is never written into, only replaced
    except OSError:
        shutil.copyfile(source, partial)
    partial.replace(target)


def export(configuration: Configuration, folder: Path) -> Path:
    """Write the product checkpoint of a finished run, with its validation scores and how it was made."""
    state = read(folder / (BEST if configuration.run.export == "best" else LAST))
    network = build_network(replace(configuration.network, pretrained=None, start_from=None, **state["options"]))
    network.load_state_dict(state["network"] if state["average"] is None else state["average"])
    rows = {row["step"]: row for row in ScoreLog(folder / SCORES).read()}
    scores = {
        f"{name}/{score}": value
        for name, values in rows.get(state["step"], {"scores": {}})["scores"].items()
        for score, value in values.items()
        if value is not None
    }
    extra = {
        "step": state["step"],
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "configuration": as_dictionary(configuration),
    }
    training_data = configuration.run.training_data
    if configuration.network.train_only and configuration.network.start_from:  # most of it was made there
        start = checkpoint.read_metadata(find_weights(configuration.network.start_from))
        extra["start_from"] = dict(start.extra)
        training_data = training_data or start.training_data
    checkpoint.save(
        folder / PRODUCT,
        network.eval(),
        input_height=configuration.network.input_height,
        training_data=training_data,
        scores=scores,
        extra=extra,
        dtype=torch.float16 if configuration.run.half else torch.float32,
    )
    return folder / PRODUCT


class ScoreLog:
    """One JSON line per validation: step and scores of every set. The newest line of a step counts."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, step: int, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Add the scores of a validation; NaN is written as null."""
        plain = {
            name: {score: value if math.isfinite(value) else None for score, value in values.items()}
            for name, values in scores.items()
        }
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "scores": plain}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Return all lines by step; a line that a crash cut off is left out."""
        rows: dict[int, dict[str, Any]] = {}
        if self.path.is_file():
            for line in self.path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue
                rows[row["step"]] = row
        return [rows[step] for step in sorted(rows)]

    def forget_after(self, step: int) -> None:
        """Drop the lines of later steps, which a run resumed at `step` writes anew."""
        kept = [row for row in self.read() if row["step"] <= step]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def best(self, name: str, score: str, *, before: int) -> float:
        """Return the greatest value of a score on a set in the validations before a step; -inf where there is none."""
        values = (row["scores"].get(name, {}).get(score) for row in self.read() if row["step"] < before)
        return max((value for value in values if value is not None), default=-math.inf)


_DAMAGED = (RuntimeError, EOFError, KeyError, ValueError, OSError, pickle.UnpicklingError)
"""What `torch.load` raises on a file that is not whole."""


def _load(file: BinaryIO) -> dict[str, Any]:
    state = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError("no mapping")
    return state


def _way_on(damaged: Path) -> str:
    """Say what can be done instead of resuming from a damaged file; the other one is looked at before it is named."""
    other = damaged.with_name(BEST if damaged.name == LAST else LAST)
    try:
        with other.open("rb") as file:
            is_whole = not other.samefile(damaged) and "network" in _load(file)
    except _DAMAGED:
        is_whole = False
    return f"resume from {other}, or start anew with --overwrite" if is_whole else "start anew with --overwrite"


@contextmanager
def _replaced_at_once(path: Path) -> Iterator[BinaryIO]:
    """Open a file whose content appears under `path` when it is complete and on disk, and otherwise not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _completed(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return a stored configuration with the defaults of settings that came later."""
    try:
        return as_dictionary(from_dictionary(configuration))
    except ConfigurationError:  # it has settings that are no more: they are differences
        return configuration


def _differences(old: Any, new: Any, where: str = "") -> dict[str, tuple[Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in {*old, *new}:
            found |= _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
        return found
    return {} if old == new else {where: (old, new)}
