"""What a vehicle pays before the first frame: with PyTorch, and with ONNX Runtime only.

    .venv/bin/python benchmarks/footprint.py
    .venv/bin/python benchmarks/footprint.py --exported sfi_ros/weights/default.onnx --repeats 9

Each row is one runtime with the weights that ship, on the CPU. "Installed" are the files of the packages that the extra
asks for, of what these ask for, and of our own, as far as they lie in this environment; ROS, which both need, is left
out. "Import" is what a process needs to import what computes. "Active" is from the start of a real node process until
it logs that it is active, "resident" what it has in memory then, and "after frames" what it has after some seconds of
1920x1080 frames at 10 Hz, Fast DDS's shared memory among it; "private" is the part that no other process could share.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks import memory, stand_ins, tables
from sfi_ros.export.exporter import export_onnx
from sfi_ros.inference import DEFAULT_WEIGHTS
from sfi_ros.ros.dds import VARIABLES, profile_environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

IMPORTS = {
    "torch": "import sfi_ros.inference.from_checkpoint",
    "light": "import sfi_ros.inference.from_export, onnxruntime",
}
PATIENCE = 120.0  # seconds for a node to become active
RATE = 10  # frames/s

COLUMNS = (
    tables.Column("runtime", "extra", identity=True),
    tables.Column("weights", "weights", identity=True),
    tables.Column("installed_mb", "installed MB", ",.0f"),
    tables.Column("import_s", "import s", ".2f"),
    tables.Column("active_s", "start to active s", ".2f"),
    tables.Column("cpu_s", "CPU s until then", ".2f"),
    tables.Column("resident_mb", "resident MB", ",.0f"),
    tables.Column("private_mb", "of it private", ",.0f"),
    tables.Column("frames_resident_mb", "after frames MB", ",.0f"),
    tables.Column("frames_private_mb", "of it private", ",.0f"),
)
NOTES = (
    "Medians; MB are 10^6 bytes. The environment has both runtimes, and a node imports the one that its weights need.",
)


def installed_bytes(extra: str) -> int:
    """Bytes of all that `pip install sfi_ros[extra]` brings, as far as it is installed here."""
    project = tomllib.loads((tables.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [*map(Requirement, [*project["dependencies"], *project["optional-dependencies"][extra]])]
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            with contextlib.suppress(metadata.PackageNotFoundError):
                lines = metadata.requires(name) or []
                found.add(name)
                others = map(Requirement, lines)
                waiting += [o for o in others if o.marker is None or o.marker.evaluate({"extra": wanted})]
    return sum(map(_bytes_of, found)) + _our_bytes()


def _bytes_of(name: str) -> int:
    files = metadata.distribution(name).files or []
    return sum(path.stat().st_size for file in files if (path := Path(str(file.locate()))).is_file())


def _our_bytes() -> int:
    """Of the checkout: an editable installation has no files of its own."""
    return sum(file.stat().st_size for file in (tables.ROOT / "sfi_ros").rglob("*") if file.is_file())


def import_seconds(runtime: str) -> float:
    """Seconds that a new process takes to import what computes."""
    code = f"import time; began = time.perf_counter(); {IMPORTS[runtime]}; print(time.perf_counter() - began)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def cpu_seconds(process: int) -> float:
    """Seconds of processors' time that a process has had: what a busy machine changes least."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def node(weights: Path, seconds: float, picture: Path, folder: Path) -> dict[str, float]:
    """Start a node, wait until it is active, give it frames for so many seconds, and look at its memory."""
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES} | profile_environment()
    environment |= {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    settings = ["-p", f"weights:={weights}", "-p", "device:=cpu", "-p", "lazy:=false", "-r", "image:=/bench/image"]
    log = folder / "node.log"
    with _process("-m", "sfi_ros.ros.inpaint_node", "--ros-args", *settings, environment=environment, log=log) as found:
        process, began = found
        while "active: camera" not in (said := log.read_text()):
            if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                raise SystemExit(f"the node did not become active:\n{said}")
            time.sleep(0.01)
        active, cpu = time.perf_counter() - began, cpu_seconds(process.pid)
        at_first = _memory_of(process.pid)
        ends = str(Path(__file__).with_name("ros_ends.py"))
        camera = ("camera", "/bench/image", str(PATIENCE), str(picture), str(RATE), str(seconds))
        with _process(ends, *camera, environment=environment, log=folder / "camera.log") as (sender, _):
            sender.wait(PATIENCE + 10 * seconds)
        later = _memory_of(process.pid)
    return {"active_s": active, "cpu_s": cpu, **at_first, **{f"frames_{key}": value for key, value in later.items()}}


def _memory_of(process: int) -> dict[str, float]:
    return {"resident_mb": memory.resident(process) / 1e6, "private_mb": memory.private(process) / 1e6}


@contextlib.contextmanager
def _process(*command: str, environment: dict[str, str], log: Path) -> Iterator[tuple[subprocess.Popen, float]]:
    """Return a Python process and when it was started; it is ended in the end."""
    with log.open("w") as out:
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield process, began
    finally:
        process.terminate()
        process.wait(30)


def measure(runtime: str, weights: Path, options: argparse.Namespace, folder: Path) -> tables.Row:
    """One row."""
    row: tables.Row = {
        "runtime": runtime,
        "weights": weights.name,
        "installed_mb": installed_bytes(runtime) / 1e6,
        "import_s": statistics.median(import_seconds(runtime) for _ in range(options.repeats)),
    }
    picture = folder / "picture.npy"
    np.save(picture, stand_ins.street_frames(*options.source, 1)[0])
    runs = [node(weights, options.seconds, picture, folder) for _ in range(options.repeats)]
    return row | {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exported", type=Path, help=".onnx file; default: made of the shipped weights, half a minute")
    parser.add_argument("--runtimes", type=tables.words, default=list(IMPORTS), help="default: torch,light")
    parser.add_argument("--repeats", type=int, default=5, help="processes per number (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="of frames before memory is looked at")
    parser.add_argument(
        "--source", type=lambda text: tables.sizes(text)[0], default=(1920, 1080), help="WxH of the frames"
    )
    tables.add_options(parser)
    options = parser.parse_args(arguments)
    table = tables.Table("footprint", "What a vehicle pays before the first frame", COLUMNS, notes=NOTES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = {"torch": DEFAULT_WEIGHTS}
        if "light" in options.runtimes:
            weights["light"] = (
                options.exported or export_onnx(DEFAULT_WEIGHTS, folder / "default.onnx", stored="float16").path
            )
        for runtime in options.runtimes:
            tables.add(options, table, measure(runtime, weights[runtime], options, folder))
    tables.report(options, table)


if __name__ == "__main__":
    main()
