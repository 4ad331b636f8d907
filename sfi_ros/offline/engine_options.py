"""How `sfi run` and `sfi bag` load their engine, here or on another machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfi_ros.inference import InferenceEngine
from sfi_ros.inference.engine import OutputSize
from sfi_ros.inference.threads import available_cores, usual_threads
from sfi_ros.network.shipped_weights import find_weights
from sfi_ros.offline.resume import digest


@dataclass(frozen=True)
class EngineOptions:
    """What the command line says about the engine; see `InferenceEngine.load`.

    Attributes:
        threads: CPU threads of the network; None for all cores but one, which is left to reading and writing.
    """

    weights: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    backend: str = "auto"
    threads: int | None = None
    input_height: int | None = None
    size: OutputSize = "input"

    def load(self) -> InferenceEngine:
        """Load the engine; see `InferenceEngine.load` for errors."""
        return InferenceEngine.load(
            self.weights,
            device=self.device,
            precision=self.precision,
            backend=self.backend,
            threads=self.threads or _network_threads(),
            input_height=self.input_height,
            output_size=self.size,
        )

    def weights_digest(self) -> str:
        """Return the digest of the weights' file."""
        return digest(find_weights(self.weights))


def _network_threads() -> int:
    """Return all cores but one; no more than OMP_NUM_THREADS."""
    return max(1, min(usual_threads(), available_cores() - 1))
