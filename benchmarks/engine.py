"""The engine end to end, host image in to host masks out, beside the released network in the same run.

    .venv/bin/python benchmarks/engine.py
    .venv/bin/python benchmarks/engine.py --networks fast-mobilenetv2 --backends pytorch,compile,onnxruntime
    .venv/bin/python benchmarks/engine.py --device cuda --heights 256,512 --batches 1,2,4
    .venv/bin/python benchmarks/engine.py --cameras 1,2,4,8 --heights 256,512
    .venv/bin/python benchmarks/engine.py --all --json out/engine.json      # every network: hours on a CPU

Each row is a process of its own that loads the network and waits. Rows then take short turns, round after round, so
that whatever else happens to the machine happens to all alike. The first row is `benchmarks/released.py`: the released
network with Algorithm 1 as the literal loop, one image at a time; "ratio" is frames/s over its frames/s, from the very
rounds in which a row had its turns.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from rich.console import Console

from benchmarks import flops, machine, stand_ins, tables
from benchmarks.workers import LITERAL, Case, Times, Worker, describe
from sfi_ros.inference.device import PRECISIONS, choose_device, possible_precisions
from sfi_ros.network import zoo

BACKENDS = ("pytorch", "compile", "onnxruntime", "tensorrt")
FOR_ONNX = ("onnxruntime", "tensorrt")
FRAMES = 8  # different ones, in turn

COLUMNS = (
    tables.Column("network", "network", identity=True),
    tables.Column("precision", "precision", identity=True),
    tables.Column("backend", "backend", identity=True),
    tables.Column("source", "source", identity=True),
    tables.Column("input", "input", identity=True),
    tables.Column("batch", "batch", identity=True),
    tables.Column("frames_per_second", "frames/s", ".1f"),
    tables.Column("ratio", "ratio", ".1f"),
    tables.Column("p50_ms", "ms p50", ".2f"),
    tables.Column("p95_ms", "p95", ".2f"),
    tables.Column("p99_ms", "p99", ".2f"),
    tables.Column("preprocess_ms", "pre", ".2f"),
    tables.Column("network_ms", "network", ".2f"),
    tables.Column("postprocess_ms", "post", ".2f"),
    tables.Column("memory_mb", "memory MB", ".0f"),
    tables.Column("gflop", "GFLOP", ".1f"),
    tables.Column("share_of_peak", "of peak", ".0%"),
    tables.Column("share_of_bandwidth", "of bandwidth", ".0%"),
    tables.Column("floor_ms", "floor ms", ".2f"),
    tables.Column("foreground", "foreground", ".0%"),
)
NOTES = (
    "ratio: frames/s over those of the released network (first row) in the same rounds. pre, network, post: medians of "
    "the stages, ms per call.",
    "memory: growth of the process's peak resident set, on a GPU torch.cuda.memory_reserved. GFLOP: per frame.",
    "of peak: GFLOP in the network's stage over the measured peak rate. of bandwidth: what its convolutions read and "
    "write in that stage over the measured copy bandwidth; what stays in caches counts, too. On a GPU upload and "
    "download are in that stage as well.",
    "floor: the larger of all operations at that rate and all bytes that must move (weights, images, results) at copy "
    "bandwidth, ms per call. foreground: share of the pixels in the masks.",
)
CAMERA_COLUMNS = (
    *COLUMNS[:5],
    tables.Column("batch", "cameras", identity=True),
    tables.Column("frames_per_second", "frames/s", ".1f"),
    tables.Column("frames_per_camera", "per camera", ".1f"),
    tables.Column("over_one_camera", "over one camera", ".2f"),
    *COLUMNS[7:11],
    tables.Column("memory_mb", "memory MB", ".0f"),
)
CAMERA_NOTES = (
    "frames/s: of all cameras together, one batch over the cameras. over one camera: over the frames/s of one camera. "
    "ratio: over the released network (first row) in the same rounds.",
)


# --- rows --------------------------------------------------------------------------------------------------------


def measure(
    cases: Sequence[Case], options: argparse.Namespace, peak: machine.Machine, table: tables.Table
) -> list[str]:
    """Measure cases in groups and add their rows, each baseline before what it belongs to; returns problems."""
    console = Console(stderr=True)
    problems: list[str] = []
    baselines: dict[Case, tuple[tables.Row, Times]] = {}
    with tempfile.TemporaryDirectory() as name, console.status("") as status:
        folder = Path(name)
        for group in _groups(cases, options.together):
            workers: list[Worker] = []
            try:
                for case in (group[0].baseline(), *group):
                    status.update(f"loading {case.network}, {case.backend}, {case.precision}")
                    workers.append(Worker(case))
                    _start(workers[-1], folder, options)
                    if workers[0].problem:
                        raise SystemExit(f"the released network does not run: {workers[0].problem}")
                for number in range(options.rounds):
                    status.update(f"{group[0].source}, height {group[0].height}: round {number + 1}/{options.rounds}")
                    for worker in workers:
                        if worker.case.backend != LITERAL or number % 2 == 0:  # it takes long and hardly varies
                            worker.turn(options.seconds / options.rounds)
            finally:
                for worker in workers:
                    worker.close()
            first = workers[0]
            is_new = first.case not in baselines
            row, all_times = baselines.setdefault(first.case, ({}, Times()))
            all_times.add(first.times)  # with those of earlier groups of this size
            row.update(_row(first, all_times, all_times, peak))
            if is_new:
                tables.add(options, table, row, peak=peak.facts())
            for worker in workers[1:]:
                tables.add(options, table, _row(worker, worker.times, first.times, peak), peak=peak.facts())
                if worker.problem:
                    case = worker.case
                    problems.append(f"not measured: {case.network}, {case.backend}, {case.precision}: {worker.problem}")
    return problems


def _groups(cases: Sequence[Case], together: int) -> Iterator[list[Case]]:
    """Cases that share a baseline, at most so many at once."""
    ordered = sorted(cases, key=lambda case: (case.source, case.height))
    for _, same in itertools.groupby(ordered, key=lambda case: (case.source, case.height)):
        same_list = list(same)
        for start in range(0, len(same_list), together):
            yield same_list[start : start + together]


def _start(worker: Worker, folder: Path, options: argparse.Namespace) -> None:
    case = worker.case
    boundary = {"boundary": "raw"} if case.backend == LITERAL else {}
    weights = stand_ins.weights_for(case.network, folder, **boundary)
    frames = _frames(case.source, folder, options)
    if case.backend in FOR_ONNX:
        try:
            weights = stand_ins.exported(weights, case.input, folder)
        except (RuntimeError, ValueError) as error:  # no exporter is installed, or it does not know this network
            worker.problem = describe(error)
            return
    worker.start(weights, frames)


def _frames(source: tuple[int, int], folder: Path, options: argparse.Namespace) -> Path:
    width, height = source
    path = folder / f"frames-{width}x{height}.npy"
    if not path.exists():
        if options.images:
            frames = stand_ins.folder_frames(options.images, width, height, FRAMES)
        else:
            frames = stand_ins.street_frames(width, height, FRAMES)
        np.save(path, frames)
    return path


def _row(worker: Worker, times: Times, baseline: Times, peak: machine.Machine) -> tables.Row:
    case = worker.case
    height, width = case.input
    row: tables.Row = {
        "network": f"{case.network}, released" if case.backend == LITERAL else case.network,
        "precision": worker.precision,
        "backend": case.backend,
        "source": f"{case.source[0]}x{case.source[1]}",
        "input": f"{width}x{height}",
        "batch": case.batch,
        "device": case.device,
        "threads": case.threads,
    }
    if worker.problem or not times.calls:
        return {**row, "problem": worker.problem}
    p50, p95, p99 = 1e3 * np.percentile(times.calls, [50, 95, 99])
    stages = np.median(times.stages, 0)
    cost = flops.cost(case.network, height, width)
    pixels = case.batch * case.source[0] * case.source[1]
    floor = cost.floor(peak, worker.precision, images=case.batch, read=3 * pixels, written=3 * pixels)
    frames_per_second = times.frames_per_second(case.batch)
    return {
        **row,
        "calls": len(times.calls),
        "frames_per_second": frames_per_second,
        "ratio": frames_per_second / baseline.frames_per_second(1),
        "frames_per_camera": frames_per_second / case.batch,
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "preprocess_ms": float(1e3 * stages[0]),
        "network_ms": float(1e3 * stages[1]),
        "postprocess_ms": float(1e3 * stages[2]),
        "memory_mb": times.memory / 1e6 if times.memory else None,
        "gflop": cost.flop / 1e9,
        "share_of_peak": float(case.batch * cost.flop / stages[1] / peak.peak(worker.precision)),
        "share_of_bandwidth": float(case.batch * cost.traffic(worker.precision) / stages[1] / peak.bandwidth),
        "floor_ms": 1e3 * floor,
        "foreground": float(np.mean(times.foreground)),
    }


def _over_one_camera(rows: list[tables.Row]) -> None:
    """Set each row's frames/s over those of the same with one camera, where that was measured."""
    same = ("network", "precision", "backend", "source", "input")
    single = {tuple(row[key] for key in same): row for row in rows if row["batch"] == 1}
    for row in rows:
        one = single.get(tuple(row[key] for key in same), {}).get("frames_per_second")
        if one and "frames_per_second" in row:
            row["over_one_camera"] = row["frames_per_second"] / one


