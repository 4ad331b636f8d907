"""How a process ends that is asked to: by SIGINT, by SIGTERM, or by the death of the `ros2 launch` that started it.

Nothing is imported here that takes time: it has to be in force before PyTorch is imported, which takes seconds.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
from collections.abc import Callable
from typing import Final, NoReturn

REFUSED: Final = 2  # exit status where a parameter or another argument is not acceptable: trying again does not help

# Set by our launch files to the process id of `ros2 launch`, which leaves processes behind if it is killed or if a
# launch file fails half-way. Without it a process outlives the one that started it, as after `ros2 run … &` it should.
LAUNCH_PID: Final = "SFI_ROS_LAUNCH_PID"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_LOOK_EVERY: Final = 0.1  # seconds


class StopRequest:
    """Ends the process in order from now on; made by the first line of `main`, in the main thread.

    Until `hold` is called there is nothing to end in order, and a signal ends the process at once, with status 0.
    """

    def __init__(self) -> None:
        self._held = self._asked = False
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # which a signal handler may use, unlike Event
        launch = os.environ.get(LAUNCH_PID, "")
        self._launch = int(launch) if launch.isdecimal() else None
        self._parent = os.getppid()  # another one than launch, where it starts nodes in a debugger
        for number in _SIGNALS:
            signal.signal(number, self._receive)
        # The executables that CMakeLists.txt installs start Python with these signals blocked, so that none arrives
        # before it can be handled.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def hold(self) -> None:
        """From now on only note the wish, for `wait_for` to see."""
        self._held = True

    def wait_for(self, finished: Callable[[], bool]) -> None:
        """Wait until the process is asked to end or `finished()` is true."""
        while not finished() and not self._is_asked():
            pass

    def _is_asked(self) -> bool:
        if not self._asked:
            try:
                self._signals.get(timeout=_LOOK_EVERY)
                self._asked = True
            except queue.Empty:
                self._asked = self._launch_is_gone()
        return self._asked

    def _launch_is_gone(self) -> bool:
        if self._launch is None:
            return False
        if os.getppid() != self._parent:
            return True
        try:
            os.kill(self._launch, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # it runs as another user
            pass
        return False

    def _receive(self, number: int, _: object) -> None:
        if not self._held:
            os._exit(0)
        self._signals.put(number)


def leave(status: int) -> NoReturn:
    """End the process without taking Python down first.

    That would take seconds on a busy machine with PyTorch, and aborts if a thread is still in the network.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(status)
