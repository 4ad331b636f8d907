"""`sfi run --ray` and `sfi bag --ray`: recordings shared between the processes of a Ray cluster.

A recording is a job, and a long one several: its stretches first, then what needs all of it. Jobs write whole files
only, where one process alone would write them, and skip what is there. So a job whose machine was lost is done again by
another one, and the results are those of one process, byte for byte. All machines see the files under the same names.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from sfi_ros.errors import OptionError, SfiError, UnavailableError
from sfi_ros.inference import InferenceEngine, Timing
from sfi_ros.inference.threads import available_cores
from sfi_ros.offline.engine_options import EngineOptions
from sfi_ros.offline.summary import RunSummary
from sfi_ros.offline.task import Before, Plan, Report, Task

LOCAL: Final = "local"
"""Instead of an address: a cluster on this machine, for this command."""

_NO_STATISTICS: Final = {"RAY_USAGE_STATS_ENABLED": "0"}
_LOOPBACK_ONLY: Final = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Keeps a cluster to this machine's loopback interface, as Ray does by default on the systems that it names."""

_RETRIES: Final = 3  # of a job whose worker was lost
_OBJECT_STORE: Final = 100 * 2**20  # bytes; only reports travel, and no images
_REPORT_EVERY: Final = 0.5  # seconds
_MAX_THREADS: Final = 8  # that encode what one GPU infers


