"""`sfi`: the engine without ROS.

sfi run SOURCE... -o OUT images, folders, videos, bags or the synthetic street -> masks, class maps, overlays, summary
sfi bag IN... -o OUT     a rosbag2 -> a rosbag2 with the results, at the stamps of its images
sfi map DRIVE -o OUT     a recording with odometry, or the synthetic street -> a map of its ground; report; labels
sfi info WEIGHTS         what a checkpoint is
sfi weights              the weights that ship, and whether their files are whole
sfi convert IN OUT       a checkpoint of the authors' released code -> one of ours
sfi export IN -o OUT     a checkpoint -> an ONNX file or a torch.export program, for runtimes that know nothing of us

PyTorch is imported where a command needs it: `sfi run` and `sfi bag` do without where they run an exported file.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sfi_ros import __version__
from sfi_ros.errors import MissingFileError, OptionError, SfiError
from sfi_ros.frames.limits import MAX_SIGNIFICANT_BITS
from sfi_ros.frames.sources import UNSEEN_SEED
from sfi_ros.geometry.calibration import Calibration
from sfi_ros.geometry.ground import GroundGrid
from sfi_ros.geometry.ground_table import KERB_HEIGHT
from sfi_ros.geometry.pose import CameraPose
from sfi_ros.inference import DefaultWeightsMissing, InferenceEngine
from sfi_ros.inference.onnx_network import read_exported
from sfi_ros.inference.threads import available_cores
from sfi_ros.network.shipped_weights import CHECKSUMS, find_weights, shipped_files
from sfi_ros.offline import fleet
from sfi_ros.offline.bag import USUAL_OUTPUTS, BagRun
from sfi_ros.offline.drive import DriveOptions
from sfi_ros.offline.engine_options import EngineOptions
from sfi_ros.offline.layouts import LayoutOptions
from sfi_ros.offline.map import MapRun
from sfi_ros.offline.places import output_folders
from sfi_ros.offline.run import Run
from sfi_ros.offline.stopping import StopSignals
from sfi_ros.offline.summary import SUMMARY, RunSummary
from sfi_ros.offline.task import Report, Task
from sfi_ros.optional import require_pytorch
from sfi_ros.options import BACKENDS, MAX_EXPORT_SIDE, STORED
from sfi_ros.outputs import OUTPUTS, OVERLAY

MAX_ENCODERS = 8  # threads

_COLUMNS = (TextColumn("frames"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

console = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 1 for an error that was named, 130 or 143 when interrupted."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_path=False, show_time=False)],
        force=True,
    )
    with StopSignals() as signals:
        try:
            return parsed.command(parsed, signals)
        except SfiError as error:
            _say(str(error), "error:", "bold red")
            return 1
        except KeyboardInterrupt:
            _say("interrupted; the same command goes on where it was" if "sources" in parsed else "interrupted")
            return signals.status


def _say(text: str, label: str = "", style: str = "") -> None:
    """Print a line to stderr as it is: names may hold what rich takes for markup, and control characters."""
    console.print(Text.assemble((label, style), " " * bool(label), _printable(text)), soft_wrap=True)


def _printable(text: str) -> str:
    """Return a text that does to a terminal what it says and nothing else."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


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
    run.add_argument("--topic", help="image topic of a recording; default: the only one")
    run.add_argument(
        "--outputs",
        type=_outputs,
        default=(),
        metavar="NAME,...",
        help=f"outputs that get a folder, too: {', '.join(output.name for output in OUTPUTS)}",
    )
    _add_layout_options(run, "write the ground of each frame in metres, too: layout/NAME.png, .npz, .pgm and .yaml")
    _add_engine_options(run)
    run.add_argument("--seed", type=int, default=UNSEEN_SEED, help="of the synthetic street (default: %(default)s)")
    run.set_defaults(command=_run)

    bag = commands.add_parser(
        "bag",
        help="infer the cameras of a rosbag2 into a new one",
        description="Writes foreground_mask, background, background_confidence, camera_info and label_info for each "
        "camera, with the stamps of its images: those of /front/image_raw as /front/inpaint/foreground_mask and so on. "
        "Needs no ROS installation.",
        usage="%(prog)s [options] IN OUT\n       %(prog)s [options] IN [IN ...] -o OUT",
    )
    bag.add_argument("sources", nargs="+", metavar="IN", help="rosbag2 (sqlite3 or MCAP) or ROS 1 bag")
    bag.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="folder of the new bag, or of the new bags if IN are several"
    )
    topics = bag.add_mutually_exclusive_group()
    topics.add_argument(
        "--topic", action="append", default=[], help="image topic, may be given several times; default: the only one"
    )
    topics.add_argument("--all-topics", action="store_true", help="all image topics")
    bag.add_argument(
        "--outputs",
        type=_outputs,
        default=USUAL_OUTPUTS,
        metavar="NAME,...",
        help=f"outputs to write, of {', '.join(output.name for output in OUTPUTS)}; default: {','.join(USUAL_OUTPUTS)}",
    )
    bag.add_argument("--overlay", action="store_true", help="write .../inpaint/overlay, too")
    bag.add_argument(
        "--compress",
        action="store_true",
        help="write images as sensor_msgs/CompressedImage: PNG, and JPEG for overlays",
    )
    _add_layout_options(bag, "write the ground of each image, too: .../inpaint/layout and layout_objects")
    _add_engine_options(bag)
    bag.set_defaults(command=_bag)

    _add_map(commands)

    info = commands.add_parser("info", help="say what a checkpoint or an exported .onnx is")
    info.add_argument("weights", type=Path, metavar="WEIGHTS")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(command=_info)

    weights = commands.add_parser("weights", help="list the weights that ship, and check their files")
    weights.set_defaults(command=_weights)

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
        default=MAX_EXPORT_SIDE,
        metavar="PIXELS",
        help="longest side of images of any size (default: %(default)s)",
    )
    export.add_argument(
        "--stored",
        choices=STORED,
        default="float32",
        help="numbers that the weights are stored in; computed is in float32 (default: %(default)s)",
    )
    export.set_defaults(command=_export)
    return parser


