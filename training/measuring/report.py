"""The evaluation as one HTML page for a person: table, plots, and the best, median and worst images.

The page needs nothing beside itself: style, plots and pictures are inside the file. It contains pieces of the
dataset's photos, so whoever may not pass those on may not pass the page on either.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset
from torchvision.io import encode_jpeg, encode_png

from sfi_ros.classes import BACKGROUND_CLASSES, BACKGROUND_COLORS, FOREGROUND_COLOR, IGNORE, IGNORE_COLOR
from training.data.sample import Sample, collate
from training.measuring.metrics import FOREGROUND_THRESHOLD

if TYPE_CHECKING:
    from training.evaluate import Evaluation, ImageScore, Runner

IMAGES_EACH = 3
MINIMUM_PIXELS = 1000
"""Images with truth behind fewer foreground pixels are not chosen: their accuracy is chance."""

WRONG_COLOR, RIGHT_COLOR, WRONG_ELSEWHERE_COLOR = (214, 39, 40), (60, 160, 90), (240, 190, 120)
LINE_COLORS = ("#1f5fa8", "#d9730d", "#2a8f5c", "#8e4aa8", "#b03a48", "#5d6470", "#0f8f9c", "#a88a14")

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: #1c2330; background: #f5f6f8;
       margin: 0; padding: 2rem; }
main { max-width: 1500px; margin: auto; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
p, li { max-width: 75ch; } .dim { color: #5d6470; }
section.card, figure { background: #fff; border: 1px solid #dfe3e8; border-radius: 8px; }
section.card { padding: 1rem 1.25rem; margin: .6rem 0; }
.wide { overflow-x: auto; background: #fff; border: 1px solid #dfe3e8; border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .8rem; text-align: right; border-bottom: 1px solid #edf0f3; white-space: nowrap; }
th { font-weight: 600; background: #fafbfc; } th:first-child, td:first-child { text-align: left; }
tr.headline td { font-weight: 650; } tr.detail td:first-child { padding-left: 2rem; color: #5d6470; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 1rem; }
figure { margin: 0; padding: .6rem; } figure img { width: 100%; height: auto; display: block; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: .8rem; }
figcaption { font-size: .85rem; color: #5d6470; padding: 0 0 .4rem; }
.legend { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; }
.legend span::before { content: ""; display: inline-block; width: 1em; height: 1em; margin-right: .45em;
       border-radius: 3px; vertical-align: -.12em; background: var(--color); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: 0; }
dt { color: #5d6470; } dd { margin: 0; overflow-wrap: anywhere; } code { font-size: .9em; }
"""


def write_report(path: Path, results: Sequence[tuple[Evaluation, Dataset[Sample], Runner]]) -> None:
    """Write the page for one or more evaluations on the same images.

    Args:
        path: the .html file to write.
        results: for each checkpoint its evaluation, the dataset as it was evaluated, and the network that runs
            once more on the images that are shown. These are chosen by the first checkpoint's scores.
    """
    evaluations = [evaluation for evaluation, _, _ in results]
    dataset = evaluations[0].about["dataset"]
    pasted = ", objects of other images pasted in" if dataset["pasted"] else ""
    split = f" {dataset['split']}" if dataset["split"] else ""
    body = [
        f"<h1>What is behind the objects: {escape(dataset['name'])}{escape(split)}</h1>",
        f"<p class='dim'>{dataset['images']} images{pasted}, {dataset['height']} pixels high, "
        f"{escape(evaluations[0].about['mask_source'])} mask</p>",
        "<h2>Scores</h2>",
        _table(evaluations),
        "<p class='dim'>Foreground-region: the pixels that the ground-truth foreground mask covers; the score is "
        "for the background behind it. All pixels of the set are pooled; unlabeled ones do not count. "
        "Calibration error: mean gap between confidence and accuracy in the foreground region. ms per image: "
        f"median of the network's pass, {_speed_words(evaluations[0])}.</p>",
        "<h2>Where it holds, and how sure it is</h2>",
        f"<div class='plots'>{''.join(_plots(evaluations))}</div>",
        "<h2>Images</h2>",
        _legend(),
        *_image_sections(results),
        "<h2>How this was made</h2>",
        *[_about(evaluation) for evaluation in evaluations],
    ]
    path.write_text(
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Evaluation: {escape(dataset['name'])}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(body)}</main></body></html>\n",
        encoding="utf-8",
    )


