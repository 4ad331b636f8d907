"""A rosbag2 that is written part by part, each a storage file that is either whole or not there.

rosbag2 keeps a recording in any number of storage files that `metadata.yaml` lists. Here each holds the results of so
many images, and what is known about it stands in a note beside it until the bag is complete. So a run that was killed
has lost one part at most, and several machines can write parts of one bag.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from sfi_ros.errors import SfiError
from sfi_ros.files import cannot_write, is_leftover, write_bytes, write_json
from sfi_ros.frames.bag_storage import rosbags_module
from sfi_ros.frames.names import plain_path

IMAGES_PER_PART: Final = 1000
"""Enough for long recordings to have few files, and few enough for little work to be lost."""

METADATA: Final = "metadata.yaml"
_UNFINISHED: Final = ".unfinished"
BAG_CONTENT: Final = ("*.db3", "*.mcap", METADATA, _UNFINISHED)
"""Patterns of what a bag's folder holds."""

_SCRATCH: Final = "part"  # rosbags takes the name of the bag for that of the file, and so may not see unusual ones
_INFORMATION: Final = "rosbag2_bagfile_information"


@dataclass
class Part:
    """What is known about one part of a bag.

    Attributes:
        complete: whether it holds all of its images.
        images: how many it was made from, from its first one on.
        frames: how many of them have results.
        skipped: name and reason of each of the others.
        foreground_share: summed up over the frames.
        information: what rosbag2 says about its storage file; None if it has none, being without messages.
    """

    complete: bool = False
    images: int = 0
    frames: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    foreground_share: float = 0.0
    information: dict[str, Any] | None = None


@dataclass(frozen=True)
class Topic:
    """A topic of the bag.

    Attributes:
        name, message_type: such as "/front/inpaint/background" and "sensor_msgs/msg/Image".
        latched: late subscribers get the last message, too.
    """

    name: str
    message_type: str
    latched: bool = False


