"""The lifecycle node: cameras in, foreground masks and the background behind them out.

configure loads the weights and warms up, activate listens to the cameras, deactivate stops, cleanup frees the memory.
What belongs to one camera is its `channel`. Frames are worked on by a thread of their own (`worker`), so services,
parameters and diagnostics answer meanwhile.
`inpaint_node` is its executable.
"""

from __future__ import annotations

import gc
import threading
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from sfi_ros.classes import FOREGROUND_CLASSES
from sfi_ros.inference import DefaultWeightsMissing, InferenceEngine
from sfi_ros.ros import diagnostics
from sfi_ros.ros.camera import Arrival
from sfi_ros.ros.channel import Channel
from sfi_ros.ros.layouts import Layouts, grid_of
from sfi_ros.ros.logs import RoutedLogs
from sfi_ros.ros.mailbox import Mailboxes
from sfi_ros.ros.parameters import Parameters, warn_of_unknown
from sfi_ros.ros.worker import Worker

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)
T = TypeVar("T")
RCLError = rclpy_implementation.RCLError
_WARM_UP_SIZE = (720, 1280)
_STOP_TIMEOUT = 10.0  # seconds a frame may still take when the node is deactivated
_LAST_RESULTS = 0.1  # seconds that publishing may still take when the process ends


