"""How many threads there are to compute with."""

from __future__ import annotations

import os
from pathlib import Path


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usual_threads() -> int:
    """Return how many threads a network gets where nobody says it: OMP_NUM_THREADS, or one for each physical core.

    That is what PyTorch takes, too.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, min(int(first), available_cores())) if first.isdigit() else _physical_cores()


def _physical_cores() -> int:
    """Return the cores that this process may use, two that share a core's units counted once."""
    cores = Path("/sys/devices/system/cpu")
    try:
        return len(
            {(cores / f"cpu{n}/topology/thread_siblings_list").read_text("ascii") for n in os.sched_getaffinity(0)}
        )
    except (OSError, AttributeError):  # not Linux
        return available_cores()
