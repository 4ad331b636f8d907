"""How much memory a process has, as Linux counts it; 0 elsewhere."""

from __future__ import annotations

from pathlib import Path


def resident(process: int | str = "self") -> int:
    """Bytes that are in memory now."""
    return _bytes("status", "VmRSS", process)


def proportional(process: int | str = "self") -> int:
    """Bytes that are in memory now; of what several processes share, libraries above all, each has its part."""
    return _bytes("smaps_rollup", "Pss", process)


def private(process: int | str = "self") -> int:
    """Bytes that are in memory now and not mapped from files, which other processes could share."""
    return _bytes("status", "RssAnon", process)


def peak_resident() -> int:
    """Bytes that were in memory at most. (getrusage would count the parent's in a child.)"""
    return _bytes("status", "VmHWM", "self")


def _bytes(file: str, name: str, process: int | str) -> int:
    path = Path(f"/proc/{process}/{file}")
    if not path.exists():
        return 0
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name}:")) * 1024