class FleetError(SfiError, RuntimeError):
    """A task that failed on a worker; the message names the machine."""


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        task: which one.
        summary: of the task; None if it failed.
        skipped: name of each frame that has no result, and the reason.
        error: why it failed, with a traceback if that is a defect; "" otherwise.
    """

    task: Task
    summary: RunSummary | None
    skipped: list[tuple[str, str]]
    error: str = ""


def work(tasks: Sequence[Task], options: EngineOptions, address: str, report: Report) -> Iterator[Outcome]:
    """Do tasks on a cluster; one that fails does not keep the others from being done.

    Args:
        tasks: of any number.
        options: of the engines; each worker loads one.
        address: of the cluster, or `LOCAL`.
        report: told the frames of all tasks together; when it says that it was stopped, what is under way is ended.

    Yields:
        How the tasks ended, as they do.

    Raises:
        UnavailableError: Ray is not installed, nothing answers at the address, or no machine can do the work.
        OptionError: a device that has a number: Ray chooses the GPU.
    """
    if ":" in options.device:
        raise OptionError(f"--ray chooses the GPU itself: name --device cuda, not {options.device}")
    with _connected(address) as ray:
        fleet = _Fleet(ray, tasks, options)
        try:
            while fleet.busy and not report.stopped():
                yield from fleet.step()
                report.progress(*fleet.frames_done())
            report.progress(*fleet.frames_done(patience=_REPORT_EVERY))
        finally:
            fleet.cancel()


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    os.environ.update(_NO_STATISTICS)  # before Ray is imported
    if address == LOCAL:
        os.environ.update(_LOOPBACK_ONLY)
        if "RAY_AUTH_MODE" not in os.environ:  # a token for this command, in place of a file in the home folder
            os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    try:
        import ray
    except ImportError as error:
        raise UnavailableError(f"--ray needs Ray ({error}): pip install 'sfi_ros[fleet]'") from error
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address == LOCAL:
        cores = available_cores()
        options |= {"num_cpus": cores, "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UnavailableError(f"no Ray cluster answers at {address}: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # which Ray replaces
    try:
        yield ray
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class _Start:
    """The first job of a task: divides it, or does it if it is short."""

    workers: int

    def do(self, task: Task, engine: InferenceEngine, threads: int, report: Report) -> Plan | RunSummary:
        """Return how the task is divided, or that it is done."""
        plan = task.plan(engine, self.workers)
        return plan if plan.stretches else task.infer(engine, threads=threads, report=report)


@dataclass(frozen=True)
class _Stretch:
    """One stretch of a task.

    Attributes:
        start, stop: see `Plan`.
        length: of the whole recording.
    """

    start: int
    stop: int | None
    length: int | None

    def do(self, task: Task, engine: InferenceEngine, threads: int, report: Report) -> list[Timing]:
        """Return how long the engine took for each frame."""
        of_recording = replace(report, progress=lambda done, _: report.progress(done, self.length))
        return task.infer_stretch(engine, self.start, self.stop, of_recording)


@dataclass(frozen=True)
class _Finish:
    """The last job of a task that was divided.

    Attributes:
        before: what its stretches did.
    """

    before: Before

    def do(self, task: Task, engine: InferenceEngine, threads: int, report: Report) -> RunSummary:
        """Put the results together; frames that the stretches have counted are not counted again."""
        return task.infer(engine, threads=threads, report=Report(skipped=report.skipped), before=self.before)


_Job = _Start | _Stretch | _Finish


@dataclass(frozen=True)
class _Result:
    """What a job returns.

    Attributes:
        value: of the job; None if it failed.
        skipped: frames without results, and why.
        error: why it failed.
    """

    value: Plan | RunSummary | list[Timing] | None
    skipped: list[tuple[str, str]]
    error: str = ""


@dataclass
class _Progress:
    """What is known about a task that is under way.

    Attributes:
        number: among the tasks.
        task: the task.
        began: when its first job was submitted.
        resumed: frames that had their results then.
        open: how many of its stretches are not done yet.
        timings: of its stretches that are.
        failed: whether one of its jobs has.
    """

    number: int
    task: Task
    began: float = 0.0
    resumed: int = 0
    open: int = 0
    timings: list[Timing] = field(default_factory=list)
    failed: bool = False


class _Fleet:
    """The jobs of some tasks on a cluster.

    Args:
        ray: the module, connected.
        tasks: to do.
        options: of the engines.
    """

    def __init__(self, ray: Any, tasks: Sequence[Task], options: EngineOptions):
        self._ray = ray
        resources = _resources(ray, options)
        self._workers = _workers(ray, resources)
        device = "cuda" if resources["num_gpus"] else "cpu"
        self._options = replace(options, threads=options.threads or 1, device=device)
        self._threads = resources["num_cpus"]
        self._do = ray.remote(max_retries=_RETRIES, **resources)(_do)
        self._counter = ray.remote(num_cpus=0, max_restarts=-1)(_Counter).remote()
        self._waiting: deque[tuple[_Progress, _Job]] = deque()
        for number, task in enumerate(tasks):
            self._waiting.append((_Progress(number, task), _Start(self._workers)))
        self._running: dict[Any, tuple[_Progress, _Job]] = {}
        self._asked = self._counter.frames.remote()
        self._frames: tuple[int, int | None] = (0, None)
        self._tasks = len(tasks)

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""
        return bool(self._waiting or self._running)

    def step(self) -> Iterator[Outcome]:
        """Submit jobs and wait a moment for one; yield the task that ends with it, if one does."""
        while self._waiting and len(self._running) < 2 * self._workers:
            progress, job = self._waiting.popleft()
            if not progress.failed:
                self._submit(progress, job)
        ended, _ = self._ray.wait(list(self._running), timeout=_REPORT_EVERY)
        for reference in ended:
            progress, job = self._running.pop(reference)
            try:
                result = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:  # a worker was lost too often
                result = _Result(None, [], f"{progress.task.source}: {error}")
            if not progress.failed:
                yield from self._ended(progress, job, result)

    def frames_done(self, patience: float = 0.0) -> tuple[int, int | None]:
        """Return how many frames are done, and of how many; None until all tasks have begun.

        Args:
            patience: seconds to wait for the latest numbers.
        """
        ready, _ = self._ray.wait([self._asked], timeout=patience)
        if ready:
            with suppress(self._ray.exceptions.RayError):  # the counter was lost with its machine; a new one begins
                done, total, tasks = self._ray.get(self._asked)
                self._frames = done, total if tasks == self._tasks else None
            self._asked = self._counter.frames.remote()
        return self._frames

    def cancel(self) -> None:
        """End what is under way; whole files stay."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)

    def _submit(self, progress: _Progress, job: _Job) -> None:
        task = progress.task
        if isinstance(job, _Start):
            progress.began = time.time()
        else:
            task = replace(task, overwrite=False)  # the first job has made the folder ready
        reference = self._do.remote(
            job, task, self._options, self._threads, str(Path.cwd()), self._counter, progress.number
        )
        self._running[reference] = progress, job

    def _ended(self, progress: _Progress, job: _Job, result: _Result) -> Iterator[Outcome]:
        if isinstance(result.value, Plan):
            progress.resumed, progress.open = result.value.resumed, len(result.value.stretches)
            for start, stop in reversed(result.value.stretches):  # before the other tasks
                self._waiting.appendleft((progress, _Stretch(start, stop, result.value.length)))
        elif isinstance(job, _Stretch) and isinstance(result.value, list):
            progress.timings += result.value
            progress.open -= 1
            if progress.open == 0:
                before = Before(progress.began, progress.resumed, progress.timings)
                self._waiting.appendleft((progress, _Finish(before)))
        elif isinstance(result.value, RunSummary):
            yield Outcome(progress.task, result.value, result.skipped)
        else:
            progress.failed = True
            yield Outcome(progress.task, None, result.skipped, result.error)


