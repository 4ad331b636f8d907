"""What the libraries below the node log or warn about, as lines of the ROS log."""

from __future__ import annotations

import logging
import warnings
from typing import Any, TextIO

from rclpy.impl.rcutils_logger import RcutilsLogger


class RoutedLogs(logging.Handler):
    """Sends Python's log records and warnings of this process to a ROS logger until it is closed.

    Of this package everything is sent, and the ROS log level decides; of other packages warnings and errors.

    Args:
        ros: where they go.
    """

    def __init__(self, ros: RcutilsLogger):
        super().__init__()
        self._ros = ros
        self._show_warning = warnings.showwarning
        self._own = logging.getLogger("sfi_ros")
        self._own_level = self._own.level
        self._own.setLevel(logging.DEBUG)
        logging.getLogger().addHandler(self)
        warnings.showwarning = self._warn

    def close(self) -> None:
        """Leave logging as it was."""
        logging.getLogger().removeHandler(self)
        self._own.setLevel(self._own_level)
        if warnings.showwarning == self._warn:  # else somebody came after us
            warnings.showwarning = self._show_warning
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record of Python's logging; its traceback, if any, goes along."""
        try:
            text = self.format(record)
        except Exception:  # a library's arguments that do not fit its text must not stop the node
            self.handleError(record)
            return
        # Each level from a line of its own: rclpy refuses another level from the same one.
        if record.levelno >= logging.ERROR:
            self._ros.error(text)
        elif record.levelno >= logging.WARNING:
            self._ros.warning(text)
        elif record.levelno >= logging.INFO:
            self._ros.info(text)
        else:
            self._ros.debug(text)

    def _warn(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        self._ros.warning(str(message) if _is_ours(category) else f"{filename}:{lineno}: {message}")


def _is_ours(category: Any) -> bool:
    return category.__module__.startswith("sfi_ros.")
