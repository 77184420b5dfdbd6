"""The X-Trainer as a robot: two arms, their grippers, the cameras; state and actions are joints and openings."""

import contextlib
import logging
import time
from typing import NoReturn

import numpy as np
from PIL import Image

from robot_infra import safety
from robot_infra.cameras.build import open_camera
from robot_infra.cameras.specs import camera_specs
from robot_infra.clock import TickClock
from robot_infra.interfaces import Transition
from robot_infra.robots.dobot.arm import DobotArm
from robot_infra.robots.dobot.options import DobotOptions, read_options
from robot_infra.robots.limited import require_limits
from robot_infra.safety import FaultKind
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError, RobotError, SafetyError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation

logger = logging.getLogger(__name__)

SIDES = ("left", "right")
ARM_WIDTH = 7
JOINT_NAMES = tuple(f"{side}_{name}" for side in SIDES for name in (*(f"j{i}" for i in range(6)), "gripper"))
UNITS = ("rad", "rad", "rad", "rad", "rad", "rad", "1") * 2
FIRST_PICTURE_S = 5.0
RESET_SETTLES_S, RESET_TOLERANCE_RAD = 3.0, 0.02
"""After its trajectory a reset waits for so long until every joint is so near to the reset pose."""
PROMPT_TICKS = 1.5
"""Arms that got their last command longer ago than this have ended it, and stand."""