# --- options -----------------------------------------------------------------------------------------------------


def _cases(options: argparse.Namespace) -> list[Case]:
    device = choose_device(options.device)
    possible = possible_precisions(device)
    usual = possible if options.all else ("float32", possible[0])
    precisions = options.precisions or [name for name in PRECISIONS if name in usual]
    networks = options.networks or (list(zoo.NAMES) if options.all else ["fast-mobilenetv2", "fast-resnet18"])
    here = [name for name in BACKENDS if name != "tensorrt" or device.type == "cuda"]
    backends = options.backends or (here if options.all else ["pytorch"])
    batches = options.cameras or options.batches or ([1, 2, 4] if options.all else [1])
    heights = options.heights or ([256, 512] if options.all else [256])
    return [
        Case(network, backend, precision, batch, source, height, str(device), options.threads)
        for source, height, network, backend, precision, batch in itertools.product(
            options.source, heights, networks, backends, precisions, batches
        )
        if backend not in FOR_ONNX or precision in ("auto", "float32")  # an exported network has numbers of its own
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Lists are written with commas.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--networks", type=tables.words, help="default: fast-mobilenetv2,fast-resnet18")
    parser.add_argument("--precisions", type=tables.words, help="default: float32 and the device's own choice")
    parser.add_argument("--backends", type=tables.words, help=f"of {', '.join(BACKENDS)}; default: pytorch")
    parser.add_argument("--batches", type=tables.numbers, help="images per call; default: 1")
    parser.add_argument("--heights", type=tables.numbers, help="at which the network runs; default: 256")
    parser.add_argument("--all", action="store_true", help="the whole matrix where no list is given")
    parser.add_argument("--cameras", type=tables.numbers, help="instead of --batches: scaling over so many cameras")
    parser.add_argument(
        "--source", type=tables.sizes, default="1920x1080", help="WxH of the images (default: %(default)s)"
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="photos in place of the synthetic street")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=int, help="of the CPU; default: PyTorch's own choice")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each row (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each row (default: %(default)s)")
    parser.add_argument(
        "--together",
        type=int,
        default=6,
        metavar="ROWS",
        help="that are measured in the same rounds, each a process; they are printed together (default: %(default)s)",
    )
    tables.add_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = [name for name in options.networks or () if name not in zoo.NAMES]
    unknown += [name for name in options.backends or () if name not in BACKENDS]
    if unknown:
        parser.error(f"unknown {', '.join(unknown)}; known are {', '.join((*zoo.NAMES, *BACKENDS))}")
    cases = _cases(options)
    if not cases:
        parser.error("nothing to measure: ONNX Runtime computes in float32")
    if options.threads:
        torch.set_num_threads(options.threads)
    peak = machine.measure(cases[0].device)
    where = f"{peak.name}, {peak.threads} threads" if peak.device == "cpu" else peak.name
    name, columns, notes = ("cameras", CAMERA_COLUMNS, CAMERA_NOTES) if options.cameras else ("engine", COLUMNS, NOTES)
    title = f"{name.capitalize()}, host image in to host masks out, on {where}"
    table = tables.Table(f"{name} {peak.device}", title, columns)
    table.notes = (*measure(cases, options, peak, table), *notes)
    if options.cameras:
        _over_one_camera(table.rows)
    tables.report(options, peak.table(), table, peak=peak.facts())


if __name__ == "__main__":
    main()
