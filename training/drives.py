"""Labels from drives that nobody annotated: `sfi map --labels` on synthetic drives, put together into one dataset."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from sfi_ros.offline.drive import DriveOptions
from sfi_ros.offline.drive_labels import DATASET
from sfi_ros.offline.engine_options import EngineOptions
from sfi_ros.offline.map import MapRun
from training.data.datasets.synthetic import SPLIT_SEEDS

FIRST_SEED: Final = SPLIT_SEEDS["train"] + 500_000
"""Of streets that belong to the training split, and that no configuration of this project trains on."""


@dataclass(frozen=True)
class DriveSet:
    """Which drives are learned from.

    Attributes:
        drives: synthetic streets.
        frames: of each.
        spacing: metres from frame to frame.
        height: of their images, pixels.
        noise: of the odometry, per cent of the way and degrees per metre.
    """

    drives: int = 40
    frames: int = 30
    spacing: float = 1.0
    height: int = 128
    noise: tuple[float, float] = (1.0, 0.1)


def learn_from_drives(weights: Path, folder: Path, wanted: DriveSet) -> None:
    """Write what drives show to a network as a dataset, unless it is there.

    Args:
        weights: of the network that looks at the drives.
        folder: of the dataset; it appears when it is complete.
        wanted: which drives.

    Raises:
        SfiError: see `MapRun.run`.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    engine = EngineOptions(weights, device="cpu", precision="float32").load()
    noise = wanted.noise[0] / 100, math.radians(wanted.noise[1])
    with TemporaryDirectory(prefix=".drives-", dir=folder.parent) as name:
        scratch = Path(name)
        for kind in DATASET[:3]:
            (scratch / "all" / kind).mkdir(parents=True)
        for number in range(wanted.drives):
            options = DriveOptions(wanted.spacing, wanted.frames, noise, FIRST_SEED + number, wanted.height)
            labels = scratch / f"labels-{number}"
            MapRun("synthetic", scratch / f"map-{number}", options, labels=labels).run(engine)
            for kind in DATASET[:3]:
                for path in (labels / kind).iterdir():
                    path.rename(scratch / "all" / kind / f"street{FIRST_SEED + number}_{path.name}")
            shutil.copy(labels / DATASET[3], scratch / "all" / DATASET[3])
        (scratch / "all").rename(folder)
