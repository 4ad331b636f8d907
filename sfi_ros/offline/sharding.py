"""Offline work shared by processes that know nothing of each other but a number, on one machine or many.

Work is divided by file: of several sources each process takes every n-th one, and of a folder of images its own part.
Nobody communicates. What is needed in common, the results of a folder's parts put together, is done by whoever ends
last, which the file system tells. So any batch system will do, processes need not run at the same time, and one that
failed is simply started again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2

from sfi_ros.frames.sources import SYNTHETIC, SourceError
from sfi_ros.offline.recorder import SUMMARY, Recorder, RecorderError, check_folder

_TIMES: Final = ("frames_per_second", "latency_ms", "stages_ms_p50", "device")
"""What a summary says about the process that wrote it; it says nothing about a folder that several have shared."""


@dataclass(frozen=True)
class Shard:
    """One of several processes that share work.

    Attributes:
        number: its own, from 1.
        count: how many there are.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"a shard is a number from 1 to their count, such as 3/16; got {self}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads "3/16", the third of sixteen.

        Raises:
            ValueError: it reads otherwise.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None:
            raise ValueError(f"a shard reads NUMBER/COUNT, such as 3/16, not {text!r}")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of_environment(cls) -> Shard:
        """What torchrun says in RANK and WORLD_SIZE; the only shard where nobody says anything."""
        return cls(int(os.environ.get("RANK", 0)) + 1, int(os.environ.get("WORLD_SIZE", 1)))

    def takes(self, index: int) -> bool:
        """Whether the source with this number, from 0, is this shard's."""
        return index % self.count == self.number - 1

    def part(self, length: int) -> slice:
        """Its part of so many files: parts differ by one file at most, and follow each other."""
        return slice(length * (self.number - 1) // self.count, length * self.number // self.count)


def device_of_process(device: str) -> str:
    """The device that an option means in this process: under torchrun every process of a machine has its own GPU."""
    import torch

    gpus = torch.cuda.device_count()
    if device in ("auto", "cuda") and "LOCAL_RANK" in os.environ and gpus > 1:
        return f"cuda:{int(os.environ['LOCAL_RANK']) % gpus}"
    return device


def output_folders(sources: Sequence[str], output: Path) -> list[Path]:
    """Where the results of each source go: into `output` if there is only one, else into a folder in it.

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


class SharedFolder:
    """The results of one folder of images that several processes share.

    Each writes its own complete results into a folder beside `output`. Who finds that all others are done puts them
    together in `output` and removes the parts.

    Args:
        output: where the results shall be in the end.
        shard: this process.

    Raises:
        RecorderError: `output` holds files that no run of ours has written.
    """

    def __init__(self, output: Path, shard: Shard):
        check_folder(output)
        self.output, self.shard = output.resolve(), shard
        self._parts = self.output.with_name(self.output.name + ".parts")
        self._done(shard.number).unlink(missing_ok=True)
        with suppress(OSError):
            self._merging.rmdir()  # of a process that was stopped in it

    @property
    def part(self) -> Path:
        """Where this process writes its results."""
        return self._folder(self.shard.number)

    def finish(self, names: Iterable[str], rate: float, **settings: Any) -> dict[str, Any] | None:
        """Say that this part is done and, if all are, put them together.

        Args:
            names: of all images of the folder, in order.
            rate: of the video.
            settings: what must be the same for all parts.

        Returns:
            The summary of the whole, for who put it together.

        Raises:
            RecorderError: parts were made with other settings, or `output` cannot be written.
        """
        note = self._done(self.shard.number)
        partial = note.with_suffix(".partial")
        partial.write_text(json.dumps(settings), encoding="utf-8")
        partial.replace(note)
        numbers = range(1, self.shard.count + 1)
        try:
            notes = [self._done(number).read_text(encoding="utf-8") for number in numbers]
            self._merging.mkdir()  # one of two that end at the same time succeeds
        except (FileNotFoundError, FileExistsError):
            return None
        if len(set(notes)) > 1:
            self._merging.rmdir()
            raise RecorderError(f"parts of {self.output} were made with other settings: delete {self._parts}, run anew")
        summary = self._merge([self._folder(number) for number in numbers], names, rate)
        shutil.rmtree(self._parts)
        return summary

    @property
    def _merging(self) -> Path:
        return self._parts / "merging"

    def _folder(self, number: int) -> Path:
        return self._parts / f"{number}-of-{self.shard.count}"

    def _done(self, number: int) -> Path:
        return self._parts / f"{number}-of-{self.shard.count}.done"

    def _merge(self, parts: list[Path], names: Iterable[str], rate: float) -> dict[str, Any]:
        Recorder(self.output, rate)  # makes the folder ready, as for a run of its own
        for part in parts:
            for folder in (path for path in part.iterdir() if path.is_dir()):
                (self.output / folder.name).mkdir(exist_ok=True)
                for file in folder.iterdir():
                    shutil.move(file, self.output / folder.name / file.name)
        _write_video(self.output / "overlay.mp4", [self.output / "overlay" / f"{name}.jpg" for name in names], rate)
        summary = _merged([json.loads((part / SUMMARY).read_text(encoding="utf-8")) for part in parts])
        (self.output / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        return summary


def _merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Summaries as one; what concerns speed is kept by part."""
    frames = sum(part["frames"] for part in parts)
    shares = [part["frames"] * part["mean_foreground_share"] for part in parts if part["frames"]]
    summary = {key: value for key, value in parts[0].items() if key not in _TIMES}
    summary["frames"] = frames
    summary["skipped"] = [name for part in parts for name in part["skipped"]]
    summary["mean_foreground_share"] = sum(shares) / frames if frames else None
    summary["shards"] = [{key: part[key] for key in ("frames", *_TIMES)} for part in parts]
    return summary


def _write_video(path: Path, pictures: Iterable[Path], rate: float) -> None:
    """Pictures that exist, at the size of the first one."""
    video = None
    for picture in (cv2.imread(str(file)) for file in pictures if file.is_file()):
        if video is None:
            size = (picture.shape[1], picture.shape[0])
            video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        if (picture.shape[1], picture.shape[0]) != size:
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        video.write(picture)
    if video is not None:
        video.release()