class BagFolder:
    """The folder of a bag that is being written.

    Args:
        folder: exists.
        storage: "mcap" or "sqlite3".
        topics: of the bag.
        typestore: rosbags' types.
    """

    def __init__(self, folder: Path, storage: str, topics: Sequence[Topic], typestore: Any):
        self.folder, self._topics, self._typestore = folder, topics, typestore
        self._suffix = ".mcap" if storage == "mcap" else ".db3"
        self._notes = folder / _UNFINISHED

    def parts(self) -> dict[int, Part]:
        """Return the parts that are there, by their number."""
        parts = {}
        for note in sorted(path for path in self._notes.glob("*.json") if not is_leftover(path)):
            try:
                content = json.loads(note.read_text(encoding="utf-8"))
                part = Part(**{**content, "skipped": [tuple(item) for item in content["skipped"]]})
            except (ValueError, TypeError, KeyError):  # no note of this version: the part is made again
                continue
            if part.information is None or self._file(int(note.stem)).is_file():
                parts[int(note.stem)] = part
        return parts

    def writing(self, number: int, part: Part) -> PartWriter:
        """Return a context manager that writes a part, and keeps what it holds already; see `PartWriter`.

        Args:
            number: of the part, from 0.
            part: what it holds, changed while it is written.
        """
        return PartWriter(self._file(number), self._notes / f"{number}.json", part, self._topics, self._typestore)

    def write_metadata(self) -> None:
        """Write `metadata.yaml`, with which the parts that are there are a bag that can be opened.

        Raises:
            WriteError: it cannot be written.
        """
        import yaml

        known = [part.information for _, part in sorted(self.parts().items()) if part.information is not None]
        if known:
            text = yaml.safe_dump({_INFORMATION: _joined(known)}, sort_keys=False)
            write_bytes(self.folder / METADATA, text.encode())

    def is_whole(self) -> bool:
        """Whether all storage files that `metadata.yaml` lists are there."""
        import yaml

        try:
            information = yaml.safe_load((self.folder / METADATA).read_text(encoding="utf-8"))[_INFORMATION]
            return all((self.folder / name).is_file() for name in information["relative_file_paths"])
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            return False

    def finish(self) -> None:
        """Remove the notes: the bag is complete."""
        shutil.rmtree(self._notes, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self.folder / f"{self.folder.resolve().name}_{number}{self._suffix}"


class PartWriter:
    """Writes one part; a context manager. Its file appears, or is replaced, at the end, and not if the block raises.

    Raises:
        WriteError: from any method, that the part cannot be written.
    """

    def __init__(self, path: Path, note: Path, part: Part, topics: Sequence[Topic], typestore: Any):
        self._path, self._note, self._part, self._topics, self._typestore = path, note, part, topics, typestore
        self._scratch = note.with_name(secrets.token_hex(8))
        self._connections: dict[str, Any] = {}
        self._stack = ExitStack()
        self._writer: Any = None
        self._written = 0

    def write(self, topic: str, at: int, message: bytes) -> None:
        """Append a message, recorded at a time in nanoseconds."""
        with self._errors_named():
            self._writer.write(self._connections[topic], at, message)
        self._written += 1

    def __enter__(self) -> PartWriter:
        try:
            with self._errors_named():
                self._open()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._commit()
            elif self._writer is not None:
                self._writer.abort()
        finally:
            self._stack.close()
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _open(self) -> None:
        rosbag2 = rosbags_module("rosbag2")
        plugin = rosbag2.StoragePlugin.MCAP if self._path.suffix == ".mcap" else rosbag2.StoragePlugin.SQLITE3
        self._scratch.mkdir(parents=True)
        folder = self._stack.enter_context(plain_path(self._scratch))
        self._writer = rosbag2.Writer(folder / _SCRATCH, version=9, storage_plugin=plugin)
        self._writer.open()
        for topic in self._topics:
            self._connections[topic.name] = self._writer.add_connection(
                topic.name,
                topic.message_type,
                typestore=self._typestore,
                offered_qos_profiles=[_latched_qos()] if topic.latched else [],
            )
        if self._part.information is not None:  # what an earlier run has written
            with plain_path(self._path) as path, rosbag2.Reader(path) as reader:
                for connection, at, message in reader.messages():
                    self.write(connection.topic, at, message)

    def _commit(self) -> None:
        import yaml

        with self._errors_named():
            self._writer.close()
            if self._written:  # readers refuse an empty file
                written = self._scratch / _SCRATCH
                information = yaml.safe_load((written / METADATA).read_text(encoding="utf-8"))[_INFORMATION]
                information["relative_file_paths"] = [self._path.name]
                information["files"][0]["path"] = self._path.name
                self._part.information = information
                (written / f"{_SCRATCH}{self._path.suffix}").replace(self._path)
        write_json(self._note, asdict(self._part))

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise error if isinstance(error, SfiError) else cannot_write(self._path, error) from error


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what rosbag2 says about several storage files together."""
    starts = [part["starting_time"]["nanoseconds_since_epoch"] for part in parts]
    ends = [start + part["duration"]["nanoseconds"] for start, part in zip(starts, parts, strict=True)]
    counts = [[topic["message_count"] for topic in part["topics_with_message_count"]] for part in parts]
    topics = [
        {"topic_metadata": topic["topic_metadata"], "message_count": sum(numbers)}
        for topic, *numbers in zip(parts[0]["topics_with_message_count"], *counts, strict=True)
    ]
    return {
        **parts[0],
        "relative_file_paths": [path for part in parts for path in part["relative_file_paths"]],
        "duration": {"nanoseconds": max(ends) - min(starts)},
        "starting_time": {"nanoseconds_since_epoch": min(starts)},
        "message_count": sum(part["message_count"] for part in parts),
        "topics_with_message_count": topics,
        "files": [file for part in parts for file in part["files"]],
    }


def _latched_qos() -> Any:
    interfaces = rosbags_module("interfaces")
    forever = interfaces.QosTime(2147483647, 4294967295)
    return interfaces.Qos(
        history=interfaces.QosHistory.KEEP_LAST,
        depth=1,
        reliability=interfaces.QosReliability.RELIABLE,
        durability=interfaces.QosDurability.TRANSIENT_LOCAL,
        deadline=forever,
        lifespan=forever,
        liveliness=interfaces.QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )
