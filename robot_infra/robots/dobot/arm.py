"""One arm of the X-Trainer: follows commands smoothly, holds when nobody commands, stops for good at an alarm.

A thread streams `ServoJ` at `servo_hz`, on the straight line between the last command and the newest one. The gate in
`robot_infra.safety` has limited how far apart these are.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from robot_infra import safety
from robot_infra.devices.feetech import FeetechGripper
from robot_infra.insistence import Insistence
from robot_infra.robots.dobot.dashboard import CommandRefused, Dashboard
from robot_infra.robots.dobot.feedback import Feedback, FeedbackReader, RobotMode
from robot_infra.robots.dobot.line import Line
from robot_infra.robots.dobot.options import ArmConfig
from robot_infra.safety import FaultKind
from serl_launcher.errors import RobotError, SafetyError

logger = logging.getLogger(__name__)

NUM_JOINTS = 6
FIRST_FEEDBACK_S = 5.0
LAST_STOP_S = 1.0
"""So long an emergency stop that was not heard yet is still said when the driver ends."""
ENABLE_S = 15.0
"""A controller needs several seconds to release the brakes."""
MODES_TO_MOVE = (RobotMode.ENABLED, RobotMode.RUNNING)


class DobotArm:
    """Six joints and a gripper; positions are [7]: radians, and the gripper's opening in [0, 1]."""

    def __init__(self, name: str, config: ArmConfig, *, period_s: float) -> None:
        """Connects, and enables the arm where no alarm is on. Alarms are never cleared here.

        Args:
            name: How messages call it, e.g. `left`.
            config: Where it is.
            period_s: Time between two commands.

        Raises:
            RobotError: It does not answer, or does not become ready.
            SafetyError: An alarm is on; a person has to clear it.
        """
        self.name, self._config, self._period_s = name, config, period_s
        self.faults = safety.FaultLatch()
        self.num_holds = 0
        """How often commands fell silent while the arm was to be moved."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._line: Line | None = None
        self._is_holding = True
        self._opening = self._wanted_opening = math.nan
        self._threads: list[threading.Thread] = []
        self.feedback = FeedbackReader(config.host, config.feedback_port)
        self._dashboard = Dashboard(config.host, config.dashboard_port, timeout_s=config.timeout_s)
        self._stopping = Insistence(f"the emergency stop of the {name} arm", self._say_stop)
        self._is_stopped_here = False
        """Whether this driver pressed the controller's emergency stop, which it has to take back."""
        self._gripper = self._open_gripper()
        try:
            self._check_mode(self.feedback.wait(FIRST_FEEDBACK_S), must_be_enabled=False)
            self.faults.require_clear()
            self._enable()
        except Exception:
            self.close()
            raise
        self._threads = [threading.Thread(target=self._stream, name=f"dobot-servo-{name}", daemon=True)]
        if self._gripper is not None and config.gripper is not None:
            run = partial(self._drive_gripper, self._gripper, config.gripper.silent_after_s)
            self._threads.append(threading.Thread(target=run, name=f"dobot-gripper-{name}", daemon=True))
        for thread in self._threads:
            thread.start()

    def position(self) -> np.ndarray:
        """Returns the measured joints and opening, float32 [7].

        Raises:
            SafetyError: A fault is latched, or this is one: feedback is missing, an alarm, the emergency stop.
        """
        self.check()
        return self.measured()

    def measured(self) -> np.ndarray:
        """Returns what `position` does, from any thread, also while a fault is latched; finds no fault itself.

        Raises:
            RobotError: Feedback is missing.
        """
        newest = self.feedback.newest(max_age_s=self._config.silent_after_s)
        return np.append(newest.joints, self._opening).astype(np.float32)

    def command(self, target: np.ndarray) -> None:
        """Commands float [7] for one period; the arm is there at its end, and stays where no further command comes.

        A command that comes before the one before was executed, after a tick that was late, does not shorten that
        one's time: what is left of both motions gets the time of both, so that no command is faster than it was made.
        """
        self.check()
        now = time.monotonic()
        with self._lock:
            line = self._line
            assert line is not None, "The line is set when the arm is enabled."
            end_s = max(line.end_s, now) + self._period_s
            self._line = Line(line.at(now), np.asarray(target, np.float64), begin_s=now, end_s=end_s)
            self._is_holding = False

    def stay(self, here: np.ndarray) -> None:
        """Wants the joints of float [7] within a period, where the arm was found: it pushes no further.

        The gripper keeps what it was told: it may hold something.
        """
        now = time.monotonic()
        with self._lock:
            line = self._line
            assert line is not None, "The line is set when the arm is enabled."
            goal = np.append(here[:NUM_JOINTS], line.goal[NUM_JOINTS])
            self._line = Line(line.at(now), goal, begin_s=now, end_s=now + self._period_s)

    def check(self) -> None:
        """Raises SafetyError where the arm must not be commanded; the cause is latched."""
        self.faults.require_clear()
        try:
            newest = self.feedback.newest(max_age_s=self._config.silent_after_s)
        except RobotError as exc:
            self._trip(FaultKind.CONNECTION, str(exc))
        else:
            self._check_mode(newest)
        self.faults.require_clear()

    def clear_fault(self, *, by: str) -> None:
        """Clears the controller's alarm and the latched fault and enables the arm again; `by` names the person.

        Raises:
            SafetyError: Another fault came meanwhile, or somebody stopped the arm again; it is stopped.
            RobotError: The alarm stays.
        """
        seen = self.faults.num_faults
        self._stopping.end()
        try:
            self._take_stop_back()
            self._dashboard.ask("ClearError()")
            self._await(lambda feedback: not _has_alarm(feedback), "without alarm")
            # The fault stays latched until the arm is ready: nothing is sent to it meanwhile.
            self._enable()
            self.faults.clear(by=by, seen=seen)
        except (SafetyError, RobotError):
            if self.faults.num_faults != seen:
                self._stopping.begin()  # A stop that came meanwhile may have been silenced or taken back above.
            raise
        logger.warning("%s arm: fault cleared by %s.", self.name, by)

    def _take_stop_back(self) -> None:
        if not self._is_stopped_here:
            return
        self._is_stopped_here = False  # Before the question: whoever stops the arm from now on says so again.
        try:
            self._dashboard.ask("EmergencyStop(0)")
        except RobotError:
            self._is_stopped_here = True
            raise

    def emergency_stop(self, reason: str) -> None:
        """Stops the arm now, by its controller, from any thread and without waiting; it needs a person afterwards.

        No further point is sent to it, and the controller is told until it answers.
        """
        self._trip(FaultKind.EMERGENCY_STOP, f"{self.name} arm: {reason}")
        self._stopping.begin()

    def close(self) -> None:
        """Stops streaming; the arm keeps its position under power, or its emergency stop."""
        self._stopping.end(patience_s=LAST_STOP_S)
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=2.0)
        self.feedback.close()
        self._dashboard.close()
        if self._gripper is not None:
            self._gripper.close()

    def _open_gripper(self) -> FeetechGripper | None:
        gripper = self._config.gripper
        if gripper is None:
            self._opening = 1.0
            return None
        opened = FeetechGripper(
            gripper.port, servo=gripper.servo, closed=gripper.closed, opened=gripper.opened, timeout_s=gripper.timeout_s
        )
        self._opening = self._wanted_opening = opened.first_opening
        return opened

    def _enable(self) -> None:
        # The controller is asked: the newest packet may be from before a stop that was cleared at once.
        if RobotMode(int(self._dashboard.ask("RobotMode()")[0])) not in MODES_TO_MOVE:
            self._dashboard.ask("EnableRobot()", timeout_s=ENABLE_S)
            self._await(lambda feedback: feedback.mode in MODES_TO_MOVE, "enabled")
        with self._lock:
            here = np.append(self.feedback.newest(max_age_s=FIRST_FEEDBACK_S).joints, self._opening)
            now = time.monotonic()
            self._line = Line(here, here, begin_s=now, end_s=now)

    def _await(self, is_so: Callable[[Feedback], bool], what: str) -> None:
        give_up_s = time.monotonic() + ENABLE_S
        while not is_so(newest := self.feedback.newest(max_age_s=FIRST_FEEDBACK_S)):
            if time.monotonic() > give_up_s:
                raise RobotError(
                    f"{self.name} arm: expected it {what} within {ENABLE_S:.0f} s, its mode is {newest.mode}."
                )
            time.sleep(0.02)

    def _check_mode(self, feedback: Feedback, *, must_be_enabled: bool = True) -> None:
        if _has_alarm(feedback):
            self._trip(FaultKind.ROBOT, f"{self.name} arm: an alarm or the emergency stop is on.")
        elif feedback.mode == RobotMode.COLLISION:
            self._trip(FaultKind.ROBOT, f"{self.name} arm: it hit something.")
        elif must_be_enabled and feedback.mode not in MODES_TO_MOVE:
            self._trip(FaultKind.ROBOT, f"{self.name} arm: it is not enabled (mode {feedback.mode}).")

    def _trip(self, kind: FaultKind, message: str) -> None:
        if self.faults.fault is None:
            logger.error("%s", message)
        self.faults.trip(safety.Fault(kind=kind, message=message))

    def _say_stop(self) -> None:
        self._is_stopped_here = True  # Also where the answer is lost, the controller may have heard it.
        try:
            self._dashboard.ask("EmergencyStop(1)", timeout_s=self._config.timeout_s)
        except CommandRefused as exc:
            logger.error("%s Press the button beside the robot where the %s arm moves.", exc, self.name)

    def _stream(self) -> None:
        """Sends the wanted position at the servo rate."""
        period_s = 1 / self._config.servo_hz
        due_s = time.monotonic()
        while not self._stop.is_set():
            due_s = max(due_s + period_s, time.monotonic())
            self.send_point(period_s)
            self._stop.wait(max(due_s - time.monotonic(), 0.0))

    def send_point(self, period_s: float) -> None:
        """Sends where the arm is to be now, for one servo period; says nothing to an arm with a fault."""
        try:
            self._send(period_s)
        except CommandRefused as exc:
            self._trip(FaultKind.ROBOT, f"{self.name} arm: {exc}")
        except RobotError as exc:
            self._trip(FaultKind.CONNECTION, f"{self.name} arm: {exc}")
        except SafetyError:
            pass  # Latched; the control loop meets it at its next tick.
        except Exception as exc:  # A mistake of ours must not end the thread and leave the arm to itself.
            self._trip(FaultKind.ROBOT, f"{self.name} arm: commanding it failed: {exc!r}")

    def _send(self, period_s: float) -> None:
        now = time.monotonic()
        self.check()
        with self._lock:
            if self._line is None:
                return
            wanted, began_s = self._line.at(now), self._line.begin_s
            if not self._is_holding and safety.is_silent(last_command_s=began_s, now_s=now, period_s=self._period_s):
                self._is_holding = True
                self.num_holds += 1
        angles = ",".join(f"{angle:.6f}" for angle in np.rad2deg(wanted[:NUM_JOINTS]))
        self._dashboard.ask(f"ServoJ({angles},t={period_s:.3f})", timeout_s=self._config.timeout_s)
        self._wanted_opening = float(wanted[NUM_JOINTS])

    def _drive_gripper(self, gripper: FeetechGripper, silent_after_s: float) -> None:
        """Commands and reads the gripper; a serial line may miss a few answers before that is a fault."""
        heard_s = time.monotonic()
        while not self._stop.wait(1 / self._config.servo_hz):
            try:
                if self.faults.fault is None:
                    gripper.command(self._wanted_opening)
                self._opening = gripper.opening()
            except RobotError as exc:
                if time.monotonic() - heard_s > silent_after_s:
                    self._trip(FaultKind.CONNECTION, f"{self.name} gripper: {exc}")
            except Exception as exc:  # As above.
                self._trip(FaultKind.ROBOT, f"{self.name} gripper: driving it failed: {exc!r}")
            else:
                heard_s = time.monotonic()


def _has_alarm(feedback: Feedback) -> bool:
    return feedback.has_error or feedback.mode == RobotMode.ERROR
