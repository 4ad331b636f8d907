"""The report on what was inferred behind objects and seen later: numbers as JSON, and one HTML page for a person."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sfi_ros.files import write_bytes, write_json
from sfi_ros.geometry.agreement import Agreement

REPORT_FILES: Final = ("agreement.json", "agreement.html")

_STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: #1c2330; background: #f5f6f8;
       margin: 0; padding: 2rem; }
main { max-width: 1000px; margin: auto; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
p { max-width: 75ch; } .dim { color: #5d6470; }
.card { background: #fff; border: 1px solid #dfe3e8; border-radius: 8px; padding: .6rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .8rem; text-align: right; border-bottom: 1px solid #edf0f3; white-space: nowrap; }
th { font-weight: 600; background: #fafbfc; } th:first-child, td:first-child { text-align: left; }
"""


def write_report(folder: Path, agreement: Agreement, resolution: float, about: Mapping[str, Any]) -> None:
    """Write `REPORT_FILES`.

    Args:
        folder: exists.
        agreement: what was counted.
        resolution: side of a cell, metres.
        about: what else stands at the top of both: the drive, the weights.

    Raises:
        WriteError: they cannot be written.
    """
    numbers = {**about, "resolution": resolution, **agreement.summary()}
    write_json(folder / "agreement.json", numbers)
    write_bytes(folder / "agreement.html", _page(numbers, about).encode())


def _page(numbers: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    area = numbers["cells"] * numbers["resolution"] ** 2
    facts = ", ".join(f"{name} {value}" for name, value in about.items())
    calibration = numbers["calibration"]
    error = calibration["expected_calibration_error"]
    classes = list(numbers["by_class"])
    return f"""<!DOCTYPE html>
<html lang='en'>
<head>
<meta charset='utf-8'>
<meta name='viewport' content='width=device-width, initial-scale=1'>
<title>What was inferred, and seen later</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>Behind objects: inferred first, seen later</h1>
<p class='dim'>{html.escape(facts)}</p>
<p>{numbers["cells"]:,} cells of {numbers["resolution"]:g} m ({area:,.0f} square metres) were inferred behind an object
and seen by a later frame. <b>{
        _percent(numbers["agreement"])
    }</b> were what had been inferred. Nobody labelled anything:
the truth is what the same network says once it sees the ground.</p>

<h2>By class that was seen</h2>
{
        _table(
            ["class", "cells", "agreement", *(f"inferred as {name}" for name in classes)],
            (
                [
                    name,
                    f"{one['cells']:,}",
                    _percent(one["agreement"]),
                    *(f"{n:,}" for n in one["inferred_as"].values()),
                ]
                for name, one in numbers["by_class"].items()
            ),
        )
    }

<h2>By depth behind the object's foot</h2>
{_table(["depth", "cells", "agreement"], _rows(numbers["by_depth"]))}

<h2>By confidence: is a cell as often right as it is confident?</h2>
<div class='card'>{_curve(calibration["bins"])}</div>
<p class='dim'>Mean gap between confidence and agreement, weighted by cells: {"–" if error is None else f"{error:.3f}"}.
Points are bins of at least 100 cells; on the dashed line confidence would be right.</p>
{
        _table(
            ["confidence", "cells", "mean confidence", "agreement"],
            (
                [one["bin"], f"{one['cells']:,}", _percent(one["confidence"]), _percent(one["agreement"])]
                for one in calibration["bins"]
            ),
        )
    }
</main>
</body>
</html>
"""


def _rows(entries: Mapping[str, Mapping[str, Any]]) -> Iterable[Sequence[str]]:
    return ([name, f"{one['cells']:,}", _percent(one["agreement"])] for name, one in entries.items())


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<div class='card'><table><thead><tr>{head}</tr></thead>\n{body}</table></div>"


def _curve(bins: Sequence[Mapping[str, Any]]) -> str:
    """Draw the calibration curve as SVG: confidence to the right, agreement up, both from 0.3 to 1."""
    width, height, margin, low = 560, 320, 45, 0.3

    def place(confidence: float, agreement: float) -> str:
        x = margin + (width - 2 * margin) * (confidence - low) / (1 - low)
        y = height - margin - (height - 2 * margin) * max(agreement, 0.0)
        return f"{x:.1f},{y:.1f}"

    points = [place(one["confidence"], one["agreement"]) for one in bins if one["cells"] >= 100]
    dots = "".join("<circle cx='{}' cy='{}' r='4' fill='#1f5fa8'/>".format(*point.split(",")) for point in points)
    labels = ""
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(low, value).split(",")
        labels += f"<text x='{float(x) - 8}' y='{float(y) + 4}' text-anchor='end'>{value:g}</text>"
        labels += f"<line x1='{x}' y1='{y}' x2='{width - margin}' y2='{y}' stroke='#e6e9ed'/>"
    for value in (0.4, 0.6, 0.8, 1.0):
        x, y = place(value, 0.0).split(",")
        labels += f"<text x='{x}' y='{float(y) + 18}' text-anchor='middle'>{value:g}</text>"
    return (
        f"<svg viewBox='0 0 {width} {height}' width='{width}' font-size='12' fill='#5d6470'>{labels}"
        f"<polyline points='{place(low, low)} {place(1, 1)}' fill='none' stroke='#9aa3ad' stroke-dasharray='5 4'/>"
        f"<polyline points='{' '.join(points)}' fill='none' stroke='#1f5fa8' stroke-width='2'/>{dots}"
        f"<text x='{width / 2}' y='{height - 8}' text-anchor='middle'>confidence</text>"
        f"<text x='{margin}' y='24'>agreement</text></svg>"
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
