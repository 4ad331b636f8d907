"""How much memory this process has, as Linux counts it; 0 elsewhere."""

from __future__ import annotations

from pathlib import Path


def resident() -> int:
    """Bytes that are in memory now."""
    return _status("VmRSS")


def peak_resident() -> int:
    """Bytes that were in memory at most. (getrusage would count the parent's in a child.)"""
    return _status("VmHWM")


def _status(name: str) -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name)) * 1024
