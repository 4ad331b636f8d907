r"""Pictures of what a network gets wrong, on streets that nobody has to license: one for each kind of error.

    .venv/bin/python benchmarks/error_pictures.py docs/images/errors.jpg

Of some frames of synthetic streets that were never trained on it shows, for each kind of error, the one with most
pixels of it: on the left they are painted into the photo, on the right is what the network says. How frequent each
kind is on real streets: `benchmarks/errors.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.errors import OBJECTS, OTHER, ROAD, SIDEWALK, ground_metres
from sfi_ros.classes import FOREGROUND_THRESHOLD
from sfi_ros.inference import DEFAULT_WEIGHTS
from sfi_ros.network import checkpoint
from sfi_ros.network.scene_network import SceneNetwork
from sfi_ros.synthetic import SyntheticStreet
from sfi_ros.visualization import overlay, side_by_side
from training.data.datasets.synthetic import Synthetic
from training.data.sample import Sample, collate
from training.measuring.evaluation import Runner
from training.measuring.metrics import object_area

FAR = 30.0
"""Metres from which on sidewalk is but a few rows of the image."""

PAINT = (0, 255, 255)
"""RGB of wrong pixels."""


@dataclass(frozen=True)
class Frame:
    """One frame and what the network says of it.

    Attributes:
        photo: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, the foreground.
        background: (H, W) uint8 classes.
        errors: kind of error -> (H, W) bool.
    """

    photo: np.ndarray
    mask: np.ndarray
    background: np.ndarray
    errors: dict[str, np.ndarray]

    def panels(self, kind: str) -> dict[str, np.ndarray]:
        """Return the frame with its errors of a kind, and the network's result, by their titles."""
        painted = self.photo.copy()
        painted[self.errors[kind]] = PAINT
        result = overlay(self.photo, self.mask.astype(np.uint8), self.background)
        return {kind: painted, f"the result ({self.errors[kind].mean():.1%} of the pixels)": result}


def errors_of(sample: Sample, mask: np.ndarray, background: np.ndarray, metres: np.ndarray) -> dict[str, np.ndarray]:
    """Return where each kind of error is.

    Args:
        sample: (H, W), with true background.
        mask: (H, W) bool, predicted.
        background: (H, W) classes, predicted.
        metres: (H,) of the ground at each row, infinite above the horizon.
    """
    assert sample.true_background is not None
    truth, foreground = sample.true_background.numpy(), sample.foreground.numpy() == 1
    far = np.broadcast_to((metres >= FAR)[:, None], truth.shape)
    sidewalk, called = truth == SIDEWALK, background == SIDEWALK
    small = object_area(torch.from_numpy(foreground[None]))[0].numpy() <= OBJECTS[1] * truth.size
    return {
        f"hidden sidewalk beyond {FAR:g} m, called other": foreground & sidewalk & far & (background == OTHER),
        "hidden road, called sidewalk": foreground & (truth == ROAD) & called,
        "sidewalk in plain sight, called road": ~foreground & sidewalk & (background == ROAD) & ~far,
        "what is neither, called sidewalk": ~foreground & (truth == OTHER) & called,
        "small objects that the mask misses": foreground & small & ~mask,
        "taken for an object": mask & ~foreground,
    }


def look(network: SceneNetwork, height: int, drives: int, frames: int) -> dict[str, Frame]:
    """Return, for each kind of error, the frame with most pixels of it; kinds that do not occur are left out."""
    dataset, runner = Synthetic(drives, frames, height=height, split="test"), Runner(network)
    worst: dict[str, Frame] = {}
    for drive in track(range(drives), description="looking for errors", transient=True):
        for number in range(frames):
            sample = dataset[drive * frames + number]
            probability, classes, *_ = runner(collate([sample]))
            mask = (probability[0, 0] > FOREGROUND_THRESHOLD).numpy()
            background = classes[0].argmax(0).numpy().astype(np.uint8)
            errors = errors_of(sample, mask, background, row_metres(dataset.street(drive), number * dataset.step))
            frame = Frame(sample.image.permute(1, 2, 0).numpy(), mask, background, errors)
            for kind, wrong in errors.items():
                if wrong.sum() > (worst[kind].errors[kind].sum() if kind in worst else 0):
                    worst[kind] = frame
    return {kind: worst[kind] for kind in errors if kind in worst}


def row_metres(street: SyntheticStreet, number: int) -> np.ndarray:
    """Return `ground_metres` of a frame of a street, as if it were flat."""
    matrix, pose = street.camera_matrix, street.pose(number)
    return ground_metres(street.height, matrix[1, 1], matrix[1, 2], pose.height, pose.pitch)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="the file to write")
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS)
    parser.add_argument("--drives", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--frames", type=int, default=8, help="of each drive (default: %(default)s)")
    options = parser.parse_args(arguments)
    loaded = checkpoint.load(options.weights)
    panels: dict[str, np.ndarray] = {}
    for kind, frame in look(loaded.network, loaded.metadata.input_height, options.drives, options.frames).items():
        panels |= frame.panels(kind)
    picture = cv2.cvtColor(side_by_side(panels), cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(options.picture), picture, [cv2.IMWRITE_JPEG_QUALITY, 80]):
        raise SystemExit(f"cannot write {options.picture}: give a .jpg in a folder that exists")


if __name__ == "__main__":
    main()