def _add_map(commands: Any) -> None:
    command = commands.add_parser(
        "map",
        help="map the ground of a drive, and learn from what it shows later",
        description="Fuses the ground of all frames in the frame of the odometry. Writes map.pgm and map.yaml for "
        "map_server, map.png, map.npz and summary.json. See docs/map.md.",
    )
    command.add_argument(
        "source", metavar="DRIVE", help="rosbag2 or ROS 1 bag with images and nav_msgs/Odometry, or 'synthetic'"
    )
    command.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the map")
    command.add_argument(
        "--report",
        action="store_true",
        help="write agreement.json and agreement.html: how often what was inferred behind objects was seen later",
    )
    command.add_argument(
        "--labels",
        type=Path,
        metavar="FOLDER",
        help="write a dataset of the frames, with what lies behind objects as other frames showed it",
    )
    _add_ground_options(command)
    command.add_argument("--topic", help="image topic of a recording; default: the only one")
    command.add_argument("--odometry", metavar="TOPIC", help="of nav_msgs/Odometry; default: the only one")
    command.add_argument(
        "--spacing", type=float, default=0.5, metavar="M", help="metres from frame to frame (default: %(default)s)"
    )
    command.add_argument(
        "--noise",
        type=_noise,
        default=(0.0, 0.0),
        metavar="PERCENT,DEGREES",
        help="add noise to the odometry: per cent of the way and degrees per metre, 1,0.1 say",
    )
    command.add_argument(
        "--height", type=_positive, default=256, metavar="PIXELS", help="of images of the synthetic street"
    )
    command.add_argument("--seed", type=int, default=UNSEEN_SEED, help="of the synthetic street and of the noise")
    _add_engine_choice(command)
    _add_significant_bits(command)
    command.add_argument("--limit", type=_positive, metavar="N", help="stop after N frames")
    command.add_argument("--overwrite", action="store_true", help="replace the results of another run")
    command.set_defaults(command=_map, size="input")