def _resources(ray: Any, options: EngineOptions) -> dict[str, int]:
    """Return what one job takes of a machine."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
    if options.device == "cuda" and not with_gpu:
        raise UnavailableError("no machine of the Ray cluster has a GPU; --device cpu or auto does without")
    if options.device == "cpu" or not with_gpu:
        return {"num_cpus": options.threads or 1, "num_gpus": 0}
    share = min(int(node.get("CPU", 0) // node["GPU"]) for node in with_gpu)  # for reading and writing
    return {"num_cpus": options.threads or max(1, min(share, _MAX_THREADS)), "num_gpus": 1}


def _workers(ray: Any, resources: dict[str, int]) -> int:
    """Return how many jobs the cluster can do at a time."""
    wanted = {name: count for name, count in (("CPU", resources["num_cpus"]), ("GPU", resources["num_gpus"])) if count}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    count = sum(min(int(node.get(name, 0) // each) for name, each in wanted.items()) for node in nodes)
    if count == 0:
        needs = " and ".join(f"{each} {name}" for name, each in wanted.items())
        raise UnavailableError(f"no machine of the Ray cluster has {needs}; --threads says how many CPUs a job takes")
    return count


class _Counter:
    """Counts the frames of all tasks; an actor."""

    def __init__(self) -> None:
        self._done: dict[tuple[int, int], int] = {}
        self._totals: dict[int, int | None] = {}

    def report(self, task: int, part: int, done: int, total: int | None) -> None:
        """Note how many frames a job has done; a job that is done again begins again."""
        self._done[task, part] = done
        self._totals[task] = total

    def frames(self) -> tuple[int, int | None, int]:
        """Return the frames that are done, their number if it is known, and how many tasks have begun."""
        totals = list(self._totals.values())
        known = [total for total in totals if total is not None]
        return sum(self._done.values()), sum(known) if len(known) == len(totals) else None, len(totals)


@lru_cache(maxsize=1)
def _engine(options: EngineOptions) -> InferenceEngine:
    """Return the engine of this worker."""
    return options.load()


def _do(
    job: _Job, task: Task, options: EngineOptions, threads: int, directory: str, counter: Any, number: int
) -> _Result:
    """Do a job; runs on a worker."""
    machine = socket.gethostname()
    skipped: list[tuple[str, str]] = []
    last = 0.0

    def tell(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last > _REPORT_EVERY or done == total:
            last = time.monotonic()
            counter.report.remote(number, job.start if isinstance(job, _Stretch) else 0, done, total)

    try:
        if not Path(directory).is_dir():
            raise FleetError(f"{directory} is not there; all machines must see the same files")
        os.chdir(directory)
        report = Report(tell, lambda name, reason: skipped.append((name, reason)))
        return _Result(job.do(task, _engine(options), threads, report), skipped)
    except SfiError as error:
        return _Result(None, skipped, f"{error} (on {machine})")
    except Exception:
        return _Result(None, skipped, f"{task.source} (on {machine}):\n{traceback.format_exc()}")