# --- tables and words ----------------------------------------------------------------------------------------------


def _table(evaluations: Sequence[Evaluation]) -> str:
    from training.evaluate import comparison_rows

    titles, rows = comparison_rows(list(evaluations))
    head = "".join(f"<th>{escape(row[0])}</th>" for row in rows)
    lines = []
    for number, title in enumerate(titles[1:], start=1):
        kind = "detail" if title.startswith(" ") else "headline" if "IoU" in title else ""
        cells = "".join(f"<td>{escape(row[number])}</td>" for row in rows)
        lines.append(f"<tr class='{kind}'><td>{escape(title.strip())}</td>{cells}</tr>")
    return f"<div class='wide'><table><thead><tr><th></th>{head}</tr></thead>{''.join(lines)}</table></div>"


def _speed_words(evaluation: Evaluation) -> str:
    speed = evaluation.scores["speed"]
    threads = f", {speed['threads']} threads" if speed["device"] == "cpu" else ""
    return f"{escape(speed['precision'])}, batch {speed['batch']}, {escape(speed['device'])}{threads}"


def _about(evaluation: Evaluation) -> str:
    about = evaluation.about
    weights, dataset = about["weights"], about["dataset"]
    entries = {
        "weights": f"{weights['file']} (sha256 {weights['sha256']}…)",
        "network": f"{weights['network']}, {weights['parameters'] / 1e6:.2f} M parameters",
        "trained on": weights["training_data"] or "unknown",
        "tested on": f"{dataset['root'] or dataset['name']}, {dataset['images']} of {dataset['images_in_set']} images",
        "torch": about["torch"],
    }
    lines = "".join(f"<dt>{key}</dt><dd>{escape(str(value))}</dd>" for key, value in entries.items())
    command = f"<dt>command</dt><dd><code>{escape(about['command'])}</code></dd>"
    return f"<section class='card'><h3>{escape(evaluation.label)}</h3><dl>{lines}{command}</dl></section>"


def _legend() -> str:
    entries = [*zip(BACKGROUND_CLASSES, BACKGROUND_COLORS, strict=True), ("foreground", FOREGROUND_COLOR)]
    entries += [("no truth", IGNORE_COLOR), ("right behind an object", RIGHT_COLOR)]
    entries += [("wrong behind an object", WRONG_COLOR), ("wrong elsewhere", WRONG_ELSEWHERE_COLOR)]
    spans = "".join(f"<span style='--color:rgb{color}'>{escape(name)}</span>" for name, color in entries)
    return f"<section class='card'><div class='legend'>{spans}</div></section>"


# --- plots ---------------------------------------------------------------------------------------------------------


def _plots(evaluations: Sequence[Evaluation]) -> list[str]:
    def binned(key: str) -> Callable[[Evaluation], Mapping[str, Any]]:
        return lambda evaluation: evaluation.scores[key]

    return [
        _figure(
            "How deep behind the object: accuracy by distance to the object's border",
            lambda axes: _draw_bins(axes, evaluations, binned("by_distance"), "distance to the border", bars=False),
        ),
        _figure(
            "By object size, as a share of the image",
            lambda axes: _draw_bins(axes, evaluations, binned("by_size"), "object size"),
        ),
        _figure(
            "By object category", lambda axes: _draw_bins(axes, evaluations, binned("by_category"), "object category")
        ),
        _figure(
            "Calibration behind objects: is a pixel as often right as it is confident?",
            lambda axes: _draw_calibration(axes, evaluations),
        ),
    ]


