"""The evaluation as one HTML page for a person: table, plots, and the best, median and worst images.

The page needs nothing beside itself: style, plots and pictures are inside the file. It contains pieces of the
dataset's photos, so whoever may not pass those on may not pass the page on either.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
from torch.utils.data import Dataset

from sfi_ros.classes import (
    BACKGROUND_CLASSES,
    BACKGROUND_COLORS,
    FOREGROUND_COLOR,
    FOREGROUND_THRESHOLD,
    IGNORE_COLOR,
)
from sfi_ros.visualization import colorize
from training.data.sample import Sample, collate
from training.measuring.evaluation import Evaluation, ImageScore, Runner, comparison_rows
from training.measuring.pictures import (
    RIGHT_COLOR,
    WRONG_COLOR,
    WRONG_ELSEWHERE_COLOR,
    color_errors,
    encode_map,
    encode_photo,
    outline,
    tint,
)
from training.measuring.plots import draw_plots

TEMPLATE = Path(__file__).with_name("report.html.jinja")
IMAGES_EACH = 3
MINIMUM_PIXELS = 1000
"""Images with truth behind fewer foreground pixels are not chosen: their accuracy is chance."""

LEGEND = {
    **dict(zip(BACKGROUND_CLASSES, BACKGROUND_COLORS, strict=True)),
    "foreground": FOREGROUND_COLOR,
    "no truth": IGNORE_COLOR,
    "right behind an object": RIGHT_COLOR,
    "wrong behind an object": WRONG_COLOR,
    "wrong elsewhere": WRONG_ELSEWHERE_COLOR,
}


class Picture(NamedTuple):
    """A captioned image file inside the page."""

    caption: str
    source: str


def write_report(path: Path, results: Sequence[tuple[Evaluation, Dataset[Sample], Runner]]) -> None:
    """Write the page for one or more evaluations on the same images.

    Args:
        path: the .html file to write.
        results: for each checkpoint its evaluation, the dataset as it was evaluated, and the network that runs
            once more on the images that are shown. These are chosen by the first checkpoint's scores.
    """
    evaluations = [evaluation for evaluation, _, _ in results]
    titles, rows = comparison_rows(evaluations)
    plots = [Picture(title, _data_url(png, "png")) for title, png in draw_plots(evaluations).items()]
    chosen = choose_images(evaluations[0].images)
    groups = {title: [(image.name, _pictures(image, results)) for image in images] for title, images in chosen.items()}
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        dataset=evaluations[0].about["dataset"],
        mask_source=evaluations[0].about["mask_source"],
        evaluations=evaluations,
        labels=[row[0] for row in rows],
        scores=[(title, [row[number] for row in rows]) for number, title in enumerate(titles[1:], start=1)],
        plots=plots,
        legend=LEGEND,
        groups=groups,
    )
    path.write_text(page, encoding="utf-8")


def choose_images(images: Sequence[ImageScore]) -> dict[str, list[ImageScore]]:
    """Choose the best, median and worst images by foreground-region accuracy; no image twice.

    Where no image has (enough) truth behind its foreground, the accuracy of all regions decides.
    """
    largest = max((image.foreground_region_pixels for image in images), default=0)
    enough = min(MINIMUM_PIXELS, largest / 4)
    ranked = [image for image in images if image.foreground_region_pixels > enough]
    if not ranked:
        ranked = [image for image in images if not math.isnan(image.all_region_accuracy)]
    key = "foreground_region_accuracy" if largest else "all_region_accuracy"
    ranked = sorted(ranked, key=lambda image: getattr(image, key), reverse=True)
    each = min(IMAGES_EACH, max(1, len(ranked) // 3))
    best, rest = ranked[:each], ranked[each:]
    worst, rest = rest[max(0, len(rest) - each) :], rest[: max(0, len(rest) - each)]
    start = max(0, (len(rest) - each) // 2)
    return {"Best": best, "Median": rest[start : start + each], "Worst": worst[::-1]}


def _pictures(image: ImageScore, results: Sequence[tuple[Evaluation, Dataset[Sample], Runner]]) -> list[Picture]:
    sample = results[0][1][image.index]
    truth = collate([sample]).truth[0].numpy()
    pictures = [
        _photo("input", sample.image.permute(1, 2, 0).numpy()),
        _map("truth, objects outlined", outline(colorize(truth), sample.foreground.numpy())),
    ]
    for evaluation, dataset, runner in results:
        # Checkpoints may want images of different heights: each one gets its own sample.
        own = dataset[image.index]
        batch = collate([own])
        probability, background, *_ = runner(batch.to(runner.device))
        mask = (probability[0, 0] > FOREGROUND_THRESHOLD).cpu().numpy()
        predicted = background[0].max(0).indices.byte().cpu().numpy()
        photo, foreground = own.image.permute(1, 2, 0).numpy(), own.foreground.numpy()
        score = next(entry for entry in evaluation.images if entry.index == image.index)
        prefix = f"{evaluation.label}: " if len(results) > 1 else ""
        pictures += [
            _photo(f"{prefix}mask, IoU {_number(score.foreground_mask_iou)}", tint(photo, mask)),
            _map(f"{prefix}prediction", outline(colorize(predicted), foreground)),
            _photo(
                f"{prefix}error, foreground-region accuracy {_number(score.foreground_region_accuracy)}",
                color_errors(photo, predicted, batch.truth[0].numpy(), foreground),
            ),
        ]
    return pictures


def _photo(caption: str, picture: np.ndarray) -> Picture:
    return Picture(caption, _data_url(encode_photo(picture), "jpeg"))


def _map(caption: str, picture: np.ndarray) -> Picture:
    return Picture(caption, _data_url(encode_map(picture), "png"))


def _data_url(file: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file).decode('ascii')}"


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2f}"