class InpaintNode(LifecycleNode):
    """See the module; parameters are listed in `settings.SETTINGS`, topics in docs/node.md.

    Raises:
        ValueError: a parameter was given a value that is not acceptable.
    """

    def __init__(self) -> None:
        super().__init__("inpaint")
        self._routed_logs = RoutedLogs(self.get_logger())
        self._answer_impossible_transitions()
        self._engine: InferenceEngine | None = None
        self._layouts: Layouts | None = None
        self._worker: Worker | None = None
        self._configure_problem = ""
        self._halted = threading.Event()
        self._has_namesake = False
        self._settings = Parameters(self, is_configured=lambda: self._engine is not None)
        warn_of_unknown(self)
        cameras = self._settings.cameras
        self._mailboxes: Mailboxes[Arrival] = Mailboxes(cameras)
        self._channels = {name: Channel(self, name, self._settings.of(name), self._mailboxes[name]) for name in cameras}
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Of a clock that never stops: with use_sim_time the node's own stands still while no bag plays.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._report, clock=steady)
        self.create_timer(0.1, self._follow_demand, clock=steady)
        self._autostart_timer = None
        if self._settings["autostart"]:
            self._autostart_timer = self.create_timer(1e-3, self._autostart, clock=steady)
        backward = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jumps = self.get_clock().create_jump_callback(backward, post_callback=lambda _: self._time_jumped())

    # --- lifecycle: rclpy swallows what a transition raises, so each is wrapped to say it ---

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights and warm up; a failure leaves the node unconfigured and says why."""
        return self._attempt("configure", self._configure, otherwise=FAILURE)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen to the cameras, at once or, when lazy, as soon as somebody subscribes to a result."""
        return self._attempt("activate", self._activate, otherwise=FAILURE)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop after the frames at hand."""
        return self._attempt("deactivate", self._deactivate, otherwise=ERROR)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the network and its memory."""
        return self._attempt("cleanup", self._release, otherwise=ERROR)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and let go."""
        return self._attempt("shutdown", self.close, otherwise=ERROR)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured after a transition that went wrong."""
        return self._attempt("error processing", self.close, otherwise=FAILURE)

    def close(self) -> None:
        """Stop whatever runs and free what is held."""
        try:
            self._deactivate()
        finally:
            self._release()

    def halt(self) -> int:
        """Take no further frame and publish nothing more; do not wait for the network. Returns the exit status."""
        self._halted.set()
        if self._worker is not None:
            self._worker.stop(_LAST_RESULTS)
        return 0

    def _answer_impossible_transitions(self) -> None:
        """Answer a request to activate an unconfigured node, say, with a refusal: rclpy raises and never answers."""
        service = self._service_change_state
        change = service.callback

        def change_or_refuse(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
            try:
                return change(request, response)
            except RCLError:
                asked = request.transition.label or f"transition {request.transition.id}"
                self.get_logger().warning(f"{asked} is not possible while {self._state()}")
                response.success = False
                return response

        service.callback = change_or_refuse

    def _attempt(
        self, name: str, step: Callable[[], None], otherwise: TransitionCallbackReturn
    ) -> TransitionCallbackReturn:
        try:
            step()
        except Exception as error:
            if self._halted.is_set():  # it was given up
                return otherwise
            reason = f"{type(error).__name__}: {error}"
            if name == "configure":
                self._configure_problem = str(error)
            self.get_logger().error(f"{name} failed: {reason}")
            if not isinstance(error, (OSError, ValueError, RuntimeError)):  # not one that names its remedy
                self.get_logger().error(traceback.format_exc())
            return otherwise
        return SUCCESS

    def _configure(self) -> None:
        grid = grid_of(self._settings)
        engine = self._engine = self._unless_halted(self._load)
        self._layouts = Layouts(self, self._settings, grid)
        try:
            for channel in self._channels.values():
                channel.open(engine.metadata, engine.weights_name, self._layouts)
        except Exception:
            self._release()
            raise
        self._configure_problem = ""
        self.get_logger().info(
            f"configured: {engine.weights_name} ({engine.metadata.name}) on {engine.device}, "
            f"{engine.precision} by {engine.backend}, {engine.input_height} pixels high"
        )

    def _load(self) -> InferenceEngine:
        parameters = self._settings
        with warnings.catch_warnings():
            warnings.simplefilter("always", DefaultWeightsMissing)  # Python says it only once
            engine = InferenceEngine.load(
                parameters["weights"] or None,
                device=parameters["device"],
                precision=parameters["precision"],
                backend=parameters["backend"],
                threads=parameters["cpu_threads"] or None,
                input_height=parameters["input_height"] or None,
                output_size=parameters["output_size"],
            )
        image = np.zeros((*_WARM_UP_SIZE, 3), np.uint8)
        for images in {1, len(self._channels)}:
            engine([image] * images)
        return engine

    def _unless_halted(self, step: Callable[[], T]) -> T:
        """Return what `step` returns; gives it up, in its thread, when the process is to end: it may take minutes."""
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(step())
            except BaseException as error:
                result.set_exception(error)

        threading.Thread(target=run, name="sfi-configure", daemon=True).start()
        while not wait([result], timeout=0.1).done:
            if self._halted.is_set():
                raise RuntimeError("given up, because the process ends")
        return result.result()

    def _activate(self) -> None:
        for channel in self._channels.values():
            channel.activate()
        self._worker = Worker(self._channels, self._mailboxes, self._settings, self._engine, self._layouts)
        self._follow_demand()

    def _deactivate(self) -> None:
        for channel in self._channels.values():
            channel.deactivate()
        worker, self._worker = self._worker, None
        if worker is not None and not worker.stop(_STOP_TIMEOUT):
            raise RuntimeError(f"a frame has been in the network for {worker.busy_for:.0f} s; its thread was abandoned")

    def _release(self) -> None:
        for channel in self._channels.values():
            channel.close()
        if self._layouts is not None:
            self._layouts.close()
            self._layouts = None
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        gc.collect()

    # --- timers ---

    def _autostart(self) -> None:
        """Configure and activate; after a failure again and again, since weights may yet arrive."""
        self.destroy_timer(self._autostart_timer)
        self._autostart_timer = None
        if self._state() != "unconfigured":
            return  # somebody else was faster
        if self.trigger_configure() == SUCCESS:
            self.trigger_activate()
        elif (retry := self._settings["autostart_retry"]) and not self._halted.is_set():
            self.get_logger().info(f"trying again in {retry:g} s")
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._autostart_timer = self.create_timer(retry, self._autostart, clock=steady)

    def _follow_demand(self) -> None:
        """Subscribe to the cameras while results are wanted, and only then."""
        if self._worker is None:
            return
        for channel in self._channels.values():
            channel.follow_demand()

    def _time_jumped(self) -> None:
        for channel in self._channels.values():
            channel.monitor.time_jumped()

    def _warn_of_namesake(self) -> None:
        """Say that another node has this one's name, once: both answer its services and publish its topics."""
        namesakes = self.get_node_names_and_namespaces().count((self.get_name(), self.get_namespace())) - 1
        if namesakes > 0 and not self._has_namesake:
            self.get_logger().warning(
                f"another node is named {self.get_fully_qualified_name()}, too, or was until it was killed seconds "
                "ago: their results and answers mix; start one with another name or namespace (-r __node:=, -r __ns:=)"
            )
        self._has_namesake = namesakes > 0

    def _report(self) -> None:
        self._warn_of_namesake()
        worker = self._worker
        condition = diagnostics.Condition(
            lifecycle=self._state(),
            configure_problem=self._configure_problem,
            untrained=self._engine is not None and not self._engine.is_trained,
            busy_for=worker.busy_for if worker else 0.0,
            worker_alive=worker is None or worker.alive,
            facts=self._facts(),
        )
        channels = self._channels.values()
        statuses = [channel.status(condition) for channel in channels]
        statuses += [channel.layout_status(condition.lifecycle) for channel in channels]
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _facts(self) -> dict[str, str]:
        facts: dict[str, str] = {}
        engine = self._engine
        if engine is not None:
            facts["weights"] = engine.weights_name
            facts["network"] = engine.metadata.name
            kinds = ", ".join(FOREGROUND_CLASSES) if engine.metadata.tells_kinds else "not told by these weights"
            facts["kinds of objects"] = kinds
            facts["device"] = engine.device
            facts["precision"] = engine.precision
            facts["backend"] = engine.backend
            facts |= engine.facts()
        return facts

    def destroy_node(self) -> None:
        """Destroy what belongs to the node; nothing is logged through it any more.

        rclpy leaves the state machine, which would keep the node known to others for 20 s after the process has ended.
        """
        self._routed_logs.close()
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def _state(self) -> str:
        return self._state_machine.current_state[1]
