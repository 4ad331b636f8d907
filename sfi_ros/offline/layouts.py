"""`sfi run --layout`: the ground of each frame as files, as pictures and, where the truth is known, with scores."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from sfi_ros.errors import OptionError
from sfi_ros.files import make_folder
from sfi_ros.frames.frame import Frame
from sfi_ros.frames.own_vehicle import read_own_vehicle
from sfi_ros.geometry.calibration import Calibration
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.ground_table import KERB_HEIGHT, GroundTable
from sfi_ros.geometry.layout import GroundLayout, LayoutMaker, lay_out
from sfi_ros.geometry.occupancy import Costs
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.inference import Scene
from sfi_ros.offline.map_files import write_map_server, write_npz
from sfi_ros.offline.picture_file import write_picture
from sfi_ros.visualization import layout_picture

LAYOUT: Final = "layout"
"""Folder of the layouts: NAME.png, NAME.npz, and NAME.pgm with NAME.yaml."""

_SUFFIXES: Final = (".png", ".npz", ".pgm", ".yaml")


@dataclass(frozen=True)
class LayoutOptions:
    """How frames are laid out on the ground.

    Attributes:
        calibration: of the camera's images; None: what the source knows.
        pose: of the camera over the ground; None: what the source knows.
        grid: of the layouts.
        kerb_height: see `GroundTable`.
        own_vehicle: where the camera sees its own vehicle; see `read_own_vehicle`.
        rectified: the images were rectified; see `CameraModel.of`.
    """

    calibration: Calibration | None = None
    pose: CameraPose | None = None
    grid: GroundGrid = field(default_factory=GroundGrid)
    kerb_height: float = KERB_HEIGHT
    own_vehicle: str = ""
    rectified: bool = False

    def require_camera(self, *, calibrated: bool = False, posed: bool = False) -> None:
        """Refuse a source whose camera nobody knows.

        Args:
            calibrated, posed: whether the source knows its camera's calibration and pose.

        Raises:
            OptionError: one of them is missing.
        """
        missing = []
        if self.calibration is None and not calibrated:
            missing.append("calibration (--calibration YAML)")
        if self.pose is None and not posed:
            missing.append("pose on the vehicle (--camera height=1.5,pitch=0.03)")
        if missing:
            raise OptionError(
                f"--layout needs the camera's {' and '.join(missing)}; the synthetic street knows its own"
            )

    def maker(self) -> LayoutMaker:
        """Return what makes the layouts.

        Raises:
            OptionError: see `read_own_vehicle`.
        """
        return LayoutMaker(self.grid, self.own_vehicle_shape(), kerb_height=self.kerb_height, rectified=self.rectified)

    def own_vehicle_shape(self) -> np.ndarray | None:
        """Return the image or polygon of the own vehicle; see `read_own_vehicle`."""
        return read_own_vehicle(self.own_vehicle, "--own-vehicle")

    def camera(
        self, calibration: Calibration | None, pose: CameraPose | None, image_size: tuple[int, int]
    ) -> tuple[Calibration, CameraPose]:
        """Return the camera of an image: what the options say, else what the source does.

        Args:
            calibration, pose: as the source says.
            image_size: (width, height) of the image.

        Raises:
            OptionError: neither says it.
            CalibrationError: the calibration belongs to images of another size.
        """
        calibration, pose = self.calibration or calibration, self.pose or pose
        self.require_camera(calibrated=calibration is not None, posed=pose is not None)
        assert calibration is not None and pose is not None
        calibration.scaled(image_size, image_size)
        return calibration, pose

    def settings(self) -> dict[str, Any]:
        """Return what layouts depend on, as JSON has it."""
        return {
            "calibration": None if self.calibration is None else str(astuple(self.calibration)),
            "pose": None if self.pose is None else asdict(self.pose),
            "grid": asdict(self.grid),
            "kerb height": self.kerb_height,
            "own vehicle": self.own_vehicle,
            "rectified": self.rectified,
        }


class LayoutFolder:
    """Lays frames out and writes the layouts; safe to use from several threads.

    Args:
        folder: of the run; the layouts go to `LAYOUT` in it.
        options: see `LayoutOptions`.

    Raises:
        WriteError: the folder cannot be made.
        OptionError: see `LayoutOptions.maker`.
    """

    def __init__(self, folder: Path, options: LayoutOptions):
        self.folder, self._options = folder / LAYOUT, options
        make_folder(self.folder)
        self._maker = options.maker()

    def table(self, frame: Frame, scene: Scene) -> GroundTable:
        """Return the table of a frame's camera, for masks of the scene's size.

        Raises:
            OptionError: calibration or pose are not known.
            CalibrationError: the calibration belongs to images of another size.
        """
        (rows, columns), (height, width) = frame.image.shape[:2], scene.foreground.shape
        camera = self._options.camera(frame.calibration, frame.pose, (columns, rows))
        return self._maker.table(*camera, (width, height))

    def make(self, frame: Frame, scene: Scene) -> GroundLayout:
        """Lay a scene out; one that was read back from its pictures has no confidence."""
        confidence = scene.confidence if scene.confidence.shape == scene.foreground.shape else None
        return lay_out(self.table(frame, scene), scene.foreground, scene.background, confidence)

    def write(self, name: str, layout: GroundLayout) -> None:
        """Write the files of a frame.

        Raises:
            WriteError: one of them cannot be written.
        """
        write_picture(self.folder / f"{name}.png", layout_picture(layout))
        write_npz(self.folder / f"{name}.npz", layout, objects=layout.objects, depth=layout.depth)
        write_map_server(self.folder, name, Costs().of(layout), layout.grid)

    def has(self, name: str) -> bool:
        """Whether all files of a frame are there."""
        return all((self.folder / f"{name}{suffix}").is_file() for suffix in _SUFFIXES)

    def names(self) -> set[str]:
        """Return the names of the frames whose files are all there."""
        return {path.stem for path in self.folder.glob("*.yaml") if self.has(path.stem)}


def beside(picture: np.ndarray, layout: GroundLayout, width: int | None = None) -> np.ndarray:
    """Return a picture with the map of a layout at its right.

    Args:
        picture: (H, W, 3) uint8 RGB, W may be 0.
        layout: drawn at the picture's height.
        width: of the result, filled up with black; default: what both need, or one less where that is odd.
    """
    both = np.hstack([picture, layout_picture(layout, picture.shape[0])])
    if width is None:
        return both[:, : both.shape[1] // 2 * 2]
    return cv2.copyMakeBorder(both[:, :width], 0, 0, 0, max(0, width - both.shape[1]), cv2.BORDER_CONSTANT)