def _figure(title: str, draw: Callable[[Axes], None]) -> str:
    figure = Figure(figsize=(6.4, 3.7), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#e6e9ed")
    axes.set_axisbelow(True)
    draw(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return f"<figure><figcaption>{escape(title)}</figcaption>{_embed(buffer.getvalue(), 'png', title)}</figure>"


def _draw_bins(
    axes: Axes,
    evaluations: Sequence[Evaluation],
    scores: Callable[[Evaluation], Mapping[str, Any]],
    label: str,
    bars: bool = True,
) -> None:
    """Accuracy by bin, one line or group of bars for each evaluation; bins without pixels are left out."""
    bins = [name for name, entry in scores(evaluations[0]).items() if entry["pixels"]]
    width = 0.8 / len(evaluations)
    for number, (evaluation, color) in enumerate(zip(evaluations, _colors(), strict=False)):
        values = [scores(evaluation)[name]["accuracy"] for name in bins]
        if bars:
            offset = (number - (len(evaluations) - 1) / 2) * width
            places = [position + offset for position in range(len(bins))]
            axes.bar(places, values, width * 0.92, color=color, label=evaluation.label)
        else:
            axes.plot(range(len(bins)), values, marker="o", color=color, label=evaluation.label)
    pixels = [scores(evaluations[0])[name]["pixels"] for name in bins]
    ticks = [f"{name}\n{_thousands(count)}" for name, count in zip(bins, pixels, strict=True)]
    axes.set_xticks(range(len(bins)), ticks, fontsize=8)
    axes.set_xlabel(f"{label}, and the number of pixels", fontsize=9)
    _finish(axes, evaluations, "accuracy of the background")
    if not bins:
        axes.text(0.5, 0.5, "no truth behind objects", ha="center", transform=axes.transAxes)


def _draw_calibration(axes: Axes, evaluations: Sequence[Evaluation]) -> None:
    axes.plot([1 / 3, 1], [1 / 3, 1], color="#9aa3ad", linewidth=1, linestyle="--")
    for evaluation, color in zip(evaluations, _colors(), strict=False):
        for region, style in (("foreground_region", "-"), ("all_region", ":")):
            calibration = evaluation.scores["calibration"][region]
            points = [(b["confidence"], b["accuracy"]) for b in calibration["bins"] if b["pixels"] >= 100]
            if points:
                name = region.replace("_", "-")
                text = f"{evaluation.label}, {name} (error {calibration['ece']:.3f})"
                axes.plot(*zip(*points, strict=True), style, marker=".", color=color, label=text)
    axes.set_xlim(0.3, 1.01)
    axes.set_xlabel("confidence", fontsize=9)
    _finish(axes, [], "accuracy")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))


def _finish(axes: Axes, evaluations: Sequence[Evaluation], label: str) -> None:
    axes.set_ylim(0, 1.02)
    axes.set_ylabel(label, fontsize=9)
    axes.tick_params(labelsize=8, length=0)
    if len(evaluations) > 1:
        axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)


def _colors() -> list[str]:
    return list(LINE_COLORS) * 4


def _thousands(count: int) -> str:
    return f"{count}" if count < 1000 else f"{count / 1000:.0f}k" if count < 1e6 else f"{count / 1e6:.1f}M"


# --- pictures ------------------------------------------------------------------------------------------------------


def _image_sections(results: Sequence[tuple[Evaluation, Dataset[Sample], Runner]]) -> list[str]:
    first = results[0][0]
    sections = []
    for title, chosen in choose_images(first.images).items():
        sections.append(f"<h3>{title} images</h3>")
        sections += [_image_section(image, results) for image in chosen]
    return sections


