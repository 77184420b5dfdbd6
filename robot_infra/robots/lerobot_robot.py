"""Any robot of LeRobot (SO-100/101, Koch, ALOHA, ...) by its config: `environment.name=lerobot`."""

import contextlib
import time
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from robot_infra import safety
from robot_infra.cameras.frozen import FrozenWatch
from robot_infra.cameras.specs import camera_specs
from robot_infra.clock import TickClock
from robot_infra.interfaces import Transition
from robot_infra.robots.lerobot_options import LeRobotOptions, read_options
from robot_infra.robots.lerobot_plugins import make_robot, make_teleoperator
from robot_infra.robots.limited import require_limits
from robot_infra.safety import FaultKind
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError, RobotError, SafetyError
from serl_launcher.specs import RobotSpec
from serl_launcher.types import Observation

NORMALISED = (-100.0, 100.0)
"""LeRobot's motors without degrees."""
GRIPPER = (0.0, 100.0)
MAX_SETTLING_TICKS = 50
PROMPT_TICKS = 1.5
"""A robot that got its last command longer ago than this has followed it, and stands."""


class LeRobotRobot:
    """Satisfies `robot_infra.interfaces.RobotEnv`. It keeps its own time: a step ends at the end of its tick."""

    keeps_time = True

    def __init__(self, config: EnvironmentConfig) -> None:
        """Connects.

        Raises:
            ConfigError: A setting is missing or wrong; limits on speed and acceleration are no choice.
            RobotError: The robot does not answer.
            SafetyError: It answers with what cannot be used; it is disconnected.
        """
        require_limits(config)
        if not config.prompts:
            raise ConfigError("environment.name=lerobot needs environment.prompts, e.g. ['pick up the cube'].")
        self._config, self._options = config, read_options(config)
        self.clock = TickClock(1 / config.hz)
        self._num_steps, self._prompt, self._commanded_s = 0, config.prompts[0], -np.inf
        self._frozen = {
            name: FrozenWatch(name, frozen_after_s=self._options.frozen_after_s) for name in config.image_keys
        }
        self._robot = make_robot(self._options.robot)
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            self._spec = _spec_of(config, self._options, self._robot)
            limits = safety.limits_of(self._spec, [])
            self.gate = safety.Gate(limits, max_tracking_error=self._options.max_tracking_error)
            self._tracked = np.array(["gripper" not in name for name in self._spec.action_names])
            self._last = self._observe()
            stack.pop_all()

    @property
    def spec(self) -> RobotSpec:
        """What the robot looks like, from its features."""
        return self._spec

    def reset(self, *, seed: int) -> Observation:
        """Moves to the reset pose in time, and gives the person time to prepare the scene."""
        prompts = self._config.prompts
        self._num_steps, self._prompt = 0, prompts[seed % len(prompts)]
        self._brake()
        self._move_to_reset_pose(self._observe())
        time.sleep(self._options.wait_for_after_reset_time)
        self.clock.start()
        return self._observe()

    def step(self, action: np.ndarray) -> Transition:
        """Commands float32 [A]; returns what the sensors say at the end of the tick.

        Raises:
            SafetyError: A fault, latched; the robot has braked as far as it takes commands, and holds.
        """
        executed = self._command(action)
        self.clock.wait()
        observation = self._observe()
        self._num_steps += 1
        return Transition(
            observation=observation,
            reward=0.0,
            terminated=False,
            truncated=self._num_steps >= self._config.max_episode_length,
            success=False,
            executed_action=executed,
        )

    def render(self) -> np.ndarray:
        """Returns all cameras side by side, uint8 (height, sum of widths, 3)."""
        pictures = [self._last.images[name] for name in self._spec.camera_names]
        return np.concatenate(pictures, axis=1) if pictures else np.zeros((16, 16, 3), np.uint8)

    def emergency_stop(self, reason: str) -> None:
        """Brakes with the next tick and lets no further command through; LeRobot has no stop of its own."""
        self.gate.trip(FaultKind.EMERGENCY_STOP, reason)

    def clear_fault(self, *, by: str) -> None:
        """Lets the robot move again, from where it stands; `by` names the person who says so.

        Raises:
            SafetyError: It gives no observation, or somebody stopped it meanwhile; the fault stays.
        """
        seen = self.gate.num_faults
        self.gate.begin(safety.standing_still(self._spec, self._sense()[0]))
        self.gate.clear_fault(by=by, seen=seen)
        self.clock.start()

    def close(self) -> None:
        """Disconnects; may be called twice."""
        if self._robot.is_connected:
            self._robot.disconnect()

    def _move_to_reset_pose(self, observation: Observation) -> None:
        here = safety.standing_still(self._spec, observation.state)
        self.gate.begin(here)
        if here is None or not self._options.reset_pose:
            return
        goal = here.copy()
        for name, value in self._options.reset_pose.items():
            goal[self._spec.action_names.index(name)] = value
        self.clock.start()
        for command in safety.reset_trajectory(here, goal, self.gate.limits):
            self._command(command)
            self.clock.wait()
        for _ in range(MAX_SETTLING_TICKS):  # What the gate shortened, and the last of the velocity.
            if not self.gate.is_moving:
                break
            self._command(goal)
            self.clock.wait()

    def _command(self, action: np.ndarray) -> np.ndarray:
        try:
            command = self.gate.admit(action)
        except SafetyError:
            self._brake()
            raise
        executed = self._send(command)
        self.gate.note_executed(executed)
        return executed

    def _send(self, command: np.ndarray) -> np.ndarray:
        """Returns what the robot made of a command [A]; latches a fault where it took none."""
        try:
            sent = self._robot.send_action(dict(zip(self._spec.action_names, command.tolist(), strict=True)))
            executed = np.array([float(sent[name]) for name in self._spec.action_names], np.float32)
        except Exception as exc:  # Every driver has its own errors.
            self._fail(FaultKind.ROBOT, f"the robot did not take a command: {exc}", exc)
        self._commanded_s = time.monotonic()
        return executed

    def _brake(self) -> None:
        """Brings a robot in motion to rest within its limits, tick by tick, as far as it still takes commands."""
        last = self.gate.last_command
        if last is not None and time.monotonic() - self._commanded_s > PROMPT_TICKS * self.clock.period_s:
            self.gate.begin(last)
        with contextlib.suppress(SafetyError):
            while self.gate.is_moving and (command := self.gate.hold()) is not None:
                self._send(command)
                self.clock.wait()

    def _observe(self) -> Observation:
        state, pictures = self._sense()
        here, last = safety.standing_still(self._spec, state), self.gate.last_command
        if here is not None and last is not None:
            self.gate.check_tracking(np.where(self._tracked, here, last))
            if self.gate.fault is not None and self.gate.fault.kind is FaultKind.TRACKING:
                self._stop_pushing(here, last)
        if self.gate.fault is not None:
            raise SafetyError(f"The robot holds: {self.gate.fault.message}")
        images = {name: self._picture(name, picture) for name, picture in pictures.items()}
        self._last = Observation(images=images, state=state, prompt=self._prompt)
        return self._last

    def _sense(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Returns the state [S] and the pictures as they come; latches a fault where there are none to go by."""
        try:
            seen = self._robot.get_observation()
            state = np.array([float(seen[name]) for name in self._spec.state_names], np.float32)
            pictures = {name: np.asarray(seen[name], np.uint8) for name in self._spec.camera_names}
        except Exception as exc:  # Every driver and camera has its own errors.
            self._brake_and_fail(FaultKind.ROBOT, f"the robot gave no observation: {exc}", exc)
        if not np.isfinite(state).all():
            name = self._spec.state_names[int(np.argmin(np.isfinite(state)))]
            self._brake_and_fail(FaultKind.NOT_FINITE, f"the robot measures no finite number for {name}.")
        return state, pictures

    def _stop_pushing(self, here: np.ndarray, last: np.ndarray) -> None:
        """Commands the robot to where it was found; what it was commanded to cannot be reached."""
        self.gate.begin(here)
        with contextlib.suppress(SafetyError):
            self._send(np.where(self._tracked, here, last))

    def _picture(self, name: str, picture: np.ndarray) -> np.ndarray:
        self._frozen[name].note(picture)
        try:
            self._frozen[name].require_alive()
        except RobotError as exc:
            self._brake_and_fail(FaultKind.CAMERA, str(exc), exc)
        width, height = self._config.image_size
        if picture.shape[:2] == (height, width):
            return picture
        return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))

    def _brake_and_fail(self, kind: FaultKind, message: str, cause: Exception | None = None) -> NoReturn:
        """Latches a fault of what the robot senses; its motors can still bring it to rest."""
        self.gate.trip(kind, message)
        self._brake()
        raise SafetyError(f"The robot holds: {message}") from cause

    def _fail(self, kind: FaultKind, message: str, cause: Exception) -> NoReturn:
        self.gate.trip(kind, message)
        raise SafetyError(f"The robot holds: {message}") from cause


class LeRobotLeader:
    """A teleoperator of LeRobot as a leader arm: `robot_infra.devices.teleoperation.Positions`."""

    def __init__(self, config: EnvironmentConfig, spec: RobotSpec) -> None:
        """Connects; raises ConfigError where its actions are not those of the robot."""
        self._names = spec.action_names
        self._teleoperator = make_teleoperator(read_options(config).teleoperator)
        missing = [name for name in self._names if name not in self._teleoperator.action_features]
        if missing:
            self.close()
            raise ConfigError(f"The teleoperator has no {missing}; it has {list(self._teleoperator.action_features)}.")

    def positions(self) -> np.ndarray:
        """Returns where the person holds it, float64 [A]; raises RobotError where it does not answer."""
        try:
            action = self._teleoperator.get_action()
            return np.array([float(action[name]) for name in self._names])
        except Exception as exc:  # Every driver has its own errors.
            raise RobotError(f"The leader arm does not answer: {exc}") from exc

    def close(self) -> None:
        """Disconnects."""
        with contextlib.suppress(Exception):  # A device that is gone already is as good as closed.
            self._teleoperator.disconnect()


def _spec_of(config: EnvironmentConfig, options: LeRobotOptions, robot: Any) -> RobotSpec:  # Any: LeRobot's robot.
    observed, actions = robot.observation_features, tuple(robot.action_features)
    cameras = [name for name, feature in observed.items() if isinstance(feature, tuple)]
    unknown = [name for name in config.image_keys if name not in cameras]
    if unknown or any(name not in actions for name in (*options.bounds, *options.reset_pose)):
        raise ConfigError(
            f"environment of lerobot: cameras are {cameras}, actions are {list(actions)}; "
            f"got image_keys {config.image_keys}, bounds of {sorted(options.bounds)}, reset_pose of "
            f"{sorted(options.reset_pose)}."
        )
    bounds = [options.bounds.get(name, GRIPPER if "gripper" in name else NORMALISED) for name in actions]
    return RobotSpec(
        name=config.name,
        cameras=camera_specs(config),
        state_names=tuple(name for name, feature in observed.items() if not isinstance(feature, tuple)),
        action_names=actions,
        action_low=tuple(float(low) for low, _ in bounds),
        action_high=tuple(float(high) for _, high in bounds),
        control_hz=config.hz,
        max_speed=tuple(config.max_speed),
        max_acceleration=tuple(config.max_acceleration),
        max_jerk=tuple(config.max_jerk),
        workspace=config.workspace_spec(),
        max_jump=tuple(config.max_jump),
    )
