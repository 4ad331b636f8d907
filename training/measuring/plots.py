"""Plots of an evaluation: where the background behind objects is right, and how sure it is."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.measuring.evaluation import Evaluation

LINE_COLORS = ("#1f5fa8", "#d9730d", "#2a8f5c", "#8e4aa8", "#b03a48", "#5d6470", "#0f8f9c", "#a88a14")


def draw_plots(evaluations: Sequence[Evaluation]) -> dict[str, bytes]:
    """Title -> PNG file of each plot, one line or group of bars for each evaluation."""

    def binned(key: str) -> Callable[[Evaluation], Mapping[str, Any]]:
        return lambda evaluation: evaluation.scores[key]

    plots: dict[str, Callable[[Axes], None]] = {
        "How deep behind the object: accuracy by distance to the object's border": lambda axes: _draw_bins(
            axes, evaluations, binned("by_distance"), "distance to the border", bars=False
        ),
        "By object size, as a share of the image": lambda axes: _draw_bins(
            axes, evaluations, binned("by_size"), "object size"
        ),
        "By object category": lambda axes: _draw_bins(axes, evaluations, binned("by_category"), "object category"),
        "Calibration behind objects: is a pixel as often right as it is confident?": lambda axes: _draw_calibration(
            axes, evaluations
        ),
    }
    return {title: _png(draw) for title, draw in plots.items()}


def _png(draw: Callable[[Axes], None]) -> bytes:
    figure = Figure(figsize=(6.4, 3.7), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#e6e9ed")
    axes.set_axisbelow(True)
    draw(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


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
