"""Video files as sources of frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import cv2

from sfi_ros.frames.decoding import is_git_lfs_pointer
from sfi_ros.frames.frame import Frame, SourceError, Unreadable
from sfi_ros.frames.limits import FILE_MEGAPIXELS
from sfi_ros.frames.names import plain_path, printable

VIDEO_SUFFIXES: Final = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg"})

_USUAL_RATE: Final = 25.0  # frames per second, where a video does not say


class VideoSource:
    """A video file at its own rate; see `frame.Source`.

    Args:
        path: of the file.
        start, stop: frames of it.

    Raises:
        SourceError: it is not a video that OpenCV can decode.
    """

    def __init__(self, path: Path, start: int = 0, stop: int | None = None):
        self._path, self._start, self._stop = path, start, stop
        with self._opened() as capture:
            rate, length = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        is_known = 0 < rate < 1000  # some containers have ticks in place of frames
        self.rate = rate if is_known else _USUAL_RATE
        self._announced = int(length) if is_known and 0 < length < 2**31 else None

    @property
    def length(self) -> int | None:
        """Number of frames as the file says, None if it does not."""
        stop = self._announced if self._stop is None else self._stop
        return None if stop is None else max(0, stop - self._start)

    def part(self, start: int, stop: int | None = None) -> VideoSource:
        """Return some of the frames; see `frame.Source`."""
        return VideoSource(self._path, self._start + start, self._stop if stop is None else self._start + stop)

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        """Decode frame after frame, to the end whatever length the file announces.

        A video that ends clearly before that is followed by an `Unreadable`: it was cut, or a part of it is damaged.
        """
        number = 0
        with self._opened() as capture:
            while self._stop is None or number < self._stop:
                try:
                    found = capture.grab()
                    image = capture.retrieve()[1] if found and number >= self._start else None
                except cv2.error as error:
                    yield Unreadable(f"{printable(self._path)} frame {number}", f"decoding ended here: {error.err}")
                    return
                if not found:
                    break
                if number >= self._start:
                    if image is None:
                        yield Unreadable(f"{printable(self._path)} frame {number}", "it cannot be decoded")
                    else:
                        place = f"{printable(self._path)} frame {number}"
                        yield Frame(f"frame_{number:06d}", cv2.cvtColor(image, cv2.COLOR_BGR2RGB), place=place)
                number += 1
        announced = self._announced if self._stop is None else min(self._stop, self._announced or 0)
        # Containers that do not count their frames announce an estimate.
        if announced and number >= self._start and announced - number > max(1, announced // 50):
            reason = f"the video ends here, but announces {self._announced} frames: it was cut, or is damaged"
            yield Unreadable(f"{printable(self._path)} frame {number}", reason)

    @contextmanager
    def _opened(self) -> Iterator[cv2.VideoCapture]:
        """Open the file.

        Raises:
            SourceError: see above.
        """
        with plain_path(self._path) as path:
            capture = cv2.VideoCapture(str(path))
        try:
            if not capture.isOpened():
                raise SourceError(f"{printable(self._path)} is not a video that OpenCV can decode{_guess(self._path)}")
            width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
            if width * height > FILE_MEGAPIXELS * 1e6:
                raise SourceError(
                    f"{printable(self._path)} announces frames of {width:.0f}x{height:.0f}, more than "
                    f"{FILE_MEGAPIXELS:g} megapixels"
                )
            yield capture
        finally:
            capture.release()


def _guess(path: Path) -> str:
    """Say what may be wrong with a file that is no video."""
    try:
        if path.stat().st_size == 0:
            return ": it is empty"
        with path.open("rb") as file:
            if is_git_lfs_pointer(file.read(100)):
                return ": it is a Git LFS pointer; run `git lfs pull`"
    except OSError as error:
        return f": {error.strerror}"
    return ": it may be cut or damaged, or in need of a codec; try to convert it with ffmpeg"
