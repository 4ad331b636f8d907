"""What all benchmark scripts do with their numbers: print them, keep them as JSON, compare them with kept ones.

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # in a script, before the next line
    from benchmarks import tables

    parser = argparse.ArgumentParser(...)
    tables.add_options(parser)  # --json FILE, --compare FILE
    arguments = parser.parse_args()
    table = tables.Table("mpi", "MPI on a CPU", (tables.Column("size", "features", identity=True),
                                                 tables.Column("fast_ms", "fast ms", ".2f")))
    table.rows.append({"size": "512x64x128", "fast_ms": 18.4})
    tables.report(arguments, table)

Tables print as Markdown, so that they can be pasted into docs/performance.md as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import rich.box
import rich.table
import torch
from rich.console import Console
from rich.markup import escape

from sfi_ros.inference.processor import this_processor
from sfi_ros.inference.threads import available_cores

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "opencv-python", "onnxruntime", "triton")

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: under which rows hold its value; a row may lack it or hold None.
        title: what stands above it.
        format: how a number is written, as in an f-string: ".1f", ".0%", "".
        identity: whether it tells rows apart; all others are measured, and compared where they are numbers.
    """

    key: str
    title: str
    format: str = ""
    identity: bool = False

    def text(self, row: Row) -> str:
        """Return the value of a row as it is printed."""
        value = row.get(self.key)
        if value is None:
            return "-"
        return format(value, self.format) if isinstance(value, int | float) else str(value)


@dataclass
class Table:
    """Rows of numbers.

    Attributes:
        name: what it is, unique within a script: tables of the same name are compared.
        title: what stands above it.
        columns: which values of a row are printed; JSON keeps them all.
        rows: dictionaries of what JSON knows.
        notes: sentences that stand below it.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: list[Row] = field(default_factory=list)
    notes: Sequence[str] = ()

    def identity(self, row: Row) -> tuple[str, ...]:
        """Return what tells this row from others."""
        return tuple(str(row.get(column.key)) for column in self.columns if column.identity)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --json and --compare."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything here")
    parser.add_argument("--compare", type=_saved, metavar="FILE", help="JSON of another run: print new / old by rows")


def add(arguments: argparse.Namespace, table: Table, row: Row, **facts: Any) -> None:
    """Add a row, print it on standard error, and write what there is so far: whoever stops this run keeps it.

    Args:
        arguments: parsed options.
        table: to add to.
        row: see `Table.rows`.
        facts: see `report`.
    """
    table.rows.append(row)
    values = [f"{column.title} {column.text(row)}" for column in table.columns if row.get(column.key) is not None]
    print(f"{table.name}: {', '.join(values)}", file=sys.stderr, flush=True)
    if arguments.json:
        write(arguments.json, table, **facts)


def report(arguments: argparse.Namespace, *tables: Table, **facts: Any) -> None:
    """Print tables and the machine, and write and compare them as the options of `add_options` say.

    Args:
        arguments: parsed options.
        tables: what to report.
        facts: what else JSON should keep.

    Raises:
        SystemExit: see `compare`; everything else was done by then.
    """
    for table in tables:
        show(table)
    _console().print(f"\n{escape(_measured_on())}", highlight=False)
    if arguments.json:
        write(arguments.json, *tables, **facts)
    if arguments.compare:
        compare(arguments.compare, *tables)


def show(table: Table) -> None:
    """Print one table."""
    _print(table.title, [column.title for column in table.columns], _texts(table), _identities(table.columns))
    for note in table.notes:
        _console().print(escape(note), highlight=False)


def write(path: Path, *tables: Table, **facts: Any) -> None:
    """Write tables as JSON, with the machine, versions, commit, command and date."""
    content = {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        **facts,
        "tables": [{"name": table.name, "title": table.title, "rows": table.rows} for table in tables],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def compare(path: Path, *tables: Table) -> None:
    """Print, for each table that the JSON at `path` has, too, each measured number over its old value.

    Raises:
        SystemExit: no such file, or it was not written by `write`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        old_tables = {table["name"]: table["rows"] for table in content["tables"]}
        origin = f"{path} ({content['commit']}, {content['date']}, {content['machine']['processor']})"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"cannot compare with {path}: {error!r}; it must be a JSON that --json wrote") from error
    for table in tables:
        if table.name not in old_tables:
            _console().print(escape(f"{path} has no table {table.name!r}"), highlight=False)
            continue
        old = {table.identity(row): row for row in old_tables[table.name]}
        texts = [_ratios(table, row, old.pop(table.identity(row), None)) for row in table.rows]
        texts += [[*identity, "only in the old run"] for identity in old]
        columns = [c for c in table.columns if c.identity] + [c for c in table.columns if not c.identity]
        _print(f"new / old: {table.name} against {origin}", [c.title for c in columns], texts, _identities(columns))


def machine() -> dict[str, Any]:
    """Return what this computer is, and how busy it was."""
    return {
        "processor": str(this_processor()),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Python and the packages that decide how fast it is, as far as they are installed."""
    installed = {package.name: package.version for package in metadata.distributions()}
    return {"python": platform.python_version(), **{name: installed[name] for name in PACKAGES if name in installed}}


def _measured_on() -> str:
    found = machine()
    devices = [f"{found['processor']}, {found['cores']} core(s), {found['threads']} thread(s)", *found["gpus"]]
    return f"On {'; '.join(devices)}; PyTorch {torch.__version__}"


def commit() -> str:
    """Return the commit of the working tree, with "-dirty" where it was changed since; "unknown" outside git."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def numbers(text: str) -> list[int]:
    """Return the numbers of an option such as 1,2,4, for argparse's `type`."""
    values = [int(part) for part in text.split(",")]
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"numbers must be 1 or more, not {text}")
    return values


def sizes(text: str) -> list[tuple[int, int]]:
    """Return the (width, height) of an option such as 1920x1080,2160x1080, for argparse's `type`."""
    return [(int(width), int(height)) for width, _, height in (part.partition("x") for part in text.split(","))]


def words(text: str) -> list[str]:
    """Return the words of an option such as float32,bfloat16, for argparse's `type`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _saved(text: str) -> Path:
    """Return a file that exists: better to hear of it before a long measurement than behind it."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text} does not exist; --json of another run writes such a file")
    return Path(text)


def _ratios(table: Table, new: Row, old: Row | None) -> list[str]:
    texts = [column.text(new) for column in table.columns if column.identity]
    if old is None:
        return [*texts, "only in the new run"]
    for column in table.columns:
        if not column.identity:
            before, after = old.get(column.key), new.get(column.key)
            both = isinstance(before, int | float) and isinstance(after, int | float) and before
            texts.append(f"{after / before:.2f}x" if both else "-")
    return texts


def _texts(table: Table) -> list[list[str]]:
    return [[column.text(row) for column in table.columns] for row in table.rows]


def _identities(columns: Iterable[Column]) -> list[bool]:
    return [column.identity for column in columns]


def _print(title: str, heads: list[str], rows: list[list[str]], identities: list[bool]) -> None:
    console = _console()
    printed = rich.table.Table(box=rich.box.MARKDOWN)
    for head, identity in zip(heads, identities, strict=True):
        printed.add_column(escape(head), justify="left" if identity else "right", no_wrap=True)
    for row in rows:
        printed.add_row(*map(escape, row))
    console.print(f"\n{escape(title)}", highlight=False)
    console.print(printed)


def _console() -> Console:
    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else 240, soft_wrap=not terminal)