def choose_images(images: Sequence[ImageScore], each: int = IMAGES_EACH) -> dict[str, list[ImageScore]]:
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
    each = min(each, max(1, len(ranked) // 3))
    best, rest = ranked[:each], ranked[each:]
    worst, rest = rest[max(0, len(rest) - each) :], rest[: max(0, len(rest) - each)]
    start = max(0, (len(rest) - each) // 2)
    return {"Best": best, "Median": rest[start : start + each], "Worst": worst[::-1]}


def _image_section(image: ImageScore, results: Sequence[tuple[Evaluation, Dataset[Sample], Runner]]) -> str:
    sample = results[0][1][image.index]
    truth = collate([sample]).truth[0]
    pictures = [
        _picture("input", sample.image, photo=True),
        _picture("truth, objects outlined", outline(color_classes(truth), sample.foreground)),
    ]
    for evaluation, dataset, runner in results:
        # Checkpoints may want images of different heights: each one gets its own sample.
        own = dataset[image.index]
        batch = collate([own])
        foreground, background, _ = runner(batch.to(runner.device))
        mask = (foreground[0, 0] > FOREGROUND_THRESHOLD).cpu()
        predicted = background[0].max(0).indices.cpu()
        score = next(entry for entry in evaluation.images if entry.index == image.index)
        prefix = f"{evaluation.label}: " if len(results) > 1 else ""
        pictures += [
            _picture(f"{prefix}mask, IoU {_number(score.foreground_mask_iou)}", tint(own.image, mask), photo=True),
            _picture(f"{prefix}prediction", outline(color_classes(predicted), own.foreground)),
            _picture(
                f"{prefix}error, foreground-region accuracy {_number(score.foreground_region_accuracy)}",
                color_errors(own.image, predicted, batch.truth[0], own.foreground),
                photo=True,
            ),
        ]
    return f"<section class='card'><b>{escape(image.name)}</b><div class='pictures'>{''.join(pictures)}</div></section>"


def color_classes(classes: Tensor) -> Tensor:
    """Colour a class map (H, W) with the project's palette: (3, H, W) uint8."""
    palette = torch.tensor([IGNORE_COLOR] * 256, dtype=torch.uint8)
    palette[: len(BACKGROUND_COLORS)] = torch.tensor(BACKGROUND_COLORS, dtype=torch.uint8)
    palette[IGNORE] = torch.tensor(IGNORE_COLOR, dtype=torch.uint8)
    return palette[classes.long()].permute(2, 0, 1)


def outline(picture: Tensor, mask: Tensor) -> Tensor:
    """Draw the inner border of a mask (H, W) in white onto a picture (3, H, W)."""
    unset = (mask == 0).float()[None]
    border = (mask > 0) & (functional.max_pool2d(unset, 3, stride=1, padding=1)[0] > 0)
    return torch.where(border, torch.full_like(picture, 255), picture)


def tint(photo: Tensor, mask: Tensor) -> Tensor:
    """Blend a photo (3, H, W) with the foreground colour where `mask` (H, W) is set."""
    return _blend(photo, torch.tensor(FOREGROUND_COLOR), mask, 0.55)


def color_errors(photo: Tensor, predicted: Tensor, truth: Tensor, foreground: Tensor) -> Tensor:
    """Colour right and wrong pixels over a pale grey version of the photo; pixels without truth stay grey."""
    gray = photo.float().mean(0, keepdim=True).expand(3, -1, -1)
    pale = (110 + gray * 0.5).to(torch.uint8)
    known, inside = truth != IGNORE, foreground > 0
    wrong = known & (predicted != truth)
    pale = _blend(pale, torch.tensor(WRONG_ELSEWHERE_COLOR), wrong & ~inside, 0.7)
    pale = _blend(pale, torch.tensor(RIGHT_COLOR), known & ~wrong & inside, 0.7)
    return _blend(pale, torch.tensor(WRONG_COLOR), wrong & inside, 0.8)


def _blend(photo: Tensor, color: Tensor, mask: Tensor, alpha: float) -> Tensor:
    mixed = photo.float() * (1 - alpha) + color.float()[:, None, None] * alpha
    return torch.where(mask.bool(), mixed.round().to(torch.uint8), photo)


def _picture(caption: str, picture: Tensor, photo: bool = False) -> str:
    # Photos shrink well as JPEG; maps of few colours are smaller and exact as PNG.
    if photo:
        data, kind = encode_jpeg(picture.contiguous(), quality=85), "jpeg"
    else:
        data, kind = encode_png(picture.contiguous()), "png"
    image = _embed(data.numpy().tobytes(), kind, caption)
    return f"<figure><figcaption>{escape(caption)}</figcaption>{image}</figure>"


def _embed(data: bytes, kind: str, description: str) -> str:
    encoded = base64.b64encode(data).decode("ascii")
    return f"<img alt='{escape(description)}' loading='lazy' src='data:image/{kind};base64,{encoded}'>"


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2f}"