def _add_layout_options(command: argparse.ArgumentParser, does: str) -> None:
    layout = command.add_argument_group(
        "the ground in metres", "needs the camera's calibration and pose: docs/layout.md"
    )
    layout.add_argument("--layout", action="store_true", help=does)
    _add_ground_options(layout)


def _add_ground_options(layout: Any) -> None:
    layout.add_argument(
        "--camera",
        type=_camera_pose,
        metavar="height=M,...",
        help="where the camera is on the vehicle: height, x, y in metres, pitch (down), roll, yaw (left) in radians",
    )
    layout.add_argument("--calibration", type=Path, metavar="YAML", help="of camera_calibration; default: camera_info")
    layout.add_argument(
        "--grid",
        type=_grid,
        default=GroundGrid(),
        metavar="X,X,Y,Y,CELL",
        help="from and to forwards, from and to leftwards, side of a cell, metres (default: 0,40,-15,15,0.1)",
    )
    layout.add_argument(
        "--kerb-height", type=float, default=KERB_HEIGHT, metavar="M", help="of sidewalks (default: %(default)s)"
    )
    layout.add_argument(
        "--own-vehicle",
        default="",
        metavar="IMAGE",
        help="not black where the camera sees its own vehicle; or corners in pixels: '0,719 640,650 1279,719'",
    )
    layout.add_argument("--rectified", action="store_true", help="the images were rectified already")


def _add_significant_bits(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--significant-bits",
        type=_significant_bits,
        default=MAX_SIGNIFICANT_BITS,
        metavar="N",
        help="of the values of 16-bit images, 8 to 16: 12 for a 12-bit camera that does not shift them (default: 16)",
    )


def _add_engine_options(command: argparse.ArgumentParser) -> None:
    _add_engine_choice(command)
    command.add_argument("--size", choices=("input", "network"), default="input", help="size of the results")
    _add_significant_bits(command)
    command.add_argument("--limit", type=_positive, metavar="N", help="stop after N frames of a source")
    command.add_argument(
        "--overwrite", action="store_true", help="replace the results of a run with another source or other settings"
    )
    command.add_argument(
        "--ray",
        nargs="?",
        const=fleet.LOCAL,
        type=_ray_address,
        metavar="ADDRESS",
        help="share the work between the machines of a Ray cluster (HOST:PORT, ray://HOST:PORT or auto) or, without "
        "ADDRESS, between processes of this machine (docs/offline.md)",
    )
    command.add_argument("--shard", action=_Shard, help=argparse.SUPPRESS)


def _add_engine_choice(command: argparse.ArgumentParser) -> None:
    command.add_argument("--weights", type=Path, help="checkpoint, exported .onnx, or a name that `sfi weights` lists")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    command.add_argument("--precision", default="auto", help="auto, float32, float16 or bfloat16 (default: auto)")
    command.add_argument("--backend", default="auto", help=f"{', '.join(BACKENDS)} (default: auto)")
    command.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="CPU threads of the network; default: all cores but one, left to reading and writing; with --ray 1",
    )
    command.add_argument("--input-height", type=int, metavar="PIXELS", help="height at which the network runs")


