"""How a process ends that is asked to: by SIGINT, by SIGTERM, or by the death of the `ros2 launch` that started it.

Nothing is imported here that takes time: it has to be in force before PyTorch is imported, which takes seconds.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
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
        self._requests: queue.SimpleQueue[None] = queue.SimpleQueue()  # which a signal handler may use, unlike Event
        for number in _SIGNALS:
            signal.signal(number, lambda *_: self._receive())
        # The executables that CMakeLists.txt installs start Python with these signals blocked, so that none arrives
        # before it can be handled.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if (launch := os.environ.get(LAUNCH_PID, "")).isdecimal():
            threading.Thread(target=self._watch, args=(int(launch), os.getppid()), daemon=True).start()

    def hold(self) -> None:
        """From now on only note the wish, for `wait_for` to see."""
        self._held = True

    def wait_for(self, finished: Callable[[], bool]) -> None:
        """Wait until the process is asked to end or `finished()` is true."""
        while not self._asked and not finished():
            with contextlib.suppress(queue.Empty):
                self._requests.get(timeout=_LOOK_EVERY)
                self._asked = True

    def _receive(self) -> None:
        if not self._held:
            os._exit(0)
        self._requests.put(None)

    def _watch(self, launch: int, parent: int) -> None:
        # The parent is another one than launch, where that starts nodes in a debugger.
        while os.getppid() == parent and _exists(launch):
            time.sleep(_LOOK_EVERY)
        self._receive()


@contextlib.contextmanager
def missing_modules_named(executable: str) -> Iterator[None]:
    """End the process with one line if a module is not installed for this Python: most likely it is another's."""
    try:
        yield
    except ModuleNotFoundError as error:
        print(
            f"[FATAL] [{executable}]: {sys.executable} has no module {error.name}. Start this where ROS is sourced and "
            "the environment with PyTorch is active (README.md, With ROS 2)",
            file=sys.stderr,
        )
        leave(REFUSED)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True


def leave(status: int) -> NoReturn:
    """End the process without taking Python down first.

    That would take seconds on a busy machine with PyTorch, and aborts if a thread is still in the network.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(status)
