"""Names of files, which on Linux are bytes and need not be text."""

from __future__ import annotations

import os


def printable(path: str | os.PathLike[str]) -> str:
    r"""Return a path as text that can be printed: bytes that are not UTF-8, which Linux allows in names, as \xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
