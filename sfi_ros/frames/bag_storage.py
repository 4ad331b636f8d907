"""The files of a recording, read with rosbags: rosbag2 with SQLite or MCAP storage, and ROS 1 bags.

What a recording's `metadata.yaml` says about topics and counts is not used: it is written last, and is wrong for a
recording that was cut or repaired. The storage files know.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Collection, Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any, Final

from sfi_ros.errors import ImageError
from sfi_ros.frames.decoding import is_git_lfs_pointer
from sfi_ros.frames.frame import LostPart, SourceError
from sfi_ros.frames.names import is_hidden, natural_order, plain_path, printable

ROS1_SUFFIX: Final = ".bag"
STORAGE_SUFFIXES: Final = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
METADATA: Final = "metadata.yaml"

_ZSTD: Final = b"\x28\xb5\x2f\xfd"  # begins a compressed message; others begin with a zero
_MOST_EXPANSION: Final = 1 << 30  # bytes of one message
_FIRST_GAP: Final = 10**6  # nanoseconds that are passed by where a recording cannot be read


class BagError(SourceError):
    """A bag that cannot be read or written; the message says why and what would help."""


def is_bag(path: str | Path) -> bool:
    """Whether a path is a ROS 1 bag, a storage file of a rosbag2, or its folder; says nothing about its health."""
    path = Path(path)
    if path.is_dir():
        return bool(storage_files(path)) or (path / METADATA).is_file()
    return path.is_file() and (path.suffix == ROS1_SUFFIX or path.name.endswith(STORAGE_SUFFIXES))


def storage_files(folder: Path) -> list[Path]:
    """Return the storage files in a folder, numbers in their names in order of their value."""
    files = (path for path in folder.iterdir() if path.name.endswith(STORAGE_SUFFIXES))
    return sorted((path for path in files if path.is_file() and not is_hidden(path)), key=natural_order)


@contextmanager
def opened(path: str | Path) -> Iterator[Bag]:
    """Open a recording.

    Args:
        path: rosbag2 folder, one of its storage files, or ROS 1 bag.

    Raises:
        BagError: no such recording, or none of its files can be read.
    """
    path = Path(path)
    with ExitStack() as stack:
        yield Bag(path, stack)


class Bag:
    """A recording that is open.

    Args:
        path: see `opened`.
        stack: closes its files.

    Attributes:
        connections: of all files, as rosbags describes them; several may have one topic.
        losses: what could not be read until now: whole files, and stretches of others.

    Raises:
        BagError: see `opened`.
    """

    def __init__(self, path: Path, stack: ExitStack):
        self._path = path
        self.losses: list[LostPart] = []
        self._storages: list[tuple[Path, Any]] = []
        for file in _files_of(path):
            self._open(file, stack)
        if not self._storages:
            raise BagError("; ".join(loss.reason for loss in self.losses))
        self._storages.sort(key=lambda item: item[1].start_time)
        if path.is_dir() and not (path / METADATA).is_file():
            self._require_one_recording(path)
        self._is_ros1 = path.suffix == ROS1_SUFFIX
        self.connections = [connection for _, storage in self._storages for connection in storage.connections]

    @property
    def duration(self) -> int:
        """Nanoseconds from the first message of any topic to the last."""
        first = min(storage.start_time for _, storage in self._storages)
        return max(0, max(storage.end_time for _, storage in self._storages) - first)

    def messages(self, connections: Collection[Any]) -> Iterator[tuple[Any, int, bytes]]:
        """Read messages in the order of their times, file after file.

        What is damaged is passed by and added to `losses`.

        Args:
            connections: whose messages to read.

        Yields:
            Connection, time of recording in nanoseconds, message as recorded.
        """
        wanted = {(connection.topic, connection.msgtype) for connection in connections}
        for file, storage in self._storages:
            chosen = [one for one in storage.connections if (one.topic, one.msgtype) in wanted]
            if chosen:
                yield from self._messages_of(file, storage, chosen)

    def deserialize(self, data: bytes, msgtype: str) -> Any:
        """Turn the bytes of a message of a standard type into an object with its fields.

        Raises:
            ImageError: the bytes are damaged.
        """
        store = _typestore("ROS1_NOETIC" if self._is_ros1 else "ROS2_JAZZY")
        try:
            if self._is_ros1:
                return store.deserialize_ros1(data, msgtype)
            return store.deserialize_cdr(_decompressed(data), msgtype)
        except Exception as error:  # rosbags lets whatever its parser trips over through
            raise ImageError(f"the message of {len(data)} bytes is damaged ({_first_line(error)})") from error

    def _open(self, file: Path, stack: ExitStack) -> None:
        try:
            self._storages.append((file, _storage(file, stack)))
        except BagError as error:
            self.losses.append(LostPart(printable(file), str(error)))

    def _require_one_recording(self, folder: Path) -> None:
        """Refuse a folder whose files cannot be parts of one recording, which follow each other."""
        for (file, storage), (other, following) in pairwise(self._storages):
            if file.suffix != other.suffix or storage.end_time > following.start_time:
                raise BagError(f"{printable(folder)} holds several recordings: name one, such as {printable(file)}")

    def _messages_of(self, file: Path, storage: Any, connections: list[Any]) -> Iterator[tuple[Any, int, bytes]]:
        start, gap = None, _FIRST_GAP
        while start is None or start < storage.end_time:
            behind, error = yield from _until_damage(storage, connections, start)
            if error is None:
                return
            if behind is None:
                behind = storage.start_time
            if behind != start:
                reason = f"a part of the recording, from {behind} ns on, cannot be read: {_first_line(error)}"
                self.losses.append(LostPart(printable(file), reason))
                gap = _FIRST_GAP
            start, gap = behind + gap, 2 * gap  # how much is damaged is not known


def _until_damage(
    storage: Any, connections: list[Any], start: int | None
) -> Generator[tuple[Any, int, bytes], None, tuple[int | None, Exception | None]]:
    """Yield the messages from a time on; return the time behind the last one, and why there are no more."""
    behind = start
    try:
        for message in storage.messages(connections, start=start):
            yield message
            behind = message[1] + 1
    except Exception as error:  # whatever the storages raise
        return behind, error
    return behind, None


def rosbags_module(module: str) -> Any:
    """Import a module of rosbags when it is needed: those who read no bags need not have it.

    Raises:
        BagError: rosbags is not installed.
    """
    try:
        return importlib.import_module(f"rosbags.{module}")
    except ImportError as error:
        raise BagError("bags are read with the Python package rosbags: pip install rosbags") from error


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise BagError(f"{printable(path)} cannot be read as a bag: it does not exist")
        if not is_bag(path):
            kinds = " ".join((ROS1_SUFFIX, *STORAGE_SUFFIXES))
            raise BagError(f"{printable(path)} is no recording ({kinds}); `sfi run` takes images and videos as well")
        return [path]
    if (path / METADATA).is_file():
        files = [path / name for name in _listed_files(path / METADATA)]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise BagError(
                f"{printable(path)} cannot be read as a bag: {missing[0].name}, which {METADATA} names, is missing "
                f"({len(missing)} of {len(files)} files are); copy it again, or run `ros2 bag reindex` to go without"
            )
        return files
    files = storage_files(path)
    if not files:
        raise BagError(f"{printable(path)} cannot be read as a bag: it holds neither {METADATA} nor a storage file")
    return files


def _listed_files(metadata: Path) -> list[str]:
    """Return the names of the storage files."""
    rosbags_module("rosbag2")
    yaml = importlib.import_module("ruamel.yaml")  # rosbags needs it, too
    try:
        content = yaml.YAML(typ="safe").load(metadata.read_text(encoding="utf-8"))
        names = [PurePath(name).name for name in content["rosbag2_bagfile_information"]["relative_file_paths"]]
    except Exception as error:
        raise BagError(
            f"{printable(metadata.parent)} cannot be read as a bag: {METADATA} is damaged ({_first_line(error)}); "
            "`ros2 bag reindex` writes it anew"
        ) from error
    if not names:
        raise BagError(f"{printable(metadata.parent)} cannot be read as a bag: {METADATA} names no storage file")
    return names


def _storage(file: Path, stack: ExitStack) -> Any:
    """Open one file."""
    try:
        if (begin := _begin(file)) is not None:
            raise BagError(f"{printable(file)} cannot be read as a bag: {begin}")
        path = stack.enter_context(plain_path(file))
        if file.suffix == ".zstd":
            path = _decompressed_file(path, file.stem, stack)
        module = rosbags_module("rosbag1" if file.suffix == ROS1_SUFFIX else "rosbag2")
        return stack.enter_context(module.Reader(path))
    except BagError:
        raise
    except Exception as error:  # rosbags lets whatever its storages raise through
        raise BagError(f"{printable(file)} cannot be read as a bag: {_first_line(error)}{_remedy(file)}") from error


def _begin(file: Path) -> str | None:
    """Say what is wrong with a file that holds no recording at all, None if nothing is."""
    with file.open("rb") as content:
        begin = content.read(100)
    if not begin:
        return "it is empty"
    if is_git_lfs_pointer(begin):
        return "it is a Git LFS pointer; run `git lfs pull`"
    wal = file.with_name(file.name + "-wal")
    if file.suffix == ".db3" and wal.is_file() and wal.stat().st_size:
        return (
            f"its recorder was killed, and messages are still in {wal.name}; "
            f"`sqlite3 {printable(file.name)} 'PRAGMA wal_checkpoint(TRUNCATE)'` brings them in"
        )
    return None


def _remedy(file: Path) -> str:
    if file.suffix == ROS1_SUFFIX:
        return "; a recording that was cut is repaired by `rosbag reindex`"
    if ".mcap" in file.suffixes:
        return "; a recording that was cut is repaired by `mcap recover`"
    return "; a recording that was cut is repaired by `ros2 bag reindex` or `sqlite3 FILE .recover`"


def _decompressed_file(path: Path, name: str, stack: ExitStack) -> Path:
    whole = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sfi-"))) / f"bag{Path(name).suffix}"
    with _zstd().open(path, "rb") as source, whole.open("wb") as target:
        shutil.copyfileobj(source, target)
    return whole


def _decompressed(data: bytes) -> bytes:
    """Return a message as it was before `ros2 bag record --compression-mode message` compressed it."""
    if bytes(data[:4]) != _ZSTD:
        return data
    return _zstd().ZstdDecompressor().decompress(data, max_length=_MOST_EXPANSION)


def _zstd() -> Any:
    rosbags_module("rosbag2")
    try:
        return importlib.import_module("compression.zstd")  # Python 3.14
    except ImportError:
        return importlib.import_module("backports.zstd")  # rosbags needs it, too


@lru_cache
def _typestore(name: str) -> Any:
    """Return the standard messages; a recording's own definitions of them say the same, or are damaged."""
    typesys = rosbags_module("typesys")
    return typesys.get_typestore(typesys.Stores[name])


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]
