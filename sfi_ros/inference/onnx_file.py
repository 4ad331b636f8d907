"""What stands in an ONNX file, looked at before ONNX Runtime sees it.

ONNX Runtime opens whatever other files a graph names for its weights, and some damage to a graph ends the process. So
the file is read here first, as the nested protocol buffers that it is: only what `sfi export` writes passes, which is
one file whose graph has the checksum that was noted when it was written. A vehicle does not need the package `onnx`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from sfi_ros.errors import shown
from sfi_ros.network.metadata import CheckpointError
from sfi_ros.network.weights_file import check_file

MAX_FILE: Final = 1 << 30
"""Bytes; `paper-resnet50` has 0.24e9."""

Message = Literal["model", "training", "graph", "function", "node", "attribute", "sparse tensor", "tensor"]

_PARTS: Final[dict[Message, dict[int, Message]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Where tensors and nodes lie in an ONNX model: kind of message -> number of a field -> kind of the message in it."""

_METADATA: Final = 14  # of a model: pairs of texts, 1 and 2
_EXTERNAL: Final = (13, 14)  # of a tensor: where its data lies, if not in the file
_DOMAIN: Final = 7  # of a node: whose operator it is; ONNX's own are of the domain ""


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file.

    Attributes:
        content: all of it.
        texts: its metadata.
        graph_sha256: hash of all of it but its metadata.
    """

    content: bytes
    texts: dict[str, str]
    graph_sha256: str


def read_onnx(path: Path) -> OnnxFile:
    """Read a file, without running anything.

    Raises:
        MissingFileError: no such file.
        CheckpointError: not an ONNX file, a damaged one, or one that needs other files or operators than ONNX's own.
    """
    check_file(path)
    size = path.stat().st_size
    if size > MAX_FILE:
        raise CheckpointError(f"{path} has {size} bytes, more than any network of this package")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    try:
        file = parse_onnx(content)
        _check_parts(memoryview(content))
    except ValueError as error:
        raise CheckpointError(f"{path} is not a readable ONNX file: {shown(str(error))}") from error
    return file


def parse_onnx(content: bytes) -> OnnxFile:
    """Find the metadata in the bytes of a file, and hash the rest.

    Raises:
        ValueError: they are no fields of a protocol buffer, or a key of the metadata stands twice or is not UTF-8.
    """
    texts: dict[str, str] = {}
    digest = hashlib.sha256()
    view = memoryview(content)
    for number, start, begin, end in _fields(view, 0, len(content)):
        if number == _METADATA:
            pair = {field: bytes(view[b:e]).decode() for field, _, b, e in _fields(view, begin, end)}
            if pair.get(1, "") in texts:
                raise ValueError(f"the key {shown(pair.get(1, ''))} stands twice in its metadata")
            texts[pair.get(1, "")] = pair.get(2, "")
        else:
            digest.update(view[start:end])
    return OnnxFile(content, texts, digest.hexdigest())


def _check_parts(view: memoryview) -> None:
    parts: list[tuple[Message, int, int]] = [("model", 0, len(view))]
    has_graph = False
    while parts:
        kind, begin, end = parts.pop()
        for number, _, first, last in _fields(view, begin, end):
            if kind == "tensor" and number in _EXTERNAL:
                raise ValueError("it keeps weights in other files; `sfi export` writes one file")
            if kind == "node" and number == _DOMAIN and last > first:
                domain = shown(bytes(view[first:last]).decode(errors="replace"))
                raise ValueError(f"it has operators of {domain}; `sfi export` uses those of ONNX only")
            if number in _PARTS[kind]:
                has_graph |= kind == "model" and number == 7
                parts.append((_PARTS[kind][number], first, last))
    if not has_graph:
        raise ValueError("it has no graph")


def _fields(view: memoryview, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Return the fields of one message: number, start of the field, begin and end of its value."""
    position = begin
    while position < end:
        start = position
        tag, position = _varint(view, position, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            first = position
            _, position = _varint(view, position, end)
        elif wire_type == 2:
            length, first = _varint(view, position, end)
            position = first + length
        elif wire_type in (1, 5):
            first = position
            position += 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"byte {start} begins no field")
        if number == 0 or position > end:
            raise ValueError(f"the field at byte {start} reaches beyond its end: it was truncated or damaged")
        yield number, start, first, position


def _varint(view: memoryview, position: int, end: int) -> tuple[int, int]:
    """Return a number of variable length, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = view[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError(f"the number at byte {position} has no end: it was truncated or damaged")
