"""Whose results a folder holds: `run.json` in it says which source and settings they were made with.

A command that was interrupted or killed goes on when it is called again with the same source and settings. With others
it is refused: results of two runs would be mixed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from sfi_ros import __version__
from sfi_ros.errors import SfiError
from sfi_ros.files import cannot_write, is_leftover, make_folder, write_json
from sfi_ros.frames.bag_storage import METADATA, STORAGE_SUFFIXES
from sfi_ros.frames.images import IMAGE_SUFFIXES
from sfi_ros.inference import InferenceEngine
from sfi_ros.offline.summary import SUMMARY

RUN: Final = "run.json"

_CONTENT: Final = (*IMAGE_SUFFIXES, *STORAGE_SUFFIXES, METADATA)  # of folders that are a source

Settings = dict[str, Any]
"""What must be the same for results to belong together: values that JSON has."""


class OutputError(SfiError, ValueError):
    """A folder that cannot take the results; the message says why and what would help."""


def engine_settings(engine: InferenceEngine, weights_digest: str) -> Settings:
    """Return what an engine's results depend on.

    Args:
        engine: the engine.
        weights_digest: of the weights' file; see `digest`.
    """
    return {
        "weights": f"{engine.weights_name} {weights_digest}".strip(),
        "network": engine.metadata.name,
        "device": engine.device.partition(":")[0],
        "precision": engine.precision,
        "backend": engine.backend,
        "input height": engine.input_height,
        "size": engine.output_size,
        "version of sfi_ros": __version__,
    }


def source_settings(source: str | Path) -> Settings:
    """Return what tells a source from others: its path, and the names, sizes and times of its files.

    Args:
        source: a file, or a folder of images or storage files; what does not exist is taken for a name.
    """
    path = Path(source)
    if not path.exists():
        return {"source": str(source)}
    files = [path]
    if path.is_dir():
        files = sorted(entry for entry in path.iterdir() if entry.name.lower().endswith(_CONTENT) and entry.is_file())
    listing = hashlib.sha256()
    for file in files:
        status = file.stat()
        listing.update(f"{os.fsencode(file.name)!r} {status.st_size} {status.st_mtime_ns}\n".encode())
    content = f"{len(files)} file{'s' * (len(files) != 1)}, {listing.hexdigest()[:16]}"
    return {"source": str(path.absolute()), "files of the source": content}


def digest(file: Path) -> str:
    """Return the first 16 hexadecimal digits of a file's SHA-256, "" where there is no file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else ""


def claim(
    folder: Path, made_by: str, settings: Settings, *, source: str | Path, results: Sequence[str], overwrite: bool
) -> bool:
    """Make a folder ready for the results of a run.

    Args:
        folder: made if it is not there.
        made_by: "sfi run" or "sfi bag".
        settings: what must be the same for a run to go on.
        source: must not lie in the folder.
        results: patterns of what such a run writes into the folder; with `overwrite` that is removed.
        overwrite: remove the results of another run.

    Returns:
        Whether results of the same run are there already.

    Raises:
        OutputError: the folder holds the source, other files, or results of another run.
        WriteError: it cannot be made.
    """
    content = [path for path in folder.iterdir() if not is_leftover(path)] if folder.is_dir() else []
    earlier = _earlier(folder, made_by)
    if content and earlier is None:
        raise OutputError(
            f"{folder} exists already and holds other files than results of `{made_by}`; name an empty or new folder"
        )
    _refuse_source(folder, source, results)
    if content and earlier != settings:
        if not overwrite:
            raise OutputError(
                f"{folder} exists already and holds results of another run ({_difference(earlier or {}, settings)}); "
                "name another folder, or give --overwrite to replace them"
            )
        _remove(folder, results)
    make_folder(folder)
    if earlier == settings:
        return True
    write_json(folder / RUN, {"made_by": made_by, "settings": settings})
    return False


def _earlier(folder: Path, made_by: str) -> Settings | None:
    """Return the settings of the run whose results a folder holds, None if it holds none."""
    for name in (RUN, SUMMARY):  # a summary alone comes from a version that wrote no run.json
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            if content["made_by"] == made_by:
                return dict(content.get("settings", {}))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):  # noqa: PERF203
            continue
    return None


def _difference(earlier: Settings, now: Settings) -> str:
    if not earlier:
        return "of an earlier version of sfi_ros, or of the demo"
    name = next(key for key in (*now, *earlier) if earlier.get(key) != now.get(key))
    return f"{name}: {_said(earlier.get(name))} then, {_said(now.get(name))} now"


def _said(value: Any) -> str:
    return "none" if value is None else str(value)


def _refuse_source(folder: Path, source: str | Path, results: Iterable[str]) -> None:
    """Refuse to write into the source, or to take results of a folder as the source of results in that folder."""
    path = Path(source)
    if not path.exists():
        return
    files = [entry for entry in path.iterdir() if entry.is_symlink()] if path.is_dir() else []
    inputs = {_target(path), *map(_target, files)}
    places = {_target(folder), *(_target(place) for pattern in results for place in folder.glob(pattern))}
    for place in places:
        if any(place == one or place in one.parents for one in inputs):
            raise OutputError(f"{source} lies in {folder}, where its results would go; name another folder for them")


def _target(path: Path) -> Path:
    """Follow links as far as they go; unlike `Path.resolve`, also where one leads back to itself."""
    return Path(os.path.realpath(path))


def _remove(folder: Path, results: Iterable[str]) -> None:
    """Remove what a run has written, and nothing else."""
    for path in {folder / RUN, folder / SUMMARY, *(path for pattern in results for path in folder.glob(pattern))}:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:  # noqa: PERF203
            raise cannot_write(path, error) from error
