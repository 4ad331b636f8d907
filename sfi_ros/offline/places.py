"""Where the results of several sources go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sfi_ros.frames.sources import SYNTHETIC, SourceError


def output_folders(sources: Sequence[str], output: Path) -> list[Path]:
    """Return the folder for the results of each source: `output` if there is only one, else a folder in it.

    That is named by the source's path below the folder that all sources have in common, without a file's suffix
    unless only that tells it from another.

    Raises:
        SourceError: a source is given twice, or a folder would lie in another.
    """
    if len(sources) == 1:
        return [output]
    paths = [Path(source) if source == SYNTHETIC else Path(os.path.abspath(source)) for source in sources]  # noqa: PTH100 - links stay
    real = [path for path in paths if path.is_absolute()]
    common = Path(os.path.commonpath([path.parent for path in real])) if real else Path()
    names = [path.relative_to(common) if path.is_absolute() else path for path in paths]
    short = [name if path.is_dir() else name.with_suffix("") for name, path in zip(names, paths, strict=True)]
    names = [one if short.count(one) == 1 else name for one, name in zip(short, names, strict=True)]
    for source, name in zip(sources, names, strict=True):
        if names.count(name) > 1:
            raise SourceError(f"{source} is given more than once")
        if any(name in other.parents for other in names):
            raise SourceError(f"the results of {source} would lie around those of another source: give them apart")
    return [output / name for name in names]