class DobotXTrainer:
    """Satisfies `robot_infra.interfaces.RobotEnv`. It keeps its own time: a step ends at the end of its tick.

    Every command passes a gate of its own, also when the actor runs on another machine. Any fault of an arm, a camera
    or the connection stops both arms, latches and raises SafetyError; `clear_fault` is for a person.
    """

    keeps_time = True

    def __init__(self, config: EnvironmentConfig) -> None:
        """Connects to both arms and all cameras.

        Raises:
            ConfigError: A setting is missing or wrong; limits on speed and acceleration are no choice.
            RobotError: Something does not answer.
            SafetyError: An alarm is on.
        """
        self._config, self._options = config, read_options(config.options)
        require_limits(config)
        self._spec = spec_of(config, self._options)
        if not config.prompts:
            raise ConfigError("dobot_pnp needs environment.prompts, e.g. ['put the objects in the box'].")
        self.clock = TickClock(1 / config.hz)
        self.gate = safety.Gate(
            safety.limits_of(self._spec, []), max_tracking_error=self._options.max_tracking_error,
            on_emergency_stop=self._stop_arms,
        )  # fmt: skip
        self._tracked = np.array([name.rpartition("_")[2] != "gripper" for name in JOINT_NAMES])
        self._num_steps, self._prompt, self._has_played = 0, config.prompts[0], False
        self._commanded_s = -np.inf
        with contextlib.ExitStack() as stack:
            self.arms: dict[str, DobotArm] = {}
            for side in SIDES:
                self.arms[side] = DobotArm(side, getattr(self._options, side), period_s=1 / config.hz)
                stack.callback(self.arms[side].close)
            self._cameras = {name: open_camera(name, self._options.cameras[name]) for name in config.image_keys}
            for camera in self._cameras.values():
                stack.callback(camera.close)
                camera.wait(FIRST_PICTURE_S)
            self._opened = stack.pop_all()

    @property
    def spec(self) -> RobotSpec:
        """What the robot looks like."""
        return self._spec

    def reset(self, *, seed: int) -> Observation:
        """Moves to the reset pose in its own time and gives the person time to prepare the scene.

        Raises:
            SafetyError: A fault, or the reset pose is not reached.
        """
        rng = np.random.default_rng(seed)
        self._brake()
        if self._has_played:
            time.sleep(self._options.wait_for_after_done_time)
        self._move_to(self._reset_pose(rng))
        time.sleep(self._options.wait_for_after_reset_time)
        prompts = self._config.prompts
        self._num_steps, self._prompt, self._has_played = 0, prompts[seed % len(prompts)], True
        self.clock.start()
        return self._observe()

    def step(self, action: np.ndarray) -> Transition:
        """Commands float32 [14]; returns what the sensors say at the end of the tick.

        Raises:
            SafetyError: A fault; the arms hold.
        """
        command = self._command(action)
        self.clock.wait()
        observation = self._observe()
        self._num_steps += 1
        return Transition(
            observation=observation,
            reward=0.0,
            terminated=False,
            truncated=self._num_steps >= self._config.max_episode_length,
            success=False,
            executed_action=command,
        )

    def render(self) -> np.ndarray:
        """Returns all cameras side by side, uint8 (height, sum of widths, 3)."""
        return np.concatenate([self._picture(name) for name in self._config.image_keys], axis=1)

    def look(self) -> Observation:
        """Returns what cameras and arms say now, from any thread; commands nothing and finds no fault.

        Raises:
            RobotError: A camera or an arm is silent.
        """
        images = {name: self._picture(name) for name in self._config.image_keys}
        state = np.concatenate([self.arms[side].measured() for side in SIDES])
        return Observation(images=images, state=state, prompt=self._prompt)

    def emergency_stop(self, reason: str) -> None:
        """Stops both arms by their controllers, from any thread and at any time, without waiting."""
        self.gate.trip(FaultKind.EMERGENCY_STOP, reason)

    def clear_fault(self, *, by: str) -> None:
        """Takes our emergency stop back, clears the alarms of both arms and the gate; `by` names who says so.

        The arms stopped where the fault caught them, not where they were commanded to: motion begins there.

        Raises:
            SafetyError, RobotError: An alarm stays, or somebody stopped the robot meanwhile.
        """
        seen = self.gate.num_faults
        for arm in self.arms.values():
            arm.clear_fault(by=by)
        self.gate.begin(self._state())
        self.gate.clear_fault(by=by, seen=seen)
        self.clock.start()

    def close(self) -> None:
        """Lets go of everything; the arms keep their position."""
        self._opened.close()

    def _stop_arms(self, reason: str) -> None:
        for arm in self.arms.values():
            arm.emergency_stop(reason)

    def _command(self, action: np.ndarray) -> np.ndarray:
        try:
            command = self.gate.admit(action)
        except SafetyError:
            self._brake()
            raise
        try:
            self._send(command)
        except SafetyError as exc:
            self._fail(FaultKind.ROBOT, exc)
        return command

    def _send(self, command: np.ndarray) -> None:
        for arm in self.arms.values():
            arm.check()
        for side, target in zip(SIDES, command.reshape(2, ARM_WIDTH), strict=True):
            self.arms[side].command(target)
        self._commanded_s = time.monotonic()

    def _brake(self) -> None:
        """Brings arms in motion to rest within their limits, tick by tick; without it their last command ends dead."""
        last = self.gate.last_command
        if last is not None and time.monotonic() - self._commanded_s > PROMPT_TICKS * self.clock.period_s:
            self.gate.begin(last)
        with contextlib.suppress(SafetyError):  # An arm with a fault of its own has stopped already.
            while self.gate.is_moving and (command := self.gate.hold()) is not None:
                self._send(command)
                self.clock.wait()

    def _move_to(self, pose: np.ndarray) -> None:
        here = self._state()
        self.gate.begin(here)
        self.clock.start()
        for command in safety.reset_trajectory(here, pose, self.gate.limits):
            self._command(command)
            self.clock.wait()
        for _ in range(round(RESET_SETTLES_S * self._config.hz)):  # What the gate shortened, and where the servos lag.
            if self._distances(pose).max() < RESET_TOLERANCE_RAD and not self.gate.is_moving:
                return
            self._command(pose)
            self.clock.wait()
        distances = self._distances(pose)
        self._stop_pushing(self._state())
        joint = int(np.argmax(distances))
        self._fail(
            FaultKind.TRACKING,
            f"The reset pose was not reached: {JOINT_NAMES[joint]} is {distances[joint]:.3f} rad away. Look whether "
            "something is in its way, and whether environment.options.reset_pose is inside of the workspace.",
        )

    def _distances(self, pose: np.ndarray) -> np.ndarray:
        """Returns how far each joint is from a pose, [14]; grippers count as there: they may hold something."""
        return np.where(self._tracked, np.abs(self._state() - pose), 0.0)

    def _reset_pose(self, rng: np.random.Generator) -> np.ndarray:
        pose = np.asarray(self._options.reset_pose, np.float32)
        if self._options.random_reset:
            shift = rng.uniform(-1, 1, (2, 3)) * self._options.random_joint_range
            pose.reshape(2, ARM_WIDTH)[:, :3] += shift.astype(np.float32)
        return np.clip(pose, *self._spec.action_bounds())

    def _state(self) -> np.ndarray:
        try:
            return np.concatenate([self.arms[side].position() for side in SIDES])
        except SafetyError as exc:
            self._fail(FaultKind.ROBOT, exc)

    def _observe(self) -> Observation:
        state = self._state()
        last = self.gate.last_command
        if last is not None:
            self.gate.check_tracking(np.where(self._tracked, state, last))
        if self.gate.fault is not None and self.gate.fault.kind is FaultKind.TRACKING:
            self._stop_pushing(state)
        try:
            images = {name: self._picture(name) for name in self._config.image_keys}
        except RobotError as exc:
            self._brake()
            self._fail(FaultKind.CAMERA, exc)
        if self.gate.fault is not None:
            raise SafetyError(f"The arms hold: {self.gate.fault.message}")
        return Observation(images=images, state=state, prompt=self._prompt)

    def _stop_pushing(self, state: np.ndarray) -> None:
        """Lets both arms stay where they were found; what they were commanded to cannot be reached."""
        self.gate.begin(state)
        for side, here in zip(SIDES, state.reshape(2, ARM_WIDTH), strict=True):
            self.arms[side].stay(here)

    def _picture(self, name: str) -> np.ndarray:
        picture = self._cameras[name].newest()
        crop = self._options.cameras[name].crop
        if crop:
            left, top, width, height = crop
            picture = picture[top : top + height, left : left + width]
        width, height = self._config.image_size
        if picture.shape[:2] != (height, width):
            picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
        return picture

    def _fail(self, kind: FaultKind, cause: Exception | str) -> NoReturn:
        """Latches a fault; both arms end their present tick and stay there."""
        self.gate.trip(kind, str(cause))
        raise SafetyError(str(cause)) from (cause if isinstance(cause, Exception) else None)


def spec_of(config: EnvironmentConfig, options: DobotOptions) -> RobotSpec:
    """Returns what the robot looks like; raises ConfigError where a camera of `image_keys` is not configured."""
    missing = [name for name in config.image_keys if name not in options.cameras]
    if missing:
        raise ConfigError(f"environment.image_keys {missing} have no entry in environment.options.cameras.")
    return RobotSpec(
        name=config.name,
        cameras=camera_specs(config),
        state_names=JOINT_NAMES,
        action_names=JOINT_NAMES,
        action_low=tuple(options.pose_limits["low"]),
        action_high=tuple(options.pose_limits["high"]),
        control_hz=config.hz,
        action_units=UNITS,
        max_speed=tuple(config.max_speed),
        max_acceleration=tuple(config.max_acceleration),
        max_jerk=tuple(config.max_jerk),
        workspace=config.workspace_spec(),
        max_jump=tuple(config.max_jump),
    )
