"""What one run did: `summary.json` beside its results."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from sfi_ros.files import write_json
from sfi_ros.frames.frame import LostPart, Unreadable
from sfi_ros.inference import InferenceEngine, Timing

SUMMARY: Final = "summary.json"

STAGES: Final = ("preprocess", "network", "postprocess")


@dataclass(frozen=True)
class RunSummary:
    """What `sfi run` or `sfi bag` did with one recording.

    Attributes:
        made_by: "sfi run" or "sfi bag".
        frames: that have results.
        source: as it was named.
        skipped: names of the frames that have none.
        reasons: why, in the same order.
        interrupted: whether the run was stopped before the end of the source.
        resumed: how many of `frames` had their results when the run began: an earlier, unfinished run made them.
        weights, trained, network, device, precision, backend, input_height: see `InferenceEngine`.
        frames_per_second: that were inferred, with reading and writing.
        latency_ms: p50, p95 and max of one pass of the engine; None where nothing was inferred.
        stages_ms_p50: the same by stage.
        mean_foreground_share: of the pixels, 0 to 1.
        scores: name -> 0 to 1 where the truth is known, None for a score without pixels; single keys in the JSON.
        topics: image topic -> what its result topics begin with; of `sfi bag` only.
        lost: those of `skipped` that are no frames but files of the source, lost as a whole or in part.
    """

    made_by: str
    frames: int
    source: str
    skipped: list[str]
    reasons: list[str]
    interrupted: bool
    resumed: int
    weights: str
    trained: bool
    network: str
    device: str
    precision: str
    backend: str
    input_height: int
    frames_per_second: float
    latency_ms: dict[str, float | None]
    stages_ms_p50: dict[str, float | None]
    mean_foreground_share: float | None
    scores: dict[str, float | None] = field(default_factory=dict)
    topics: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return what `summary.json` holds."""
        content = asdict(self)
        content.update(content.pop("scores"))
        if not content["topics"]:
            del content["topics"]
        return content

    def write(self, folder: Path) -> None:
        """Write `summary.json` into a folder.

        Raises:
            WriteError: it cannot be written.
        """
        write_json(folder / SUMMARY, self.to_dict())

    @classmethod
    def read(cls, folder: Path) -> RunSummary | None:
        """Read `summary.json` of a folder; None where there is none that this version has written."""
        try:
            content = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
            known = {item.name for item in fields(cls)}
            scores = {name: content.pop(name) for name in list(content) if name not in known}
            return cls(**content, scores=scores)
        except (OSError, ValueError, TypeError, AttributeError):
            return None


def engine_facts(engine: InferenceEngine) -> dict[str, Any]:
    """Return the fields of a summary that describe the engine."""
    return {
        "weights": engine.weights_name,
        "trained": engine.is_trained,
        "network": engine.metadata.name,
        "device": engine.device,
        "precision": engine.precision,
        "backend": engine.backend,
        "input_height": engine.input_height,
    }


def percentiles(milliseconds: np.ndarray) -> dict[str, float | None]:
    """Return p50, p95 and max of some times."""
    if len(milliseconds) == 0:
        return {"p50": None, "p95": None, "max": None}
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return {"p50": float(p50), "p95": float(p95), "max": float(milliseconds.max())}


def measured(engine: InferenceEngine, timings: Sequence[Timing], began: float) -> dict[str, Any]:
    """Return the fields of a summary that describe the engine, and how fast it was since a time in seconds."""
    stages = np.array([[getattr(timing, stage) for stage in STAGES] for timing in timings]).reshape(-1, 3) * 1e3
    return {
        **engine_facts(engine),
        "frames_per_second": len(timings) / max(time.time() - began, 1e-9),
        "latency_ms": percentiles(stages.sum(1)),
        "stages_ms_p50": {name: percentiles(stages[:, column])["p50"] for column, name in enumerate(STAGES)},
    }


def lost_files(skipped: Iterable[Unreadable]) -> list[str]:
    """Return the names of the files that a recording lacks, as a whole or in part."""
    return list(dict.fromkeys(item.name for item in skipped if isinstance(item, LostPart)))


def finite(scores: dict[str, float]) -> dict[str, float | None]:
    """Return scores as JSON has them: None instead of NaN."""
    return {name: None if math.isnan(value) else value for name, value in scores.items()}
