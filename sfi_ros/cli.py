"""`sfi`: the engine without ROS.

sfi run SOURCE... -o OUT images, folders, videos, bags or the synthetic street -> masks, class maps, overlays, summary
sfi bag IN... -o OUT     a rosbag2 -> a rosbag2 with the results, at the stamps of its images
sfi info WEIGHTS         what a checkpoint is
sfi convert IN OUT       a checkpoint of the authors' released code -> one of ours
sfi export IN -o OUT     a checkpoint -> an ONNX file or a torch.export program, for runtimes that know nothing of us
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sfi_ros import __version__
from sfi_ros.export.exporter import MAX_SIDE, export_onnx, export_program
from sfi_ros.frames.bags import is_bag
from sfi_ros.frames.sources import UNSEEN_SEED, Frame, ImageSource, Source, Unreadable, open_source
from sfi_ros.inference import DefaultWeightsMissing, InferenceEngine
from sfi_ros.inference.onnx_network import read_exported
from sfi_ros.inference.processor import available_cores
from sfi_ros.network import checkpoint
from sfi_ros.network.released import import_released
from sfi_ros.offline.bags import infer_bag
from sfi_ros.offline.prefetch import READ_AHEAD, ahead
from sfi_ros.offline.recorder import Recorder
from sfi_ros.offline.sharding import Shard, SharedFolder, device_of_process, output_folders
from sfi_ros.options import BACKENDS

INTERRUPTED = 130  # the shell's number for a run that Ctrl-C ended
MOST_ENCODERS = 8  # threads
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
        "and summary.json; of several sources, into a folder in OUT each.",
    )
    run.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="image, folder of images, video, rosbag2, or 'synthetic'"
    )
    run.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the results")
    _add_engine_options(run)
    run.add_argument("--seed", type=int, default=UNSEEN_SEED, help="of the synthetic street (default: %(default)s)")
    run.set_defaults(command=_run)

    bag = commands.add_parser(
        "bag",
        help="infer the camera of a rosbag2 into a new one",
        description="Writes /inpaint/foreground_mask, /inpaint/background and /inpaint/background_confidence with the "
        "stamps of the images. Needs no ROS installation.",
        usage="%(prog)s [options] IN OUT\n       %(prog)s [options] IN [IN ...] -o OUT",
    )
    bag.add_argument("sources", nargs="+", metavar="IN", help="rosbag2 (sqlite3 or MCAP) or ROS 1 bag")
    bag.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="folder of the new bag, or of the new bags if IN are several"
    )
    bag.add_argument("--topic", help="image topic; default: the only one")
    bag.add_argument("--overlay", action="store_true", help="write /inpaint/overlay, too")
    _add_engine_options(bag)
    bag.set_defaults(command=_bag)

    info = commands.add_parser("info", help="say what a checkpoint or an exported .onnx is")
    info.add_argument("weights", type=Path, metavar="WEIGHTS")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(command=_info)

    convert = commands.add_parser("convert", help="import a checkpoint of the authors' released code")
    convert.add_argument("released", type=Path, metavar="IN", help="released checkpoint (.pth.tar)")
    convert.add_argument("output", type=Path, metavar="OUT", help="checkpoint to write (.safetensors)")
    convert.add_argument("--name", help="which network it is; default: told from its parameters")
    convert.set_defaults(command=_convert)

    export = commands.add_parser(
        "export",
        help="write a checkpoint's network as ONNX or as a torch.export program",
        description="One graph: image (N, 3, h, w) uint8 RGB in; foreground (N, 1, h, w) and background (N, 3, h, w) "
        "float32 logits out; normalisation and inpainting inside. The file is compared with PyTorch before it is kept. "
        "Takes about a minute. See docs/export.md.",
    )
    export.add_argument("weights", type=Path, metavar="WEIGHTS", help="checkpoint (.safetensors)")
    export.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="file: .onnx, or .pt2")
    export.add_argument("--format", choices=("onnx", "torch-export"), default="onnx", help="default: %(default)s")
    export.add_argument("--input-height", type=_positive, metavar="PIXELS", help="height of the images it is meant for")
    sizes = export.add_mutually_exclusive_group()
    sizes.add_argument("--size", type=_size, metavar="HxW", help="take images of one size only, such as 256x512")
    sizes.add_argument("--dynamic", action="store_true", help="take images of any size (this is the default)")
    export.add_argument(
        "--max-side",
        type=_positive,
        default=MAX_SIDE,
        metavar="PIXELS",
        help="longest side of images of any size (default: %(default)s)",
    )
    export.set_defaults(command=_export)
    return parser


def _add_engine_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--weights", type=Path, help="checkpoint or exported .onnx; default: the one that ships")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    command.add_argument("--precision", default="auto", help="auto, float32, float16 or bfloat16 (default: auto)")
    command.add_argument("--backend", default="auto", help=f"{', '.join(BACKENDS)} (default: auto)")
    command.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="CPU threads of the network; default: all cores but one, which is left to reading and writing",
    )
    command.add_argument("--input-height", type=int, metavar="PIXELS", help="height at which the network runs")
    command.add_argument("--size", choices=("input", "network"), default="input", help="size of the results")
    command.add_argument("--limit", type=_positive, metavar="N", help="stop after N frames of a source")
    command.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="do the share of process I of N, such as 3/16; torchrun's processes know theirs (docs/offline.md)",
    )


def _engine(arguments: argparse.Namespace) -> InferenceEngine:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DefaultWeightsMissing)
        engine = InferenceEngine.load(
            arguments.weights,
            device=device_of_process(arguments.device),
            precision=arguments.precision,
            backend=arguments.backend,
            threads=arguments.threads or _network_threads(),
            input_height=arguments.input_height,
            output_size=arguments.size,
        )
    for warning in caught:
        console.print(f"[bold yellow]warning:[/] {warning.message}", highlight=False, soft_wrap=True)
    return engine


def _network_threads() -> int:
    """All cores but one, which is left to reading and writing; no more than OMP_NUM_THREADS, which torchrun sets."""
    return max(1, min(torch.get_num_threads(), available_cores() - 1))


def _each_source(arguments: argparse.Namespace, work: Callable[[str, Path, Shard, bool], int]) -> int:
    """Calls `work` with every source, its output, the shard that this process is, and whether it takes whole sources.

    A source that fails does not keep others from theirs.
    """
    shard = arguments.shard or Shard.of_environment()
    sources, status = arguments.sources, 0
    for index, (source, output) in enumerate(zip(sources, output_folders(sources, arguments.output), strict=True)):
        try:
            if work(source, output, shard, shard.takes(index)) == INTERRUPTED:
                return INTERRUPTED
        except (ValueError, RuntimeError, OSError) as error:  # noqa: PERF203
            if len(sources) == 1:
                raise
            console.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
            status = 1
    return status


def _run(arguments: argparse.Namespace) -> int:
    engine = _engine(arguments)

    def work(source: str, output: Path, shard: Shard, is_mine: bool) -> int:
        # A folder is divided, but not a first look at it: how many of its images can be read, no shard knows.
        if shard.count > 1 and Path(source).is_dir() and not is_bag(source) and arguments.limit is None:
            return _run_part(arguments, engine, source, SharedFolder(output, shard))
        if not is_mine:
            return 0
        opened = open_source(source, seed=arguments.seed)
        summary = _record(arguments, engine, opened, source, output)
        _require_frames(summary, source)
        _print_summary(summary, output)
        return INTERRUPTED if summary["interrupted"] else 0

    return _each_source(arguments, work)


def _run_part(arguments: argparse.Namespace, engine: InferenceEngine, source: str, shared: SharedFolder) -> int:
    whole = open_source(source)
    assert isinstance(whole, ImageSource)
    bounds = shared.shard.part(whole.length)
    part = whole.part(bounds.start, bounds.stop)
    summary = _record(arguments, engine, part, source, shared.part)
    if summary["interrupted"]:
        console.print(f"interrupted: run shard {shared.shard} of {source} again", highlight=False, soft_wrap=True)
        return INTERRUPTED
    console.print(f"shard {shared.shard} of {source}: {summary['frames']} frames", highlight=False, soft_wrap=True)
    settings = {key: summary[key] for key in ("source", "weights", "network", "precision", "backend", "input_height")}
    merged = shared.finish(whole.names, part.rate, **settings, size=arguments.size, images=whole.length)
    if merged is not None:
        _require_frames(merged, source)
        console.print(f"{merged['frames']} frames; results in {shared.output}", highlight=False, soft_wrap=True)
    return 0


def _record(
    arguments: argparse.Namespace, engine: InferenceEngine, source: Source, name: str, output: Path
) -> dict[str, Any]:
    """Infers a source into a folder; returns the summary."""
    limit = arguments.limit or (SYNTHETIC_FRAMES if source.length is None else None)
    recorder = Recorder(output, source.rate, min(arguments.threads or available_cores(), MOST_ENCODERS))
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
    return recorder.close(
        source=name,
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


def _require_frames(summary: dict[str, Any], source: str) -> None:
    if summary["frames"] == 0 and not summary["interrupted"]:
        raise ValueError(f"{source} gave no readable frame ({len(summary['skipped'])} unreadable)")


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
    if arguments.output is None:
        if len(arguments.sources) != 2:
            raise ValueError("where the new bags shall go is not clear: sfi bag IN OUT, or sfi bag IN... -o OUT")
        *arguments.sources, output = arguments.sources
        arguments.output = Path(output)
    engine = _engine(arguments)

    def work(source: str, output: Path, _: Shard, is_mine: bool) -> int:
        if is_mine:
            _infer_bag(arguments, engine, source, output)
        return 0

    return _each_source(arguments, work)


def _infer_bag(arguments: argparse.Namespace, engine: InferenceEngine, source: str, output: Path) -> None:
    if len(arguments.sources) > 1 and (output / "metadata.yaml").is_file():
        console.print(f"{source}: {output} is there already", highlight=False, soft_wrap=True)
        return  # so that the same command goes on where it was stopped
    with Progress(*_COLUMNS, console=console) as progress:
        task = progress.add_task("")
        summary = infer_bag(
            source,
            output,
            engine,
            topic=arguments.topic,
            with_overlay=arguments.overlay,
            limit=arguments.limit,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    for reason in summary.rejected:
        console.print(f"[yellow]skipped[/] {reason}", highlight=False, soft_wrap=True)
    if summary.frames == 0:
        raise ValueError(f"{source} gave no readable image on {summary.topic}")
    console.print(f"{summary.frames} images of {summary.topic}; results in {output}", soft_wrap=True)


def _progress(source: Source, limit: int | None) -> Iterator[Frame | Unreadable]:
    """The frames of a source, at most `limit` of them, with a progress bar."""
    total = min(filter(None, (limit, source.length)), default=None)
    with Progress(*_COLUMNS, console=console) as progress:
        task = progress.add_task("", total=total)
        given = 0
        for frame in ahead(source, READ_AHEAD):
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
    facts = _facts(arguments.weights)
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    table = Table(title=str(arguments.weights), show_header=False)
    for name, value in facts.items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        table.add_row(name, text)
    Console().print(table)
    return 0


def _facts(weights: Path) -> dict[str, Any]:
    """The metadata of a checkpoint or an exported file; loading it proves that the file is whole."""
    if weights.suffix != ".onnx":
        return asdict(checkpoint.load(weights).metadata)
    metadata, record = read_exported(weights)
    return asdict(metadata) | {"exported": asdict(record)}


def _convert(arguments: argparse.Namespace) -> int:
    network = import_released(arguments.released, arguments.name)
    checkpoint.save(
        arguments.output,
        network,
        training_data="as the authors released it; see their repository",
        extra={"imported_from": arguments.released.name},
    )
    console.print(f"{arguments.released} is {network.name}; written to {arguments.output}", soft_wrap=True)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    write = export_onnx if arguments.format == "onnx" else export_program
    exported = write(
        arguments.weights,
        arguments.output,
        input_height=arguments.input_height,
        size=arguments.size,
        max_side=arguments.max_side,
    )
    console.print(f"{exported.path} written", highlight=False, soft_wrap=True)
    if exported.difference is None:
        console.print("[bold yellow]warning:[/] not checked: onnxruntime is not installed", soft_wrap=True)
    else:
        console.print(f"largest difference of a logit from PyTorch's: {exported.difference:.1e}", highlight=False)
    return 0


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH, such as 256x512, not {text}")
    return int(height), int(width)


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