class _Shard(argparse.Action):
    """Says what came instead of an option that is gone."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error("--shard is gone: --ray shares the work, and goes on after lost machines (docs/offline.md)")


def _ray_address(text: str) -> str:
    if text in (fleet.LOCAL, "auto") or re.fullmatch(r"(ray://)?[^\s/]+:\d+", text):
        return text
    raise argparse.ArgumentTypeError(
        f"{text} is not an address, such as 10.0.0.1:6379; without one put --ray behind the sources"
    )


def _layout_options(arguments: argparse.Namespace) -> LayoutOptions | None:
    options = _ground_options(arguments)
    if arguments.layout:
        return options
    if options != LayoutOptions():
        raise OptionError(
            "camera, calibration, grid and the others of the ground in metres say nothing without --layout"
        )
    return None


def _ground_options(arguments: argparse.Namespace) -> LayoutOptions:
    return LayoutOptions(
        None if arguments.calibration is None else Calibration.from_yaml(arguments.calibration),
        arguments.camera,
        arguments.grid,
        arguments.kerb_height,
        arguments.own_vehicle,
        arguments.rectified,
    )


def _run(arguments: argparse.Namespace, signals: StopSignals) -> int:
    return _work(arguments, _tasks(arguments, Run, seed=arguments.seed, topic=arguments.topic), signals)


def _bag(arguments: argparse.Namespace, signals: StopSignals) -> int:
    if arguments.output is None:
        if len(arguments.sources) != 2:
            raise OptionError("where the new bags shall go is not clear: sfi bag IN OUT, or sfi bag IN... -o OUT")
        *arguments.sources, output = arguments.sources
        arguments.output = Path(output)
    if arguments.overlay and OVERLAY.name not in arguments.outputs:
        arguments.outputs = [*arguments.outputs, OVERLAY.name]
    topics = tuple(arguments.topic)
    own = {"topics": topics, "all_topics": arguments.all_topics, "compress": arguments.compress}
    return _work(arguments, _tasks(arguments, BagRun, **own), signals)


def _tasks(arguments: argparse.Namespace, kind: type[Task], **own: Any) -> list[Task]:
    """Return a task for each source; `own` are the settings that only this kind has."""
    folders = output_folders(arguments.sources, arguments.output)
    common = {
        "limit": arguments.limit,
        "overwrite": arguments.overwrite,
        "weights_digest": _engine_options(arguments).weights_digest(),
        "significant_bits": arguments.significant_bits,
        "outputs": tuple(dict.fromkeys(arguments.outputs)),
        "layout": _layout_options(arguments),
    }
    return [kind(source, folder, **common, **own) for source, folder in zip(arguments.sources, folders, strict=True)]


def _map(arguments: argparse.Namespace, signals: StopSignals) -> int:
    run = MapRun(
        arguments.source,
        arguments.output,
        DriveOptions(
            spacing=arguments.spacing,
            limit=arguments.limit,
            noise=arguments.noise,
            seed=arguments.seed,
            height=arguments.height,
            topic=arguments.topic,
            odometry=arguments.odometry,
            significant_bits=arguments.significant_bits,
        ),
        _ground_options(arguments),
        report=arguments.report,
        labels=arguments.labels,
        overwrite=arguments.overwrite,
        weights_digest=_engine_options(arguments).weights_digest(),
    )
    engine = _engine(arguments)
    with _progress() as progress, signals.deferred():
        summary = run.run(engine, Report(progress, _print_skipped, signals))
    _say(f"{summary['frames']} frames, {summary['metres_driven']} m, {summary['frames_per_second']:.1f} frames/s")
    if summary["later_seen_cells"]:
        _say(
            f"{summary['later_seen_cells']} cells were inferred behind an object and seen later; "
            f"{100 * summary['later_seen_agreement']:.1f} % were what had been inferred"
        )
    if summary["labels"] is not None:
        hidden, shown = summary["labels"]["hidden"], sum(summary["labels"]["shown"].values())
        _say(f"labels: {arguments.labels}; {100 * shown / max(hidden, 1):.0f} % of the hidden pixels were shown")
    _say(f"results in {arguments.output}")
    lost = _print_lost(arguments.source, summary["lost"])
    return signals.status if summary["interrupted"] else lost


def _work(arguments: argparse.Namespace, tasks: Sequence[Task], signals: StopSignals) -> int:
    """Do all tasks; one that fails does not keep the others from being done. Return the exit status."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise OptionError("torchrun starts processes that would all do the same work: `sfi ... --ray` shares it")
    status = (_work_on_cluster if arguments.ray else _work_here)(arguments, tasks, signals)
    if signals():
        _say("interrupted; what was written until then is complete, and the same command goes on where it was")
        return signals.status
    return status


