"""What a benchmark needs and this repository must not hold: street images, and weights for every network.

The images are frames of the synthetic street. Networks without trained weights get random ones, made such that they
do the work that trained ones do: batch norm has seen streets, so that numbers stay in the range of half precision, and
the last layer of the foreground branch is fitted to the true masks, so that max-pooling as inpainting fills regions of
realistic size and shape.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfi_ros.export.exporter import export_onnx
from sfi_ros.frames.sources import UNSEEN_SEED, Frame, SourceError, open_source
from sfi_ros.inference import DEFAULT_WEIGHTS
from sfi_ros.network import checkpoint, zoo
from sfi_ros.network.preprocessing import normalize
from sfi_ros.network.scene_network import SceneNetwork
from sfi_ros.synthetic import SyntheticStreet

RENDERED_HEIGHT = 270  # the street is drawn at this height and enlarged: only the number of pixels matters here
SECONDS_APART = 2.0  # of the drive, so that frames differ


def street_frames(width: int, height: int, count: int) -> np.ndarray:
    """Frames of a drive on which nothing was trained: (count, height, width, 3) uint8 RGB."""
    small = min(height, RENDERED_HEIGHT)
    street = SyntheticStreet(seed=UNSEEN_SEED, width=max(16, round(width * small / height)), height=small)
    frames = (street.frame(round(index * SECONDS_APART * street.rate)).image for index in range(count))
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in frames])


def folder_frames(folder: Path, width: int, height: int, count: int) -> np.ndarray:
    """Return the first images of a folder, brought to one size: (count or fewer, height, width, 3) uint8 RGB.

    Raises:
        SourceError: no readable image in it.
    """
    frames: list[np.ndarray] = []
    for frame in open_source(folder):
        if isinstance(frame, Frame):
            frames.append(cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA))
        if len(frames) == count:
            break
    if not frames:
        raise SourceError(f"{folder} holds no image that OpenCV can decode")
    return np.stack(frames)


def weights_for(name: str, folder: Path, **options: str) -> Path:
    """Return a checkpoint of a network: the one that ships where it fits, else a stand-in, written into `folder`.

    Args:
        name: in the zoo.
        folder: where to write; what this function wrote there before is taken as it is.
        **options: see `NetworkOptions`.

    Returns:
        Its path.
    """
    if not options and DEFAULT_WEIGHTS.is_file() and checkpoint.read_metadata(DEFAULT_WEIGHTS).name == name:
        return DEFAULT_WEIGHTS
    path = folder / ("-".join([name, *options.values()]) + ".safetensors")
    if not path.is_file():
        checkpoint.save(path, stand_in(name, **options), training_data="none: stand-in of a benchmark")
    return path


def exported(weights: Path, size: tuple[int, int], folder: Path) -> Path:
    """Return the same network as ONNX for images of `size` = (height, width), written into `folder`; takes a minute.

    Raises:
        RuntimeError, ValueError: see `sfi_ros.export.exporter.export_onnx`.
    """
    path = folder / f"{weights.stem}-{size[1]}x{size[0]}.onnx"
    if not path.is_file():
        export_onnx(weights, path, size=size)
    return path


@torch.no_grad()
def stand_in(name: str, **options: str) -> SceneNetwork:
    """Return an untrained network, float32, eval, whose mask covers the street's objects about as a trained one's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = zoo.build(name, **options)
        street = SyntheticStreet(seed=UNSEEN_SEED, width=256, height=144)  # the drive that is measured
        frames = [street.frame(round(index * SECONDS_APART * street.rate)) for index in range(4)]
        images = normalize(torch.from_numpy(np.stack([frame.image for frame in frames])).permute(0, 3, 1, 2))
        truth = torch.from_numpy(np.stack([frame.foreground for frame in frames]))[:, None].float()
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0  # the statistics of this one batch
        network(images)
        for norm in norms:
            norm.momentum = 0.1
    network.eval()
    _fit_mask(network, images, truth)
    return network


def _fit_mask(network: SceneNetwork, images: Tensor, truth: Tensor) -> None:
    """Fit the foreground branch's last layer by least squares, then shift it until the right share is foreground."""
    last = [module for module in network.foreground.modules() if isinstance(module, nn.Conv2d)][-1]
    seen: list[Tensor] = []
    hook = last.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    network(images)
    hook.remove()
    features = seen[0].permute(0, 2, 3, 1).flatten(0, 2).double()
    target = F.interpolate(truth, seen[0].shape[-2:], mode="area").flatten().double()
    ridge = 1e-3 * len(features) * torch.eye(features.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(features.T @ features + ridge, features.T @ (2 * target - 1))
    # There may be no bias to shift: the sum of the features, nearly constant and positive, takes its place.
    total = features.sum(1).clamp_min(1e-6)
    weight -= torch.quantile((features @ weight / total)[:: 1 + len(total) // 100_000], 1 - target.mean())
    last.weight.copy_(weight.float().view(1, -1, 1, 1))
    if last.bias is not None:
        last.bias.zero_()
