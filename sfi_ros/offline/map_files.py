"""Maps of the ground as files: for map_server, for eyes and for NumPy."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from sfi_ros.files import write_bytes
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.layout import GroundLayout
from sfi_ros.geometry.occupancy import Costs
from sfi_ros.offline.picture_file import write_picture
from sfi_ros.visualization import layout_picture

MAP_FILES: Final = ("map.pgm", "map.yaml", "map.png", "map.npz")


def write_map_server(folder: Path, name: str, costs: np.ndarray, grid: GroundGrid) -> None:
    """Write the pair of files that map_server loads.

    Mode is `raw`: the picture holds the costs themselves, and 255 where they are unknown, so that nothing is lost.

    Args:
        folder: exists.
        name: of both files, without suffix.
        costs: int8 of the grid's shape, 0 to 100, -1 unknown.
        grid: where the cells lie.

    Raises:
        WriteError: they cannot be written.
    """
    picture = np.ascontiguousarray(costs[::-1].astype(np.uint8))  # -1 is 255; pictures begin at the largest y
    write_picture(folder / f"{name}.pgm", picture)
    lines = {
        "image": json.dumps(f"{name}.pgm"),  # which YAML reads, too, whatever the name holds
        "mode": "raw",
        "resolution": grid.resolution,
        "origin": f"[{grid.x_min:g}, {grid.y_min:g}, 0.0]",
        "negate": 0,
        "occupied_thresh": 0.65,
        "free_thresh": 0.196,
    }
    text = "".join(f"{key}: {value}\n" for key, value in lines.items())
    write_bytes(folder / f"{name}.yaml", text.encode())


def write_npz(path: Path, layout: GroundLayout, **more: Any) -> None:
    """Write the layers of a layout and where they lie, for numpy.load.

    Raises:
        WriteError: it cannot be written.
    """
    grid = layout.grid
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        classes=layout.classes,
        confidence=layout.confidence,
        evidence=layout.evidence,
        origin=np.array([grid.x_min, grid.y_min]),
        resolution=np.array(grid.resolution),
        frame=np.array(grid.frame),
        **more,
    )
    write_bytes(path, buffer.getbuffer())


def write_map(folder: Path, layout: GroundLayout, track: np.ndarray) -> None:
    """Write `MAP_FILES`.

    Args:
        folder: exists.
        layout: of the whole drive.
        track: (N, 3) of x, y and yaw of the vehicle.

    Raises:
        WriteError: they cannot be written.
    """
    write_map_server(folder, "map", Costs().of(layout), layout.grid)
    write_picture(folder / "map.png", layout_picture(layout))
    write_npz(folder / "map.npz", layout, track=track)