def _work_here(arguments: argparse.Namespace, tasks: Sequence[Task], signals: StopSignals) -> int:
    engine = _engine(arguments)
    threads = min(arguments.threads or available_cores(), MAX_ENCODERS)
    status = 0
    for task in tasks:
        try:
            with _progress() as progress, signals.deferred():
                summary = task.infer(engine, threads=threads, report=Report(progress, _print_skipped, signals))
            status |= _print_summary(summary, task.output)
        except SfiError as error:
            _say(str(error), "error:", "bold red")
            status = 1
        except Exception:
            if len(tasks) == 1:
                raise
            _say(f"{task.source}:\n{traceback.format_exc()}", "error:", "bold red")
            status = 1
        if signals():
            break
    return status


def _work_on_cluster(arguments: argparse.Namespace, tasks: Sequence[Task], signals: StopSignals) -> int:
    status = 0
    with _progress() as progress, signals.deferred():
        report = Report(progress, stopped=signals)
        for outcome in fleet.work(tasks, _engine_options(arguments), arguments.ray, report):
            for name, reason in outcome.skipped:
                _print_skipped(name, reason)
            if outcome.summary is None:
                _say(outcome.error, "error:", "bold red")
                status = 1
            else:
                status |= _print_summary(outcome.summary, outcome.task.output)
    return status


def _engine_options(arguments: argparse.Namespace) -> EngineOptions:
    return EngineOptions(
        weights=arguments.weights,
        device=arguments.device,
        precision=arguments.precision,
        backend=arguments.backend,
        threads=arguments.threads,
        input_height=arguments.input_height,
        size=arguments.size,
    )


def _engine(arguments: argparse.Namespace) -> InferenceEngine:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DefaultWeightsMissing)
        engine = _engine_options(arguments).load()
    for warning in caught:
        _say(str(warning.message), "warning:", "bold yellow")
    return engine


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar once there is something to tell; yields what tells it the frames done and their number."""
    progress = Progress(*_COLUMNS, console=console)
    bar = progress.add_task("", total=None)  # which rich takes for 100 otherwise

    def tell(done: int, total: int | None) -> None:
        progress.start()
        progress.update(bar, completed=done, total=total)

    try:
        yield tell
    finally:
        if progress.live.is_started:
            progress.stop()


def _print_skipped(name: str, reason: str) -> None:
    _say(f"{name}: {reason}", "skipped", "yellow")


def _print_lost(source: str, files: Sequence[str]) -> int:
    """Name the files that a recording lacks; return the exit status."""
    if files:
        lost = ", ".join(files)
        _say(f"{source}: results are without what cannot be read of {lost}; {SUMMARY} says why", "error:", "bold red")
    return int(bool(files))


def _print_summary(summary: RunSummary, output: Path) -> int:
    """Tell what was done; return the exit status."""
    if summary.resumed == summary.frames > 0 and not summary.interrupted:
        _say(f"{summary.source}: {output} is there already, {summary.frames} frames")
        return _print_lost(summary.source, summary.lost)
    frames = f"images of {', '.join(summary.topics)}" if summary.topics else "frames"
    before = f" ({summary.resumed} done before)" if summary.resumed else ""
    _say(
        f"{summary.frames} {frames}{before}, {summary.frames_per_second:.1f} frames/s with reading and writing, engine "
        f"{summary.latency_ms['p50'] or 0:.1f} ms median on {summary.device} ({summary.precision})"
    )
    _say(f"weights: {summary.weights}")
    for topic, results in summary.topics.items():
        _say(f"{topic} -> {results}/...")
    if summary.skipped:
        _say(f"{len(summary.skipped)} skipped; {SUMMARY} says which and why")
    for name, score in summary.scores.items():
        if score is not None:
            _say(f"{name}: {score:.3f}")
    _say(f"results in {output}")
    return _print_lost(summary.source, summary.lost)


def _info(arguments: argparse.Namespace, _: StopSignals) -> int:
    facts = _facts(find_weights(arguments.weights))
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    table = Table(title=Text(_printable(str(arguments.weights))), show_header=False)
    for name, value in facts.items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        table.add_row(Text(_printable(name)), Text(_printable(text)))
    Console().print(table)
    return 0


def _facts(weights: Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint or an exported file; loading it proves that the file is whole."""
    if weights.suffix != ".onnx":
        require_pytorch(f"to look into the checkpoint {weights}")
        from sfi_ros.network import checkpoint

        return asdict(checkpoint.load(weights).metadata)
    metadata, record = read_exported(weights)
    return asdict(metadata) | {"exported": asdict(record)}


