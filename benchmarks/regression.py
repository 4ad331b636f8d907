"""Whether speed was lost: frames/s over the released network, beside what is kept for processors of this kind.

    .venv/bin/python benchmarks/regression.py           # half a minute on two idle cores; `make regression`, and in CI
    .venv/bin/python benchmarks/regression.py --keep    # keeps what it finds, in benchmarks/reference/; commit that

Milliseconds of two machines say nothing about each other, and ratios of two kinds of processor little. So only ratios
are kept, from one machine of each kind. A report to be read, no verdict: idle machines of one kind differ, too. Options
of `benchmarks/engine.py` may follow.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import engine, tables
from benchmarks.workers import LITERAL
from sfi_ros.inference.processor import Processor, this_processor

REFERENCE = tables.ROOT / "benchmarks" / "reference"
MEASURED = ("--networks", "fast-mobilenetv2", "--seconds", "4", "--rounds", "3")
COLUMNS = (*(column for column in engine.COLUMNS if column.identity), tables.Column("ratio", "ratio", ".1f"))


def kind(processor: Processor) -> str:
    """Return what decides on the ratios, as in "avx512_bf16" or "avx2"."""
    return processor.instructions.lower() + ("_bf16" if processor.has_fast_bfloat16 else "")


def ratios(measured: Path) -> tables.Table:
    """Return the ratios of a JSON of `engine.py`, without the baseline's, which is 1."""
    found = json.loads(measured.read_text(encoding="utf-8"))["tables"]
    rows = next(table["rows"] for table in found if table["name"].startswith("engine"))
    ours = [{column.key: row.get(column.key) for column in COLUMNS} for row in rows if row["backend"] != LITERAL]
    return tables.Table("regression", "Frames/s over the released network in the same rounds", COLUMNS, ours)


def report(table: tables.Table, kept: Path) -> None:
    """Print ratios, and each over the kept one, if there are any."""
    tables.show(table)
    if kept.is_file():
        tables.compare(kept, table)
    else:
        print(f"\nNothing is kept for processors like this one: {kept} does not exist; --keep writes it.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and compare or keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="write benchmarks/reference/KIND.json")
    options, others = parser.parse_known_args(arguments)
    kept = REFERENCE / f"{kind(this_processor())}.json"
    with tempfile.TemporaryDirectory() as folder:
        measured = Path(folder) / "engine.json"
        engine.main([*MEASURED, *others, "--json", str(measured)])
        table = ratios(measured)
    if options.keep:
        tables.show(table)
        tables.write(kept, table)
    else:
        report(table, kept)


if __name__ == "__main__":
    main()
