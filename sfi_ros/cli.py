"""`sfi`: the engine without ROS.

sfi run SOURCE -o OUT    images, folders, videos, bags or the synthetic street -> masks, class maps, overlays, summary
sfi bag IN OUT           a rosbag2 -> a rosbag2 with the results, at the stamps of its images
sfi info WEIGHTS         what a checkpoint is
sfi convert IN OUT       a checkpoint of the authors' released code -> one of ours
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sfi_ros import __version__
from sfi_ros.bags import BagSource, infer_bag, is_bag
from sfi_ros.inference import BACKENDS, DefaultWeightsMissing, InferenceEngine
from sfi_ros.network import checkpoint
from sfi_ros.recorder import Recorder
from sfi_ros.sources import UNSEEN_SEED, Frame, Source, Unreadable, open_source

INTERRUPTED = 130  # the shell's number for a run that Ctrl-C ended
SYNTHETIC_FRAMES = 100  # the street has no end; without --limit a run does

_COLUMNS = (TextColumn("frames"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

console = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for an error that was named, 130 when interrupted."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_path=False, show_time=False)],
        force=True,
    )
    try:
        return parsed.command(parsed)
    except (ValueError, RuntimeError, OSError) as error:
        console.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sfi", description="Semantic foreground inpainting: what moves, and what lies behind it."
    )
    parser.add_argument("--version", action="version", version=f"sfi_ros {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="infer images, a folder, a video, a bag or the synthetic street",
        description="Writes foreground/ (0 or 255), background/ (0 road, 1 sidewalk, 2 other), overlay/, overlay.mp4 "
        "and summary.json.",
    )
    run.add_argument("source", metavar="SOURCE", help="image, folder of images, video, rosbag2, or 'synthetic'")
    run.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the results")
    _add_engine_options(run)
    run.add_argument("--seed", type=int, default=UNSEEN_SEED, help="of the synthetic street (default: %(default)s)")
    run.set_defaults(command=_run)

    bag = commands.add_parser(
        "bag",
        help="infer the camera of a rosbag2 into a new one",
        description="Writes /inpaint/foreground_mask, /inpaint/background and /inpaint/background_confidence with the "
        "stamps of the images. Needs no ROS installation.",
    )
    bag.add_argument("source", type=Path, metavar="IN", help="rosbag2 folder (sqlite3 or MCAP) or ROS 1 bag")
    bag.add_argument("output", type=Path, metavar="OUT", help="folder of the new bag")
    bag.add_argument("--topic", help="image topic; default: the only one")
    bag.add_argument("--overlay", action="store_true", help="write /inpaint/overlay, too")
    _add_engine_options(bag)
    bag.set_defaults(command=_bag)

    info = commands.add_parser("info", help="say what a checkpoint is")
    info.add_argument("weights", type=Path, metavar="WEIGHTS")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(command=_info)

    convert = commands.add_parser("convert", help="import a checkpoint of the authors' released code")
    convert.add_argument("released", type=Path, metavar="IN", help="released checkpoint (.pth.tar)")
    convert.add_argument("output", type=Path, metavar="OUT", help="checkpoint to write (.safetensors)")
    convert.add_argument("--name", help="which network it is; default: told from its parameters")
    convert.set_defaults(command=_convert)
    return parser


def _add_engine_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--weights", type=Path, help="checkpoint or exported .onnx; default: the one that ships")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    command.add_argument("--precision", default="auto", help="auto, float32, float16 or bfloat16 (default: auto)")
    command.add_argument("--backend", default="auto", help=f"{', '.join(BACKENDS)} (default: auto)")
    command.add_argument("--threads", type=_positive, metavar="N", help="CPU threads; default: as many as cores")
    command.add_argument("--input-height", type=int, metavar="PIXELS", help="height at which the network runs")
    command.add_argument("--size", choices=("input", "network"), default="input", help="size of the results")
    command.add_argument("--limit", type=_positive, metavar="N", help="stop after N frames")


def _engine(arguments: argparse.Namespace) -> InferenceEngine:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DefaultWeightsMissing)
        engine = InferenceEngine.load(
            arguments.weights,
            device=arguments.device,
            precision=arguments.precision,
            backend=arguments.backend,
            threads=arguments.threads,
            input_height=arguments.input_height,
            output_size=arguments.size,
        )
    for warning in caught:
        console.print(f"[bold yellow]warning:[/] {warning.message}", highlight=False, soft_wrap=True)
    return engine


def _run(arguments: argparse.Namespace) -> int:
    path = arguments.source
    source = BagSource(path) if is_bag(path) else open_source(path, seed=arguments.seed)
    engine = _engine(arguments)
    limit = arguments.limit or (SYNTHETIC_FRAMES if source.length is None else None)
    recorder = Recorder(arguments.output, source.rate)
    skipped: list[str] = []
    with _ctrl_c_noted() as interrupted:
        for frame in _progress(source, limit):
            if isinstance(frame, Unreadable):
                skipped.append(frame.name)
                console.print(f"[yellow]skipped[/] {frame.name}: {frame.reason}", highlight=False, soft_wrap=True)
            else:
                recorder.add(frame, engine(frame.image))
            if interrupted.is_set():
                break
    summary = recorder.close(
        source=str(arguments.source),
        skipped=skipped,
        interrupted=interrupted.is_set(),
        weights=engine.weights_name,
        trained=engine.is_trained,
        network=engine.metadata.name,
        device=str(engine.device),
        precision=str(engine.dtype).removeprefix("torch."),
        backend=engine.backend,
        input_height=engine.input_height,
    )
    if summary["frames"] == 0 and not interrupted.is_set():
        raise ValueError(f"{arguments.source} gave no readable frame ({len(skipped)} unreadable)")
    _print_summary(summary, arguments.output)
    return INTERRUPTED if interrupted.is_set() else 0


@contextmanager
def _ctrl_c_noted() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that the frame at hand is written whole; a second one interrupts at once."""
    noted = threading.Event()

    def note(*_: object) -> None:
        if noted.is_set():
            raise KeyboardInterrupt
        noted.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def _bag(arguments: argparse.Namespace) -> int:
    with Progress(*_COLUMNS, console=console) as progress:
        task = progress.add_task("")
        summary = infer_bag(
            arguments.source,
            arguments.output,
            _engine(arguments),
            topic=arguments.topic,
            with_overlay=arguments.overlay,
            limit=arguments.limit,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    for reason in summary.rejected:
        console.print(f"[yellow]skipped[/] {reason}", highlight=False, soft_wrap=True)
    if summary.frames == 0:
        raise ValueError(f"{arguments.source} gave no readable image on {summary.topic}")
    console.print(f"{summary.frames} images of {summary.topic}; results in {arguments.output}", soft_wrap=True)
    return 0


def _progress(source: Source, limit: int | None) -> Iterator[Frame | Unreadable]:
    """The frames of a source, at most `limit` of them, with a progress bar."""
    total = min(filter(None, (limit, source.length)), default=None)
    with Progress(*_COLUMNS, console=console) as progress:
        task = progress.add_task("", total=total)
        given = 0
        for frame in source:
            yield frame
            given += isinstance(frame, Frame)
            progress.update(task, completed=given)
            if given == limit:
                break


def _print_summary(summary: dict, output: Path) -> None:
    lines = [
        f"{summary['frames']} frames, {summary['frames_per_second']:.1f} frames/s with reading and writing, engine "
        f"{summary['latency_ms']['p50'] or 0:.1f} ms median on {summary['device']} ({summary['precision']})",
        f"weights: {summary['weights']}",
    ]
    if summary["skipped"]:
        lines.append(f"{len(summary['skipped'])} frames could not be read")
    scores = ("all_region_miou", "foreground_region_miou", "foreground_mask_iou")
    lines += [f"{name}: {summary[name]:.3f}" for name in scores if summary.get(name) is not None]
    if summary["interrupted"]:
        lines.append("interrupted; what was written until then is complete")
    lines.append(f"results in {output}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _info(arguments: argparse.Namespace) -> int:
    metadata = checkpoint.load(arguments.weights).metadata  # loading it proves that the file is whole
    if arguments.json:
        print(json.dumps(asdict(metadata), indent=2))
        return 0
    table = Table(title=str(arguments.weights), show_header=False)
    for name, value in asdict(metadata).items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        table.add_row(name, text)
    Console().print(table)
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    network = checkpoint.import_released(arguments.released, arguments.name)
    checkpoint.save(
        arguments.output,
        network,
        training_data="as the authors released it; see their repository",
        extra={"imported_from": arguments.released.name},
    )
    console.print(f"{arguments.released} is {network.name}; written to {arguments.output}", soft_wrap=True)
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
