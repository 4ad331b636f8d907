"""Errors that their reader can mend: the message names the file, topic or option, what is wrong, and the remedy.

`sfi` and the training commands show an `SfiError` as one line. Every other exception is a defect of this package or of
something below it, and keeps its traceback.

    SfiError
    ├── OptionError (ValueError)            an option that is unknown, out of range or at odds with another
    ├── UnavailableError (RuntimeError)     a device, package or download that was asked for and is not there
    ├── MissingFileError (FileNotFoundError)
    ├── ImageError (ValueError)             an image that cannot be decoded or processed
    └── one class beside each function that reads or writes something of its own: `CheckpointError`, `ExportError`, ...

Each is also the built-in exception that a caller would expect, so `except ValueError` keeps its meaning.
"""

from __future__ import annotations


class SfiError(Exception):
    """Base of all errors that a user can mend."""


class OptionError(SfiError, ValueError):
    """An option that is unknown, out of range, or at odds with another one."""


class UnavailableError(SfiError, RuntimeError):
    """Something that was asked for and is not there: a device, a package, a compiler, a download.

    It is never replaced by something else in silence.
    """


class MissingFileError(SfiError, FileNotFoundError):
    """A file or folder that was named and does not exist."""


class ImageError(SfiError, ValueError):
    """An image that cannot be decoded or processed; the message names what is wrong with it."""


def shown(value: object) -> str:
    """Return a value from outside as it may stand in a message: short, on one line, printable."""
    if not isinstance(value, str):
        value = repr(value)
    printable = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in value[:200])
    return printable if len(value) <= 200 else f"{printable}..."
