"""Validation: the scores of every set, and pictures for TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sfi_ros.classes import BACKGROUND_CLASSES, FOREGROUND_CLASSES, FOREGROUND_THRESHOLD
from sfi_ros.network.outputs import SceneLogits
from sfi_ros.network.preprocessing import normalize
from sfi_ros.network.scene_network import SceneNetwork
from sfi_ros.visualization import colorize
from training.configuration import ConfigurationError, RunConfig, closest
from training.data.label_check import census
from training.data.sample import Batch, Sample
from training.measuring.metrics import SceneMetrics

SCORE_NAMES: Final = (
    *(f"{region}_miou" for region in ("all_region", "foreground_region")),
    *(f"{region}_iou_{name}" for region in ("all_region", "foreground_region") for name in BACKGROUND_CLASSES),
    *(f"foreground_mask_{name}" for name in ("iou", "precision", "recall")),
    "foreground_classes_miou",
    *(f"foreground_classes_iou_{name}" for name in FOREGROUND_CLASSES),
)
"""What a validation measures on every set."""


def require_known_monitor(run: RunConfig, name: str, dataset: Dataset[Sample] | None) -> str | None:
    """Refuse a score to choose by that does not exist, or that the set cannot tell.

    Args:
        run: whose `monitor` chooses the best checkpoint.
        name: of the first validation set.
        dataset: that set; None if everything is known in it.

    Returns:
        A warning where the images that were looked at do not show the score, and others may; else None.

    Raises:
        ConfigurationError: the message says what to set instead.
    """
    if run.monitor not in SCORE_NAMES:
        raise ConfigurationError(
            f"unknown run.monitor {run.monitor!r}: did you mean {closest(run.monitor, SCORE_NAMES)!r}? "
            f"(known: {', '.join(SCORE_NAMES)})"
        )
    if run.export == "last" or dataset is None:
        return None
    found = census(dataset)
    region, _, score = run.monitor.partition("_region_")
    pixels = {"all": found.everywhere, "foreground": found.behind}.get(region, {"mask": found.foreground})
    of_class = pixels.get(score.removeprefix("iou_"))
    if sum(pixels.values()) if of_class is None else of_class:
        return None
    problem = (
        f"{run.monitor}, which chooses the best checkpoint, is not known on {name}: set data.validation.{name}.pasted: "
        "1.0 (objects with known background behind them), run.monitor=all_region_miou, or run.export=last"
    )
    if region == "foreground" and not found.has_truth:
        raise ConfigurationError(problem)
    return f"in {found.images} of its {len(dataset)} images {problem}"


def validate(
    fabric: Fabric,
    network: SceneNetwork,
    loaders: Mapping[str, DataLoader],
    *,
    pictures: int = 0,
    step: int = 0,
    after_batch: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, float]]:
    """Score a network on this process's share of every set; the scores are those of all shares together.

    Args:
        fabric: of the run.
        network: what is validated, in evaluation mode and on the device.
        loaders: name -> loader of `training.data.sample.Batch`.
        pictures: images of the first set that are drawn into TensorBoard.
        step: under which they are filed.
        after_batch: called behind every batch; may raise.

    Returns:
        By set: `flat_scores`.
    """
    scores = {}
    for number, (name, loader) in enumerate(loaders.items()):
        metrics = SceneMetrics().to(fabric.device)
        spacing = max(1, len(loader) // max(pictures, 1))
        drawn: list[Tensor] = []
        for index, batch in enumerate(loader):
            batch = batch.to(fabric.device, non_blocking=True)
            logits = predict(fabric, network, batch)
            metrics.update(logits.foreground.sigmoid(), logits.background, batch, logits.kinds)
            if number == 0 and fabric.is_global_zero and index % spacing == 0 and len(drawn) < pictures:
                drawn.append(_picture(batch, logits))
            after_batch()
        scores[name] = flat_scores(metrics.compute())
        for logger in fabric.loggers:
            if isinstance(logger, TensorBoardLogger):
                for place, picture in enumerate(drawn):
                    logger.experiment.add_image(f"validation/{place}", picture, step)
    return scores


@torch.no_grad()  # not inference_mode: frozen tensors that it makes must not get into a network that trains on
def predict(fabric: Fabric, network: nn.Module, batch: Batch) -> SceneLogits:
    """Return a network's float32 logits for a labelled batch on the device; MPI gets the true mask if it wants one."""
    images = normalize(batch.image).contiguous(memory_format=torch.channels_last)
    given = (batch.foreground > 0)[:, None] if network.options.mask_source == "given" else None
    with fabric.autocast():
        logits = network(images, given_foreground=given)
    kinds = None if logits.kinds is None else logits.kinds.float()
    return SceneLogits(logits.background.float(), logits.foreground.float(), kinds)


def flat_scores(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return `SceneMetrics.compute()` as one level of names, `SCORE_NAMES`."""
    flat = {}
    for group in ("all_region", "foreground_region", "foreground_classes"):
        flat[f"{group}_miou"] = scores[group]["miou"]
        flat.update({f"{group}_iou_{name}": value for name, value in scores[group]["iou"].items()})
    flat |= {f"foreground_mask_{name}": value for name, value in scores["foreground_mask"].items()}
    return {name: value if math.isfinite(value) else float("nan") for name, value in flat.items()}


def _picture(batch: Batch, logits: SceneLogits) -> Tensor:
    """Draw (3, 3H, W) uint8: the first image; its predicted background, the mask darkened; the same of the truth."""
    answer = logits.background[0].argmax(0), logits.foreground[0, 0].sigmoid() > FOREGROUND_THRESHOLD
    rows = [batch.image[0].cpu()]
    for background, mask in (answer, (batch.truth[0], batch.foreground[0] > 0)):
        colors = torch.from_numpy(colorize(background.to("cpu", torch.uint8).numpy()).astype(np.uint8)).permute(2, 0, 1)
        rows.append(torch.where(mask.cpu(), colors // 2, colors))
    return torch.cat(rows, dim=1)