def _weights(arguments: argparse.Namespace, _: StopSignals) -> int:
    files = shipped_files()
    if not files:
        raise MissingFileError(f"the list of the weights that ship is missing: {CHECKSUMS}; install sfi_ros again")
    table = Table("name", "file", "MB", "state")
    states = []
    for file in files:
        states.append(file.state())
        size = f"{file.path.stat().st_size / 1e6:.1f}" if file.path.is_file() else "-"
        table.add_row(file.name, Text(_printable(str(file.path))), size, states[-1])
    Console().print(table)
    return 1 if "changed" in states else 0


def _convert(arguments: argparse.Namespace, _: StopSignals) -> int:
    require_pytorch("`sfi convert`")
    from sfi_ros.network import checkpoint
    from sfi_ros.network.released import import_released

    network = import_released(arguments.released, arguments.name)
    checkpoint.save(
        arguments.output,
        network,
        training_data="as the authors released it; see their repository",
        extra={"imported_from": arguments.released.name},
    )
    _say(f"{arguments.released} is {network.name}; written to {arguments.output}")
    return 0


def _export(arguments: argparse.Namespace, _: StopSignals) -> int:
    require_pytorch("`sfi export`")
    from sfi_ros.export.exporter import export_onnx, export_program

    write = export_onnx if arguments.format == "onnx" else export_program
    exported = write(
        find_weights(arguments.weights),
        arguments.output,
        input_height=arguments.input_height,
        size=arguments.size,
        max_side=arguments.max_side,
        stored=arguments.stored,
    )
    _say(f"{exported.path} written")
    if exported.difference is None:
        _say("not checked: onnxruntime is not installed", "warning:", "bold yellow")
    else:
        _say(f"largest difference of a logit from PyTorch's: {exported.difference:.1e}")
    return 0


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH, such as 256x512, not {text}")
    return int(height), int(width)


def _outputs(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    known = [output.name for output in OUTPUTS]
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"unknown output {name!r}; outputs are {', '.join(known)}")
    return names


def _camera_pose(text: str) -> CameraPose:
    try:
        values = dict(part.split("=") for part in text.split(","))
        return CameraPose(**{name.strip(): float(value) for name, value in values.items()})
    except (TypeError, ValueError) as error:
        reason = f": {error}" if isinstance(error, OptionError) else ""
        raise argparse.ArgumentTypeError(
            f"must be as height=1.5,pitch=0.03,x=1.7 (also y, roll, yaw), not {text}{reason}"
        ) from error


def _grid(text: str) -> GroundGrid:
    try:
        x_min, x_max, y_min, y_max, resolution = map(float, text.split(","))
        return GroundGrid(x_min, x_max, y_min, y_max, resolution)
    except ValueError as error:
        reason = f": {error}" if isinstance(error, OptionError) else ""
        raise argparse.ArgumentTypeError(f"must be as 0,40,-15,15,0.1, not {text}{reason}") from error


def _noise(text: str) -> tuple[float, float]:
    try:
        percent, degrees = map(float, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be PERCENT,DEGREES such as 1,0.1, not {text}") from error
    if not (0 <= percent <= 100 and 0 <= degrees <= 90):
        raise argparse.ArgumentTypeError(f"must be from 0 to 100 % and 0 to 90 degrees per metre, not {text}")
    return percent / 100, math.radians(degrees)


def _significant_bits(text: str) -> int:
    if text not in map(str, range(8, MAX_SIGNIFICANT_BITS + 1)):
        raise argparse.ArgumentTypeError(f"must be 8 to {MAX_SIGNIFICANT_BITS}, not {text}")
    return int(text)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
