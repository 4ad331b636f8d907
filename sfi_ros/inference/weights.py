"""Which weights an engine runs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

from sfi_ros.network import checkpoint, zoo
from sfi_ros.network.checkpoint import Checkpoint, Metadata

DEFAULT_WEIGHTS: Final = Path(__file__).resolve().parents[1] / "weights" / "default.safetensors"
"""The checkpoint that ships with the package."""

UNTRAINED_NETWORK: Final = "fast-mobilenetv2"


class DefaultWeightsMissing(UserWarning):
    """No weights were named and none ship with this copy of the package: the network is untrained."""


def load_weights(weights: str | Path | None) -> tuple[Checkpoint, str]:
    """Load a checkpoint, the default one for None, and the name to show for it.

    Without a default checkpoint the result is an untrained network, always the same one, named so.

    Raises:
        MissingFileError, CheckpointError: see `checkpoint.load`; never falls back to other weights than those named.
    """
    if weights is None and not DEFAULT_WEIGHTS.is_file():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = zoo.build(UNTRAINED_NETWORK).eval()
        metadata = Metadata(name=network.name, options=network.options.to_dict(), training_data="none: untrained")
        return Checkpoint(network, metadata), f"untrained {UNTRAINED_NETWORK}"
    path = Path(weights or DEFAULT_WEIGHTS)
    return checkpoint.load(path), path.name
