"""Writes pictures as a video that is either whole or not there."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sfi_ros.files import PartialFile, WriteError
from sfi_ros.frames.names import plain_path


class Video:
    """Writes MPEG-4 pictures at the size of the first one; a context manager.

    The file appears when the block ends, and not at all if it raises or no picture was added.

    Args:
        path: of the video, .mp4.
        rate: in frames per second.
    """

    def __init__(self, path: Path, rate: float):
        self._path, self._rate = path, rate
        self._file = PartialFile(path)
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0

    def add(self, picture: np.ndarray) -> None:
        """Append a picture, (H, W, 3) uint8 RGB of any size.

        Raises:
            WriteError: OpenCV has no encoder for its size.
        """
        size = (picture.shape[1], picture.shape[0])
        if self._writer is None:
            self._open(size)
        assert self._writer is not None
        if size != self._size:  # a folder may mix sizes; a video cannot
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self._written += 1

    def _open(self, size: tuple[int, int]) -> None:
        with plain_path(self._file.name) as name:
            self._writer = cv2.VideoWriter(str(name), cv2.VideoWriter.fourcc(*"mp4v"), self._rate, size)
        self._size = size
        if not self._writer.isOpened():
            raise WriteError(f"{self._path} cannot be written: OpenCV has no MPEG-4 encoder for {size[0]}x{size[1]}")

    def __enter__(self) -> Video:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        try:
            if kind is None:
                self._check()
                self._file.commit()
        finally:
            self._file.discard()

    def _check(self) -> None:
        """Count what arrived: OpenCV says nothing when the disk is full, and the file has no end then."""
        with plain_path(self._file.name) as name:
            capture = cv2.VideoCapture(str(name))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found != self._written:
            raise WriteError(
                f"{self._path} cannot be written: {found} of {self._written} frames arrived; is the disk full?"
            )
